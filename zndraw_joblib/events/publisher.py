"""The publisher: sends messages to the channel layer without making the sender wait."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Sequence
from typing import Any

from channels.layers import get_channel_layer

from zndraw_joblib.signals import message_lost

logger = logging.getLogger(__name__)

#: Most unsent entries. Further ones are dropped, because the reads of each hub find their tasks.
MAX_UNSENT = 10_000
#: Most seconds that the layer may take for one message.
SEND_TIMEOUT = 2.0
#: Most messages that are sent at once.
MAX_CONCURRENT = 100
#: Most entries of one message.
MAX_ENTRIES = 100
#: Seconds between two sends. Messages of that time share the next one, because a send takes longer
#: than half of the request that caused it. The first message after a pause is sent at once.
PAUSE_SECONDS = 0.004


class Publisher:
    """Sends messages from any thread, on an event loop.

    The loop is the server's if there is one, because an in-memory layer works on one loop only;
    else a loop in a daemon thread, made at the first message and again after a fork. Entries for a
    group that arrive during a send or within `PAUSE_SECONDS` of it share the next message.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all loops and messages, because the parent's loops do not run after a fork."""
        self._lock = threading.Lock()
        self._server_loop: asyncio.AbstractEventLoop | None = None
        self._own_loop: asyncio.AbstractEventLoop | None = None
        #: The type and the unsent entries of each group's messages.
        self._unsent: dict[str, tuple[str, list[str]]] = {}
        self._unsent_count = 0
        self._dropping = False
        #: The loop that sends now; None while nothing is sent.
        self._sending_on: asyncio.AbstractEventLoop | None = None
        # Referenced here, because a loop keeps only weak references to its tasks.
        self._sender: asyncio.Task[None] | None = None
        self._all_sent = threading.Event()
        self._all_sent.set()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Send on this loop from now on, while it runs."""
        self._server_loop = loop

    def publish(self, group: str, kind: str, entries: Sequence[str]) -> None:
        """Send entries to a group; a failure is logged and not raised.

        `kind` is the type of the message; all messages of a group have the same.
        """
        if get_channel_layer() is None:
            return
        with self._lock:
            if self._unsent_count >= MAX_UNSENT:
                if not self._dropping:
                    logger.warning("too many unsent messages; dropping %s to %s", kind, group)
                self._dropping = True
                message_lost.send_robust(None, reason="full")
                return
            self._unsent.setdefault(group, (kind, []))[1].extend(entries)
            self._unsent_count += len(entries)
            self._all_sent.clear()
            idle = self._idle_loop()
        self._send_on(idle)

    def flush(self, timeout: float = SEND_TIMEOUT) -> None:
        """Wait up to `timeout` seconds until all messages are sent.

        A loop that ended while it sent may have left some, which another one sends.
        """
        with self._lock:
            idle = None if self._all_sent.is_set() else self._idle_loop()
        self._send_on(idle)
        if not self._all_sent.wait(timeout):
            logger.warning("some messages were not sent in time")

    def _idle_loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop that has to begin to send; None if one sends. Called with the lock."""
        if self._sending_on is not None and self._sending_on.is_running():
            return None
        self._sending_on = self._loop()
        return self._sending_on

    def _send_on(self, loop: asyncio.AbstractEventLoop | None) -> None:
        if loop is None:
            return
        try:
            loop.call_soon_threadsafe(self._start_sending)
        except RuntimeError:
            # It was closed meanwhile; the next message uses another one.
            logger.warning("no event loop to send messages on")
            with self._lock:
                self._sending_on = None

    def _loop(self) -> asyncio.AbstractEventLoop:
        if self._server_loop and self._server_loop.is_running():
            return self._server_loop
        if self._own_loop is None:
            self._own_loop = asyncio.new_event_loop()
            threading.Thread(
                target=self._own_loop.run_forever, name="joblib-publisher", daemon=True
            ).start()
        return self._own_loop

    def _start_sending(self) -> None:
        self._sender = asyncio.ensure_future(self._send_all())

    async def _send_all(self) -> None:
        while True:
            with self._lock:
                unsent, self._unsent = self._unsent, {}
                self._unsent_count = 0
                self._dropping = False
                if not unsent:
                    self._sending_on = None
                    self._all_sent.set()
                    return
            messages = [
                (group, {"type": kind, "entries": entries[start : start + MAX_ENTRIES]})
                for group, (kind, entries) in unsent.items()
                for start in range(0, len(entries), MAX_ENTRIES)
            ]
            for start in range(0, len(messages), MAX_CONCURRENT):
                first, *others = (
                    self._send(*message) for message in messages[start : start + MAX_CONCURRENT]
                )
                # Most batches are one message, which needs no task of its own.
                await (asyncio.gather(first, *others) if others else first)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _send(self, group: str, message: dict[str, Any]) -> None:
        try:
            layer: Any = get_channel_layer()
            async with asyncio.timeout(SEND_TIMEOUT):
                await layer.group_send(group, message)
        except Exception as error:
            # One line without a traceback, because a layer that is down fails at every message.
            logger.warning("could not send %s to %s: %r", message["type"], group, error)
            message_lost.send_robust(None, reason="layer")


publisher = Publisher()
os.register_at_fork(after_in_child=publisher.reset)
flush = publisher.flush
