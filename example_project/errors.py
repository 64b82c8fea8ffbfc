"""The errors of the site's own endpoints, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiResponse

#: By status code. The errors have DRF's own form; those of the job server's endpoints are RFC 9457.
ERRORS: dict[int, Any] = {
    400: OpenApiResponse({"type": "object"}, description="The request is not valid."),
    401: OpenApiResponse(
        {"type": "object"}, description="The request carries no valid credentials."
    ),
    403: OpenApiResponse({"type": "object"}, description="The caller may not do this."),
    404: OpenApiResponse({"type": "object"}, description="There is nothing at this address."),
    405: OpenApiResponse(
        {"type": "object"}, description="The address does not support this method."
    ),
    413: OpenApiResponse({"type": "object"}, description="The body is too large."),
    415: OpenApiResponse({"type": "object"}, description="The body must be application/json."),
    429: OpenApiResponse({"type": "object"}, description="Too many requests."),
}


def errors(*codes: int) -> dict[int, Any]:
    """The errors with these status codes."""
    return {code: ERRORS[code] for code in codes}
