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
    Coroutine,
    Iterable,
    Mapping,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property, lru_cache, partial
from typing import Any, NamedTuple

from django.conf import settings
from django.core import signals
from django.core.exceptions import DisallowedHost, RequestAborted
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
from zndraw_joblib.contrib.bodies import Body, Receive, StreamedBody, read_whole
from zndraw_joblib.exceptions import ProblemException, UnsupportedMediaType, ValidationError
from zndraw_joblib.settings import get_settings
from zndraw_joblib.text import Message

Scope = dict[str, Any]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Each of the app's paths contains one of these, wherever the host includes its URLs.
MARKS = ("v1/joblib", "v1/me", "v1/problems/")


class LaneRoute(NamedTuple):
    """A route of this app, as in `JobLibView.route`, and the method whose body is streamed."""

    path: str
    streamed_method: str | None


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
            if _is_streamed(scope):
                await self._respond_to_stream(scope, receive, send)
                return
            content, is_whole = await read_whole(receive)

            def new_request() -> ASGIRequest:
                return _request(scope, Body(content, is_whole))

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
            await self._send(response, receive, send)

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

    async def _respond_to_stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request whose body the view reads while it arrives.

        In threads of their own, because a slow client occupies one until all of its body is there.
        """
        body = StreamedBody(receive)
        try:
            request = _request(scope, body)
            response = await self.in_thread(self.respond, request, threads=self._upload_threads)
        except ProblemException as problem:
            response = _refusal(problem, scope)
        except asyncio.CancelledError:
            body.abort()
            raise
        await body.discard()
        await self._send(response, receive, send)

    async def _send(self, response: Any, receive: Receive, send: Send) -> None:
        try:
            if response.streaming:
                # Not to a client that left, because a file may be large.
                await _unless_gone(self.send_response(response, send), receive)
            else:
                await self.send_response(response, send)
        finally:
            if not response.closed:
                await self.in_thread(response.close)

    @cached_property
    def _upload_threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(get_settings().api_threads, thread_name_prefix="joblib-upload")

    async def in_thread(
        self, call: Callable[..., Any], *args: Any, threads: ThreadPoolExecutor | None = None
    ) -> Any:
        """Call a function in a thread of the lane, with a copy of the request's context."""
        run = partial(contextvars.copy_context().run, call, *args)
        return await asyncio.get_running_loop().run_in_executor(threads or self._threads, run)

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


def _is_api(scope: Scope) -> bool:
    """Whether the path resolves to one of this app's routes in the host's URLs."""
    if not any(mark in scope["path"] for mark in MARKS):
        return False
    return _route(_path_info(scope), settings.ROOT_URLCONF) is not None


def _is_streamed(scope: Scope) -> bool:
    """Whether the view of an API's path reads the body of this method while it arrives."""
    route = _route(_path_info(scope), settings.ROOT_URLCONF)
    return route is not None and scope["method"] == route.streamed_method


def _path_info(scope: Scope) -> str:
    """The path within the site's URLs, as `ASGIRequest.path_info`."""
    path: str = scope["path"]
    return path.removeprefix(get_script_prefix(scope))


# Caches no view, because the view of a route depends on whether an event loop runs.
@lru_cache(maxsize=1024)
def _route(path: str, urlconf: Any) -> LaneRoute | None:
    """The route of this app that the path matches; None for others."""
    try:
        match = resolve(path, urlconf)
    except Resolver404:
        return None
    view: Any = match.func
    # By the view, because a host may include the URLs under an app name of its own.
    if not issubclass(getattr(view, "cls", object), JobLibView):
        return None
    path = f"{view.initkwargs['route']}{match.kwargs.get('rest', '')}"
    return LaneRoute(path, view.cls.streamed_method)


def _request(scope: Scope, body: Any) -> ASGIRequest:
    """A request for the middleware.

    Raises
    ------
    zndraw_joblib.exceptions.ProblemException
        Django cannot read the headers or the query, or the host is not allowed. Raised here,
        because Django would answer before any view, and without a problem document.
    """
    try:
        request = ASGIRequest(scope, body)
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
    route = _route(path, settings.ROOT_URLCONF)
    mount = mount_path(path, route.path if route else "")
    body = json_text(problem.document(type_url(type(problem), mount), client_path(path)))
    return HttpResponse(
        body, status=problem.status, content_type=MEDIA_TYPE, headers={"Vary": "Prefer"}
    )


async def _each(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def _unless_gone(sending: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Send a response, and stop when the client leaves."""
    tasks = [asyncio.ensure_future(sending), asyncio.ensure_future(_client_leaves(receive))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        # The view cancels it to end the stream of a client that does not read.
        if tasks[0].done() and not tasks[0].cancelled():
            tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        # Until both have ended, because the response is closed then.
        await asyncio.gather(*tasks, return_exceptions=True)


async def _client_leaves(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
