"""``ws/v1/joblib/rooms/{room_id}/events/``: the present state of everything in a room that changes.

The connection is closed as those of `consumers`; with 4400 for a malformed query, and with 4408 for
a client that does not read what it was sent. With ``?batch=true`` a message is an array of
documents, because a message for each of many documents at once costs the server half as much again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from django.http import QueryDict

from zndraw_joblib.api.event_documents import (
    MAX_DOCUMENTS,
    StreamQuery,
    messages,
    stream_query,
    wants_arrays,
)
from zndraw_joblib.api.events import SEND_SECONDS, EventViewSet, check_seconds
from zndraw_joblib.api.host_errors import raised_as_problems
from zndraw_joblib.api.sends import SendTimer
from zndraw_joblib.consumers import NOT_FOUND, CloseConnection, EventConsumer
from zndraw_joblib.events.hub import get_hub
from zndraw_joblib.events.watchers import Batch, Watcher
from zndraw_joblib.exceptions import ProblemException
from zndraw_joblib.names import nfc, room_error

logger = logging.getLogger(__name__)

Encoder = Callable[[Batch], list[list[dict[str, str]]]]

#: The client has not read for `SEND_SECONDS`.
TOO_SLOW = 4408


class RoomEventsConsumer(EventConsumer):
    """The events of a room; after a cursor (``?cursor=``) those since then, and what follows."""

    view_class = EventViewSet
    action = "stream"

    async def follow(self) -> None:
        """Send events until the client leaves, loses its rights, or does not read."""
        limit = asyncio.timeout(None)
        try:
            async with limit:
                # A time that has passed, so that the send ends at once.
                with SendTimer(SEND_SECONDS, partial(limit.reschedule, 0.0)) as timer:
                    await self._follow(timer)
        except TimeoutError:
            if not limit.expired():
                raise
            raise CloseConnection(TOO_SLOW) from None

    async def _follow(self, timer: SendTimer) -> None:
        loop = asyncio.get_running_loop()
        query, encode = self._query()
        is_admin = await self.read(self._check)
        check_at = loop.time() + check_seconds()
        feeds = get_hub(self.tenant).feeds
        watch = feeds.watch(
            self._room_id, tasks=query.tasks, is_admin=is_admin, resume=query.cursor
        )
        async with watch as watcher:
            watcher.wake_at(check_at)
            while True:
                if loop.time() >= check_at:
                    await self._check_again(watcher)
                    check_at = loop.time() + check_seconds()
                    watcher.wake_at(check_at)
                for part in watcher.room.encode(await watcher.batch(), encode):
                    timer.begin()
                    for message in part:
                        # Not by `send`, whose calls in between cost a tenth of a message.
                        await self.base_send(message)
                timer.end()

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

    def _query(self) -> tuple[StreamQuery, Encoder]:
        query = QueryDict(self.scope["query_string"])
        with raised_as_problems():
            return stream_query(query), _arrays if wants_arrays(query) else _messages

    @property
    def _room_id(self) -> str:
        room_id: str = self.scope["url_route"]["kwargs"]["room_id"]
        return nfc(room_id)


def _messages(batch: Batch) -> list[list[dict[str, str]]]:
    """The messages of a batch as ASGI has them.

    They are in parts, each of which must be sent within `SEND_SECONDS`.
    """
    return [[_message(document) for document in part] for part in _parts(batch)]


def _arrays(batch: Batch) -> list[list[dict[str, str]]]:
    """As `_messages`, with one message for each part."""
    return [[_message(f"[{','.join(part)}]")] for part in _parts(batch)]


def _parts(batch: Batch) -> list[list[str]]:
    documents = [sent.document for sent in messages(batch)]
    starts = range(0, len(documents), MAX_DOCUMENTS)
    return [documents[start : start + MAX_DOCUMENTS] for start in starts]


def _message(text: str) -> dict[str, str]:
    return {"type": "websocket.send", "text": text}
