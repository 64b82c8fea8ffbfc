"""The groups of the channel layer that an event loop is a member of."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

from channels.layers import get_channel_layer

logger = logging.getLogger(__name__)

#: Most seconds that a waiter waits to join; it then relies on the repeated reads of the database.
JOIN_TIMEOUT = 1.0
#: Seconds between a failure of the layer and the next attempt to receive.
RECONNECT_SECONDS = 1.0
#: Seconds between two attempts to join or leave the groups for which the layer failed.
RETRY_SECONDS = 5.0


class Groups:
    """Joins a group for its first member, leaves it after its last, and receives the messages.

    All members of an event loop share one channel. The task that receives is cancelled at the end
    of the loop only, because the pub/sub layer deletes the channel of a cancelled `receive`.
    """

    def __init__(self, deliver: Callable[[dict[str, Any]], None]) -> None:
        self._deliver = deliver
        self._layer: Any = get_channel_layer()
        self._channel: str | None = None
        #: The number of members of each group in this event loop.
        self._members: Counter[str] = Counter()
        #: The groups that the channel is in.
        self._joined: set[str] = set()
        #: A task for each group that is being joined or left.
        self._changes: dict[str, asyncio.Task[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        if self._layer is not None:
            loop = asyncio.get_running_loop()
            self._tasks = [
                loop.create_task(self._receive_forever()),
                loop.create_task(self._retry_forever()),
            ]

    async def join(self, groups: Collection[str]) -> None:
        """Add a member to each of these groups; each call needs a call of `leave`.

        Returns after `JOIN_TIMEOUT` at the latest. After a failure of the layer it is tried again.
        """
        self._members.update(groups)
        changes = [change for group in groups if (change := self._reconcile(group))]
        if changes:
            await asyncio.wait(changes, timeout=JOIN_TIMEOUT)

    def leave(self, groups: Collection[str]) -> None:
        """Remove a member from each of these groups."""
        for group in groups:
            self._members[group] -= 1
            if not self._members[group]:
                del self._members[group]
                self._reconcile(group)

    def _reconcile(self, group: str) -> asyncio.Task[None] | None:
        """Start to join or leave the group if its members require it; returns the task of that.

        Each group has one such task at a time, so that a slow join cannot undo a later leave.
        """
        if self._channel is None:
            return None
        if group not in self._changes and self._must_change(group, self._joined):
            change = self._change(group, self._channel, self._joined)
            self._changes[group] = asyncio.create_task(change)
        return self._changes.get(group)

    def _must_change(self, group: str, joined: set[str]) -> bool:
        return (group in self._members) != (group in joined)

    async def _change(self, group: str, channel: str, joined: set[str]) -> None:
        try:
            while channel == self._channel and self._must_change(group, joined):
                if group in self._members:
                    await self._layer.group_add(group, channel)
                    joined.add(group)
                else:
                    await self._layer.group_discard(group, channel)
                    joined.discard(group)
        except Exception:
            logger.warning("the channel layer failed; %s is tried again", group, exc_info=True)
        finally:
            del self._changes[group]

    async def _receive_forever(self) -> None:
        # Not forever, because a layer may swallow a cancellation while it connects to Redis, or
        # raise an error instead. The end of the loop would then wait for this task.
        while (task := asyncio.current_task()) and not task.cancelling():
            try:
                if self._channel is None:
                    self._channel = await self._layer.new_channel()
                    # A new set, because changes for the earlier channel may be under way.
                    self._joined = set()
                    for group in list(self._members):
                        self._reconcile(group)
                    continue
                self._deliver(await self._layer.receive(self._channel))
            except Exception:
                logger.exception("the channel layer failed; receiving on a new channel")
                self._channel = None
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _retry_forever(self) -> None:
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            for group in self._members.keys() | self._joined:
                self._reconcile(group)
