"""The view of a room's events, by Server-Sent Events (the HTML standard, section 9.2)."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

from asgiref.sync import SyncToAsync, sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from rest_framework.request import Request
from rest_framework.viewsets import ViewSet

from zndraw_joblib.api import openapi_parts
from zndraw_joblib.api.base import JobLibView
from zndraw_joblib.api.caller import caller_again
from zndraw_joblib.api.event_documents import StreamQuery, messages, stream_query
from zndraw_joblib.api.sends import SendTimer
from zndraw_joblib.api.waiting import release_thread
from zndraw_joblib.events.hub import get_hub
from zndraw_joblib.events.polls import poll
from zndraw_joblib.events.watchers import Batch
from zndraw_joblib.exceptions import ProblemException, TaskNotFound
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage.connections import release_connections
from zndraw_joblib.tenancy import in_tenant

MEDIA_TYPE = "text/event-stream"
#: Tells a browser to come back 2,000 milliseconds after the stream has ended.
RETRY = b"retry: 2000\n\n"
#: Seconds after which the rights are checked again. A stream without events sends a comment
#: then, because proxies end silent connections.
CHECK_SECONDS = 15.0
#: Seconds that a client may take for what was sent; then the stream ends.
SEND_SECONDS = 10.0
_HEADERS = {
    "Cache-Control": "no-store",
    # nginx would collect the events otherwise.
    "X-Accel-Buffering": "no",
    # Keeps a host's GZipMiddleware from compressing each event by itself, which few clients join.
    "Content-Encoding": "identity",
}


class EventViewSet(JobLibView, ViewSet):
    """The events of a room."""

    def initialize_request(self, request: Any, *args: Any, **kwargs: Any) -> Request:
        """Keep the request as it is before the authenticators, which change its user."""
        self._unauthenticated: HttpRequest = copy.copy(request)
        return super().initialize_request(request, *args, **kwargs)

    @openapi_parts.rooms_events
    def stream(self, request: Request, room_id: str) -> HttpResponseBase:
        """The present state of everything in the room that changes, as long as the client stays.

        Under WSGI the changes since the cursor alone.
        """
        self.caller.require("read", room_id, hidden=TaskNotFound)
        query = stream_query(request.query_params, request.META.get("HTTP_LAST_EVENT_ID"))
        if request.method == "HEAD":
            return HttpResponse(content_type=MEDIA_TYPE, headers=_HEADERS)
        is_admin = self.caller.is_admin
        if not isinstance(request._request, ASGIRequest):
            batch = poll(room_id, query.tasks, is_admin=is_admin, resume=query.cursor)
            content = RETRY + _encoded(batch)
            return HttpResponse(content, content_type=MEDIA_TYPE, headers=_HEADERS)
        tenant = self.caller.tenant
        stream = _stream(room_id, query, is_admin, tenant, partial(self._check, tenant, room_id))
        # The stream needs no connection.
        release_connections()
        return StreamingHttpResponse(stream, content_type=MEDIA_TYPE, headers=_HEADERS)

    def _check(self, tenant: str | None, room_id: str) -> bool | None:
        """Whether the caller administers, None if they may not read the room any more."""
        view = type(self)(action=self.action, args=self.args, kwargs=self.kwargs)
        try:
            with in_tenant(tenant):
                caller = caller_again(copy.copy(self._unauthenticated), view)
                if caller is None or not caller.may("read", room_id):
                    return None
                return caller.is_admin
        except ProblemException:
            return None
        finally:
            release_connections()


async def _stream(
    room_id: str, query: StreamQuery, is_admin: bool, tenant: str | None, check: Any
) -> AsyncGenerator[bytes]:
    """The stream of a client, until it leaves or loses its rights.

    It ends after `long_poll_max_wait_seconds` too, and the client resumes: so a server that stops
    waits for streams no longer than for other requests.
    """
    await _release_thread_of_request()
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + get_settings().long_poll_max_wait_seconds
    check_at = loop.time() + check_seconds()
    # The task that sends, which stands still in a `yield` while the client does not read.
    sender: Any = asyncio.current_task()
    watch = get_hub(tenant).feeds.watch(
        room_id, tasks=query.tasks, is_admin=is_admin, resume=query.cursor
    )
    with SendTimer(SEND_SECONDS, sender.cancel) as timer:
        timer.begin()
        yield RETRY
        timer.end()
        async with watch as watcher:
            watcher.wake_at(min(check_at, ends_at))
            while loop.time() < ends_at:
                if loop.time() >= check_at:
                    async with get_hub(tenant).views:
                        still_admin = await asyncio.to_thread(check)
                    if still_admin is None:
                        return
                    watcher.is_admin = watcher.is_admin and still_admin
                    check_at = loop.time() + check_seconds()
                    watcher.wake_at(min(check_at, ends_at))
                part = watcher.room.encode(await watcher.batch(), _encoded)
                timer.begin()
                yield part
                timer.end()


def _encoded(batch: Batch) -> bytes:
    if batch.is_empty:
        # An id without data is no event, and the client resumes from it.
        return f": keep-alive\nid: {batch.after}\n\n".encode()
    return "".join(
        f"event: {kind}\nid: {cursor}\ndata: {document}\n\n"
        for kind, cursor, document in messages(batch)
    ).encode()


def check_seconds() -> float:
    """Seconds until the next check, drawn because all clients come back at once after a restart."""
    return CHECK_SECONDS * random.uniform(0.5, 1)


async def _release_thread_of_request() -> None:
    """End the thread and connection that Django's ASGI handler keeps for a request.

    The host's middleware may have opened the connection again after the view.
    """
    if SyncToAsync.thread_sensitive_context.get(None) is not None:
        await sync_to_async(release_connections)()
        release_thread()
