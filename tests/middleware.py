"""Typical and hostile middleware of a site, for the tests of `ApiLane`."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import Any

from django.http import HttpResponse, StreamingHttpResponse
from django.utils.decorators import async_only_middleware, sync_only_middleware
from django.utils.deprecation import MiddlewareMixin

ORIGIN = "https://app.example"


@sync_only_middleware
def cors(get_response: Any) -> Any:
    """Add CORS headers and answer preflight requests."""

    def middleware(request: Any) -> Any:
        preflight = request.method == "OPTIONS"
        response = HttpResponse() if preflight else get_response(request)
        response["Access-Control-Allow-Origin"] = ORIGIN
        return response

    return middleware


@async_only_middleware
def async_cors(get_response: Any) -> Any:
    """Add CORS headers, in an async middleware."""

    async def middleware(request: Any) -> Any:
        response = await get_response(request)
        response["Access-Control-Allow-Origin"] = ORIGIN
        return response

    return middleware


#: For each response: method, path, user, status, whether it has `Preference-Applied`.
audit_log: list[tuple[str, str, str, int, bool]] = []


class Audit(MiddlewareMixin):
    """Logs each response with its user."""

    def process_response(self, request: Any, response: Any) -> Any:
        user, applied = str(request.user), "Preference-Applied" in response
        audit_log.append((request.method, request.path, user, response.status_code, applied))
        return response


tenant: ContextVar[str | None] = ContextVar("tenant", default=None)
of_thread = threading.local()


class ContextTenant(MiddlewareMixin):
    """Stores the request's tenant in a context variable, and does not reset it."""

    def process_request(self, request: Any) -> None:
        if name := request.headers.get("X-Tenant"):
            tenant.set(name)


class ThreadTenant(MiddlewareMixin):
    """Stores the request's tenant in a thread-local variable, and does not reset it."""

    def process_request(self, request: Any) -> None:
        of_thread.tenant = request.headers.get("X-Tenant")


#: (context's tenant, thread's tenant) at each choice of a database in the lane's threads.
routed: list[tuple[str | None, str | None]] = []


class TenantRouter:
    """Records the tenants whenever Django chooses a database."""

    def db_for_write(self, model: Any, **hints: Any) -> None:
        if threading.current_thread().name.startswith("joblib-api"):
            routed.append((tenant.get(), getattr(of_thread, "tenant", None)))

    db_for_read = db_for_write


def maintenance(get_response: Any) -> Any:
    """Answer without calling the view."""

    def middleware(request: Any) -> Any:
        return HttpResponse("closed for today", status=503)

    return middleware


def moved(get_response: Any) -> Any:
    """Set another URLconf for the request."""

    def middleware(request: Any) -> Any:
        request.urlconf = "tests.middleware_urls"
        return get_response(request)

    return middleware


def streaming(get_response: Any) -> Any:
    """Replace each response by a streaming one."""

    def middleware(request: Any) -> Any:
        content = get_response(request).content
        return StreamingHttpResponse(bytes([byte]) for byte in content)

    return middleware


def async_streaming(get_response: Any) -> Any:
    """Replace each response by an async streaming one."""

    def middleware(request: Any) -> Any:
        content = get_response(request).content

        async def parts() -> Any:
            for byte in content:
                yield bytes([byte])

        return StreamingHttpResponse(parts())

    return middleware


def replacing(get_response: Any) -> Any:
    """Replace each response by a new object with the same content."""

    def middleware(request: Any) -> Any:
        response = get_response(request)
        return HttpResponse(response.content, status=response.status_code)

    return middleware


def body_reading(get_response: Any) -> Any:
    """Read the body before the view does."""

    def middleware(request: Any) -> Any:
        request.seen = len(request.body)
        return get_response(request)

    return middleware


def failing(get_response: Any) -> Any:
    """Raise an error after the view has answered."""

    def middleware(request: Any) -> Any:
        get_response(request)
        raise RuntimeError("a bug of the host")

    return middleware


def catching_all(get_response: Any) -> Any:
    """Turn every exception, `BaseException` included, into a response."""

    def middleware(request: Any) -> Any:
        try:
            return get_response(request)
        except BaseException:
            return HttpResponse("caught", status=500)

    return middleware
