"""``ws/v1/joblib/rooms/{room_id}/events/``: the present state of everything in a room that changes.

The connection is closed as those of `consumers`; with 4400 for a malformed query, and with 4408 for
a client that does not read what it was sent.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from django.http import QueryDict

from zndraw_joblib.api.event_documents import StreamQuery, messages, stream_query
from zndraw_joblib.api.events import SEND_SECONDS, EventViewSet, check_seconds
from zndraw_joblib.api.host_errors import raised_as_problems
from zndraw_joblib.consumers import NOT_FOUND, CloseConnection, EventConsumer
from zndraw_joblib.events.hub import get_hub
from zndraw_joblib.events.watchers import Batch, Watcher
from zndraw_joblib.exceptions import ProblemException
from zndraw_joblib.names import nfc, room_error

logger = logging.getLogger(__name__)

#: The client has not read for `SEND_SECONDS`.
TOO_SLOW = 4408
#: Messages that must be sent within `SEND_SECONDS`.
CHUNK = 50


class RoomEventsConsumer(EventConsumer):
    """The events of a room; after a cursor (``?cursor=``) those since then, and what follows."""

    view_class = EventViewSet
    action = "stream"

    async def follow(self) -> None:
        """Send events until the client leaves, loses its rights, or does not read."""
        loop = asyncio.get_running_loop()
        query = self._query()
        is_admin = await self.read(self._check)
        check_at = loop.time() + check_seconds()
        feeds = get_hub(self.tenant).feeds
        watch = feeds.watch(
            self._room_id, tasks=query.tasks, is_admin=is_admin, resume=query.cursor
        )
        async with watch as watcher, SendTimeout() as timeout:
            watcher.wake_at(check_at)
            while True:
                if loop.time() >= check_at:
                    await self._check_again(watcher)
                    check_at = loop.time() + check_seconds()
                    watcher.wake_at(check_at)
                sent = watcher.room.encode(await watcher.batch(), _messages)
                for start in range(0, len(sent), CHUNK):
                    timeout.begin()
                    for message in sent[start : start + CHUNK]:
                        # Not by `send`, whose calls in between cost a tenth of a message.
                        await self.base_send(message)
                timeout.end()

    async def _check_again(self, watcher: Watcher) -> None:
        try:
            # A caller who administers from now on gets events of workers at the next connection.
            watcher.is_admin = await self.read(self._check) and watcher.is_admin
        except (CloseConnection, ProblemException):
            raise
        except Exception:
            logger.exception(
                "could not check the rights of a watcher; trying again", extra=self._log_fields()
            )

    def _check(self) -> bool:
        """Whether the caller administers; closes the connection if they may not read the room."""
        if room_error(self._room_id):
            raise CloseConnection(NOT_FOUND)
        caller = self.caller()
        if not caller.may("read", self._room_id):
            raise CloseConnection(NOT_FOUND)
        return caller.is_admin

    def _query(self) -> StreamQuery:
        with raised_as_problems():
            return stream_query(QueryDict(self.scope["query_string"]))

    @property
    def _room_id(self) -> str:
        room_id: str = self.scope["url_route"]["kwargs"]["room_id"]
        return nfc(room_id)


class SendTimeout:
    """Ends a `with` block by `TOO_SLOW` if a send in it takes longer than `SEND_SECONDS`.

    It has one timer for many sends, because a timeout for each of them costs more than the send.
    """

    def __init__(self) -> None:
        self._timeout = asyncio.timeout(None)
        self._began: float | None = None

    async def __aenter__(self) -> SendTimeout:
        """Start the timer."""
        self._loop = asyncio.get_running_loop()
        await self._timeout.__aenter__()
        self._look()
        return self

    async def __aexit__(self, *error: Any) -> None:
        """Stop the timer."""
        self._timer.cancel()
        try:
            await self._timeout.__aexit__(*error)
        except TimeoutError:
            raise CloseConnection(TOO_SLOW) from None

    def begin(self) -> None:
        """Note that a send begins."""
        self._began = self._loop.time()

    def end(self) -> None:
        """Note that the client has taken what was sent."""
        self._began = None

    def _look(self) -> None:
        now = self._loop.time()
        due = (now if self._began is None else self._began) + SEND_SECONDS
        if due <= now:
            self._timeout.reschedule(now)
        else:
            self._timer = self._loop.call_at(due, self._look)


def _messages(batch: Batch) -> list[dict[str, str]]:
    """The messages of a batch as ASGI has them."""
    return [{"type": "websocket.send", "text": sent.document} for sent in messages(batch)]
