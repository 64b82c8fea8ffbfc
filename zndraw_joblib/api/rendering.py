"""Answers as JSON."""

from __future__ import annotations

from typing import Any

import orjson
from rest_framework.renderers import JSONRenderer


class FastJSONRenderer(JSONRenderer):
    """JSON by orjson; DRF's own encoder takes over what that cannot say, such as huge integers."""

    def render(
        self, data: Any, accepted_media_type: Any = None, renderer_context: Any = None
    ) -> bytes:
        """The text as UTF-8; nothing for None."""
        if data is None:
            return b""
        try:
            return orjson.dumps(data, default=str)
        except TypeError:
            rendered: bytes = super().render(data, accepted_media_type, renderer_context)
            return rendered
