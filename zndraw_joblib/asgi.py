"""The job server's API under ASGI, past the host's middleware.

Django's ASGI handler makes a thread for each request, and most middleware sends it there and back;
that costs more than the work. `ApiLane` answers requests for this app's routes that carry an
`Authorization` header from a few threads of its own, which keep their database connections, and
leaves everything else to the host's application.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from inspect import iscoroutinefunction
from io import BytesIO
from typing import Any

from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIRequest
from django.db import connections
from django.http import HttpResponseBase
from django.urls import Resolver404, resolve
from django.urls.resolvers import ResolverMatch

from zndraw_joblib.settings import get_settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

#: What the path of each of the app's routes contains, wherever the host includes them.
PREFIX = "/v1/joblib/"
APP_NAME = "zndraw_joblib"
#: How many times the limit of a body is read before the answer is given regardless.
PASSED_OVER = 16


class ClientLeft(Exception):
    """The client closed the connection."""


class ApiLane:
    """An ASGI application around the host's.

    Requests on the lane see the host's authenticators, throttles and hooks, and none of its
    middleware. Those without an `Authorization` header, such as a browser's with a session, and
    those of a host that is not allowed, go the host's way.
    """

    def __init__(self, application: Application) -> None:
        self._application = application

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(get_settings().api_threads, thread_name_prefix="joblib-api")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        if scope["type"] != "http" or PREFIX not in scope["path"] or not _authorized(scope):
            return await self._application(scope, receive, send)
        stream = BytesIO()
        request: Any = ASGIRequest(scope, stream)
        try:
            request.get_host()
            match = resolve(request.path_info)
        except (DisallowedHost, Resolver404):
            return await self._application(scope, receive, send)
        if APP_NAME not in match.app_names:
            return await self._application(scope, receive, send)
        try:
            await _read(receive, stream)
            response = await self._answer(request, match, receive)
        except ClientLeft:
            return None
        return await _send(response, send)

    async def _answer(
        self, request: Any, match: ResolverMatch, receive: Receive
    ) -> HttpResponseBase:
        request.resolver_match = match
        view: Any = match.func
        if not iscoroutinefunction(view):
            answer: HttpResponseBase = await self.run(view, request, *match.args, **match.kwargs)
            return answer
        request.joblib_run = self.run
        if "prefer" not in request.headers:
            response: Any = await view(request, *match.args, **match.kwargs)
            return response  # type: ignore[no-any-return]
        answering = asyncio.ensure_future(view(request, *match.args, **match.kwargs))
        leaving = asyncio.ensure_future(_client_leaves(receive))
        try:
            await asyncio.wait([answering, leaving], return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                raise ClientLeft
            return answering.result()  # type: ignore[no-any-return]
        finally:
            leaving.cancel()
            answering.cancel()

    async def run(self, view: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a view in a thread of the lane, and render its answer there."""
        context = contextvars.copy_context()
        call = partial(context.run, _call, view, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


def _call(view: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        response = view(*args, **kwargs)
        return response.render() if hasattr(response, "render") else response
    finally:
        for connection in connections.all(initialized_only=True):
            if getattr(connection, "pool", None):
                connection.close()
            else:
                # The threads of the lane stay, and so may their connections.
                connection.close_at = None
                connection.close_if_unusable_or_obsolete()


def _authorized(scope: Scope) -> bool:
    return any(name == b"authorization" for name, _ in scope["headers"])


async def _read(receive: Receive, stream: BytesIO) -> None:
    """Read the body, and keep no more of it than shows the view that it is too large.

    What a client sends beyond that is passed over for a while: one that is cut off while it sends
    would not see the answer.
    """
    limit = get_settings().max_body_bytes
    read = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        part = message.get("body", b"")
        read += len(part)
        if stream.tell() <= limit:
            stream.write(part)
        if not message.get("more_body") or read > PASSED_OVER * limit:
            stream.seek(0)
            return


async def _client_leaves(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(response: Any, send: Send) -> None:
    body = response.content
    headers = [
        (name.lower().encode("latin1"), value.encode("latin1")) for name, value in response.items()
    ]
    headers += [
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        *((b"set-cookie", morsel.OutputString().encode()) for morsel in response.cookies.values()),
    ]
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": body})
