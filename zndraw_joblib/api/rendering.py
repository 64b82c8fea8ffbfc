"""Answers as JSON."""

from __future__ import annotations

from typing import Any

from rest_framework.renderers import JSONRenderer

from zndraw_joblib.api.documents import json_text


class FastJSONRenderer(JSONRenderer):
    """JSON by orjson, which writes ids and times by itself."""

    def render(
        self, data: Any, accepted_media_type: Any = None, renderer_context: Any = None
    ) -> bytes:
        """The text as UTF-8; nothing for None."""
        return b"" if data is None else json_text(data)
