"""``ws/v1/joblib/rooms/{room_id}/events/``: the present state of everything in a room that changes.

The connection is closed as those of `consumers`; with 4400 for a malformed query, and with 4408 for
a client that does not read what it was sent.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

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
        async with feeds.watch(
            self._room_id, tasks=query.tasks, is_admin=is_admin, resume=query.cursor
        ) as watcher:
            while True:
                if loop.time() >= check_at:
                    await self._check_again(watcher)
                    check_at = loop.time() + check_seconds()
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(check_at):
                        batch = await watcher.batch()
                    # Outside of the timeout, which would end a send in its middle.
                    await self._send(watcher.room.encode(batch, _documents))

    async def _send(self, texts: list[str]) -> None:
        for start in range(0, len(texts), CHUNK):
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    for text in texts[start : start + CHUNK]:
                        await self.send(text_data=text)
            except TimeoutError:
                raise CloseConnection(TOO_SLOW) from None

    async def _check_again(self, watcher: Watcher) -> None:
        try:
            # A caller who administers from now on gets events of workers at the next connection.
            watcher.is_admin = await self.read(self._check) and watcher.is_admin
        except (CloseConnection, ProblemException):
            raise
        except Exception:
            logger.exception("could not check the rights of a watcher; trying again")

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


def _documents(batch: Batch) -> list[str]:
    return [message.document for message in messages(batch)]
