"""Renders answers as JSON."""

from __future__ import annotations

from typing import Any

from rest_framework.renderers import JSONRenderer

from zndraw_joblib.api.documents import json_text


class FastJSONRenderer(JSONRenderer):
    """Renders by orjson, which is faster than `json` and writes ids and times itself."""

    def render(
        self, data: Any, accepted_media_type: Any = None, renderer_context: Any = None
    ) -> bytes:
        """The document as UTF-8; no bytes for None, as in a 204."""
        return b"" if data is None else json_text(data)
