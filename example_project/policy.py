"""A strict Content-Security-Policy for the pages of the site."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

#: No inline script or style and no other site. `data:` and `blob:` are for pictures alone, because
#: the pages show the files of tasks.
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'self'",
    ]
)
#: Names of addresses whose pages come with inline scripts: Swagger UI and Redoc.
WITHOUT = {"docs", "redoc"}


@sync_and_async_middleware
def content_security_policy(get_response: Callable[[HttpRequest], Any]) -> Callable[..., Any]:
    """Add the header to pages that do not have one."""

    def protect(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        name = getattr(request.resolver_match, "url_name", None)
        if name not in WITHOUT and response.get("Content-Type", "").startswith("text/html"):
            response.setdefault("Content-Security-Policy", POLICY)
        return response

    if iscoroutinefunction(get_response):

        async def answer(request: HttpRequest) -> HttpResponseBase:
            later: Awaitable[HttpResponseBase] = get_response(request)
            return protect(request, await later)

        return answer
    return lambda request: protect(request, get_response(request))
