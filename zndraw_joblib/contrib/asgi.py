"""`ApiLane`: the job server's API under ASGI, answered by a few threads of its own.

Django's ASGI handler makes a thread for each request, opens a database connection in it and
switches between this thread and the event loop for sync middleware, which costs more than the
request itself. `ApiLane` runs a request through the host's whole middleware in one of a few lasting
threads, as a WSGI server does.

A request that waits (``Prefer: wait``) must not occupy such a thread, and sync middleware cannot be
suspended. So each run of the view is a run of the whole middleware, which ends with the exception
`MustWait` if the request has to wait; after the wait the middleware runs once more with the final
response. Middleware therefore processes only the final response (CORS headers, a session cookie, a
line of an audit log), and each run of the view is between a tenant middleware's setup and cleanup.
The part of a middleware before the view runs several times.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property, lru_cache, partial
from io import BytesIO
from typing import Any

from django.conf import settings
from django.core import signals
from django.core.exceptions import DisallowedHost, RequestAborted, RequestDataTooBig
from django.core.handlers.asgi import ASGIHandler, ASGIRequest, get_script_prefix
from django.db import close_old_connections
from django.http import HttpResponse, HttpResponseBase
from django.urls import Resolver404, get_resolver, resolve, set_script_prefix

from zndraw_joblib.api.base import JobLibView
from zndraw_joblib.api.documents import json_text
from zndraw_joblib.api.paths import client_path, mount_path
from zndraw_joblib.api.problems import MEDIA_TYPE, type_url
from zndraw_joblib.api.waiting import (
    MustWait,
    last_response,
    set_preference_applied,
    wait_of,
)
from zndraw_joblib.exceptions import ProblemException, UnsupportedMediaType, ValidationError
from zndraw_joblib.settings import get_settings
from zndraw_joblib.text import Message

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Each of the app's paths contains one of these, wherever the host includes its URLs.
MARKS = ("v1/joblib", "v1/me", "v1/problems/")
#: Discards at most this many times `max_body_bytes` before answering.
MAX_DISCARDED = 16


class ApiLane(ASGIHandler):
    """An ASGI application that answers this app's routes and passes others to the host's.

    In `asgi.py`: ``ApiLane(get_asgi_application())``.
    """

    def __init__(self, application: Application) -> None:
        super().__init__()
        self._application = application
        # Imports the views before there are threads, which would all import them at once.
        get_resolver().url_patterns  # noqa: B018

    def load_middleware(self, is_async: bool = False) -> None:
        """Load the middleware for sync, because one thread runs all of it."""
        super().load_middleware(is_async=False)

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(get_settings().api_threads, thread_name_prefix="joblib-api")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for the API, and pass others on to the host's application."""
        if scope["type"] != "http" or not _is_api(scope):
            await self._application(scope, receive, send)
            return
        with suppress(RequestAborted):
            new_request = partial(_request, scope, *await _read(receive))
            try:
                request = new_request()
            except ProblemException as problem:
                await self.send_response(_refusal(problem, scope), send)
                return
            wait = wait_of(request)
            if wait is None:
                response = await self.in_thread(self.respond, request)
            else:
                response = await self._wait(WaitingRequest(self, new_request, wait), receive)
            await self._send(response, send)

    async def _wait(self, waiting: WaitingRequest, receive: Receive) -> HttpResponseBase:
        answering = asyncio.ensure_future(waiting.respond())
        leaving = asyncio.ensure_future(_client_leaves(receive))
        try:
            await asyncio.wait([answering, leaving], return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                return answering.result()
            # As Django does, because the host may count the requests under way.
            await self.in_thread(partial(signals.request_finished.send, sender=type(self)))
            raise RequestAborted
        finally:
            leaving.cancel()
            answering.cancel()

    async def _send(self, response: Any, send: Send) -> None:
        try:
            await self.send_response(response, send)
        finally:
            if not response.closed:
                await self.in_thread(response.close)

    async def in_thread(self, call: Callable[..., Any], *args: Any) -> Any:
        """Call a function in a thread of the lane, with a copy of the request's context."""
        run = partial(contextvars.copy_context().run, call, *args)
        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    def respond(self, request: ASGIRequest, is_first: bool = True) -> HttpResponseBase:
        """Run a request through the middleware, in a thread of the lane.

        `is_first` is false after a wait, because `request_started` was sent before it.

        Raises
        ------
        MustWait
            The response may still change, and the request has time left to wait.
        """
        set_script_prefix(get_script_prefix(request.scope))
        if is_first:
            signals.request_started.send(sender=type(self), scope=request.scope)
        else:
            close_old_connections()
        try:
            response: Any = self.get_response(request)
        except MustWait:
            request.close()
            close_old_connections()
            raise
        if response.streaming:
            if not response.is_async:
                # As Django does under ASGI, because only this thread may run the iterator.
                response.streaming_content = _each(list(response.streaming_content))
        else:
            # Closed in this thread, because closing ends the thread's database connections.
            response.close()
        return response  # type: ignore[no-any-return]


class WaitingRequest:
    """A request with ``Prefer: wait``, for which the middleware runs several times."""

    def __init__(self, lane: ApiLane, new_request: Callable[[], Any], wait: int) -> None:
        self._lane = lane
        self._new_request = new_request
        self._wait = wait
        self._has_begun = False
        #: The last response of the view that the middleware completed, and the middleware's own.
        self._rendered: tuple[HttpResponseBase, HttpResponseBase] | None = None

    async def respond(self) -> HttpResponseBase:
        """The final response, as the middleware made it."""
        final: Any = await last_response(self._run_view, self._wait)
        if self._rendered and final is self._rendered[0]:
            return self._rendered[1]
        authenticated = final.renderer_context["request"]

        def return_final(view: Any, request: Any, /, *args: Any, **kwargs: Any) -> Any:
            # Set here for the middleware, because no authenticator runs this time.
            request.user, request.auth = authenticated.user, authenticated.auth
            set_preference_applied(final, self._wait)
            return final

        return await self._run_middleware(return_final)

    async def _run_view(self) -> HttpResponseBase:
        """The view's response, or the middleware's if that did not call the view."""
        view_response: Any = None
        answer: HttpResponseBase | None = None

        def run_view(view: Any, request: Any, /, *args: Any, **kwargs: Any) -> Any:
            nonlocal view_response, answer
            view_response = view(request, *args, **kwargs)
            if self._wait and hasattr(view_response, "waits_for"):
                raise MustWait
            set_preference_applied(view_response, self._wait)
            answer = view_response
            return answer

        try:
            rendered = await self._run_middleware(run_view)
        except MustWait:
            return view_response  # type: ignore[no-any-return]
        # Without an answer of the view the middleware has answered, for instance with a redirect.
        answer = answer or rendered
        self._rendered = answer, rendered
        return answer

    async def _run_middleware(self, run: Callable[..., Any]) -> HttpResponseBase:
        # A new request each time, because middleware may have set attributes of the last one.
        request = self._new_request()
        request.joblib_run = run
        # Throttles count a request only once, although its view may run several times.
        request.joblib_is_rerun = self._has_begun
        is_first, self._has_begun = not self._has_begun, True
        response: HttpResponseBase = await self._lane.in_thread(
            self._lane.respond, request, is_first
        )
        return response


class Body(BytesIO):
    """The part of a request's body that was kept; a read beyond it raises."""

    def __init__(self, content: bytes, is_whole: bool) -> None:
        super().__init__(content)
        self._is_whole = is_whole

    def read(self, size: int | None = -1, /) -> bytes:
        """As of a file. This app's views stop reading when they know that the body is too large."""
        part = super().read(size)
        if not self._is_whole and (size is None or size < 0 or len(part) < size):
            raise RequestDataTooBig("The request's body exceeds the job server's max_body_bytes.")
        return part


def _is_api(scope: Scope) -> bool:
    """Whether the path resolves to one of this app's routes in the host's URLs."""
    if not any(mark in scope["path"] for mark in MARKS):
        return False
    return _route(_path_info(scope), settings.ROOT_URLCONF) is not None


def _path_info(scope: Scope) -> str:
    """The path within the site's URLs, as `ASGIRequest.path_info`."""
    path: str = scope["path"]
    return path.removeprefix(get_script_prefix(scope))


# Caches no view, because the view of a route depends on whether an event loop runs.
@lru_cache(maxsize=1024)
def _route(path: str, urlconf: Any) -> str | None:
    """The route of this app that the path matches, as in `JobLibView.route`; None for others."""
    try:
        match = resolve(path, urlconf)
    except Resolver404:
        return None
    view: Any = match.func
    # By the view, because a host may include the URLs under an app name of its own.
    if not issubclass(getattr(view, "cls", object), JobLibView):
        return None
    return f"{view.initkwargs['route']}{match.kwargs.get('rest', '')}"


async def _read(receive: Receive) -> tuple[bytes, bool]:
    """The body, or the beginning of one that is too large; and whether it is whole.

    The rest is discarded, up to a limit, because a client that is cut off while it sends does not
    read the answer.
    """
    limit = get_settings().max_body_bytes
    kept, read = BytesIO(), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestAborted
        part = message.get("body", b"")
        read += len(part)
        if kept.tell() <= limit:
            kept.write(part)
        if not message.get("more_body") or read > MAX_DISCARDED * limit:
            return kept.getvalue(), read == kept.tell() and not message.get("more_body")


def _request(scope: Scope, content: bytes, is_whole: bool) -> ASGIRequest:
    """A request for the middleware.

    Raises
    ------
    zndraw_joblib.exceptions.ProblemException
        Django cannot read the headers or the query, or the host is not allowed. Raised here,
        because Django would answer before any view, and without a problem document.
    """
    try:
        request = ASGIRequest(scope, Body(content, is_whole))
    except UnicodeDecodeError as error:
        raise ValidationError(Message("The query must be UTF-8, percent-encoded.")) from error
    except (ValueError, LookupError) as error:
        # Django reads the parameters of this header, and fails at an unknown charset.
        raise UnsupportedMediaType(Message("The Content-Type is malformed.")) from error
    try:
        request.get_host()
    except DisallowedHost as error:
        # Logged as Django does.
        logging.getLogger("django.security.DisallowedHost").error("%s", error)
        raise ValidationError(Message("This site does not answer for that Host.")) from error
    return request


def _refusal(problem: ProblemException, scope: Scope) -> HttpResponse:
    """The response to a request that Django could not pass to the middleware."""
    set_script_prefix(get_script_prefix(scope))
    path = _path_info(scope)
    mount = mount_path(path, _route(path, settings.ROOT_URLCONF) or "")
    body = json_text(problem.document(type_url(type(problem), mount), client_path(path)))
    return HttpResponse(
        body, status=problem.status, content_type=MEDIA_TYPE, headers={"Vary": "Prefer"}
    )


async def _each(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def _client_leaves(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
