"""The job server's API under ASGI, past the host's middleware.

Django's ASGI handler makes a thread for each request, and most middleware sends it there and back;
that costs more than the work. `ApiLane` answers from a few threads of its own, which keep their
database connections, and leaves everything else to the host's application.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property, partial
from inspect import iscoroutinefunction
from io import BytesIO
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpResponseBase
from django.urls.resolvers import ResolverMatch

from zndraw_joblib.contrib import lane
from zndraw_joblib.exceptions import ProblemException
from zndraw_joblib.settings import get_settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

#: How many times the limit of a body is read before the answer is given regardless.
PASSED_OVER = 16


class ClientLeft(Exception):
    """The client closed the connection."""


class ApiLane:
    """An ASGI application around the host's; which requests take the lane, `lane` says.

    Wrap Django's in `asgi.py`: ``ApiLane(get_asgi_application())``.
    """

    def __init__(self, application: Application) -> None:
        self._application = application
        lane.load()

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(get_settings().api_threads, thread_name_prefix="joblib-api")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        if scope["type"] != "http" or not lane.concerns(scope["path"]):
            return await self._application(scope, receive, send)
        stream = BytesIO()
        response: HttpResponseBase
        with suppress(ClientLeft):
            try:
                entered = lane.enter(partial(ASGIRequest, scope, stream))
            except ProblemException as problem:
                await _read(receive, stream)
                response = lane.refusal(problem, scope["path"])
            else:
                if entered is None or not _authorized(scope):
                    return await self._application(scope, receive, send)
                await _read(receive, stream)
                response = await self._answer(*entered, receive)
            await _send(response, send)
        return None

    async def _answer(
        self, request: Any, match: ResolverMatch, receive: Receive
    ) -> HttpResponseBase:
        view: Any = match.func
        if not iscoroutinefunction(view):
            answer: HttpResponseBase = await self.run(view, request, *match.args, **match.kwargs)
            return answer
        request.joblib_run = self.run
        if "HTTP_PREFER" not in request.META:
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
        call = partial(context.run, lane.answer, view, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


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
    headers = [
        (name.lower().encode("latin1"), value.encode("latin1"))
        for name, value in lane.headers(response)
    ]
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": response.content})
