"""What the site's own endpoints answer besides success, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiResponse

#: In DRF's own form; the job server's endpoints speak RFC 9457.
ERRORS: dict[int, Any] = {
    400: OpenApiResponse({"type": "object"}, description="The request is not valid."),
    401: OpenApiResponse({"type": "object"}, description="Nobody is authenticated."),
    403: OpenApiResponse({"type": "object"}, description="Not by this caller."),
    404: OpenApiResponse({"type": "object"}, description="There is no such thing."),
    405: OpenApiResponse({"type": "object"}, description="Not by this method."),
    413: OpenApiResponse({"type": "object"}, description="The body is too large."),
    415: OpenApiResponse({"type": "object"}, description="Not JSON."),
    429: OpenApiResponse({"type": "object"}, description="Too many requests."),
}


def errors(*codes: int) -> dict[int, Any]:
    """Those with these status codes."""
    return {code: ERRORS[code] for code in codes}
