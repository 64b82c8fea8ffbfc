"""News over Channels: what changed is published after the commit.

News only says where to look. Whoever waits reads the database (see `hub`), so lost news costs time,
never an answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import threading
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Any
from uuid import UUID

from channels.layers import get_channel_layer
from django.dispatch import Signal

from zndraw_joblib import signals
from zndraw_joblib.storage.rows import TaskRow

logger = logging.getLogger(__name__)

#: News not yet handed to the layer; what comes on top is dropped and left to the re-read.
MAX_OUTSTANDING = 10_000
#: Seconds that one message may take to be handed to the layer.
SEND_TIMEOUT = 2.0
#: Groups over which the ends in rooms are spread.
END_GROUPS = 256
#: Messages handed over at a time, and ids in one of them.
SLICE = 100


@lru_cache(maxsize=4096)
def room_digest(room_id: str) -> str:
    """What news calls a room: ids may hold what names of groups may not, and are long."""
    return hashlib.sha256(room_id.encode()).hexdigest()[:16]


@lru_cache(maxsize=4096)
def end_group(room_id: str) -> str:
    """The group that hears of each end in a room, and of those in about one of `END_GROUPS` rooms.

    A group for each task would cost a waiter two round trips to the layer, and the ends of a sweep
    a message each.
    """
    return f"joblib.end.{int(room_digest(room_id), 16) % END_GROUPS}"


def job_group(job_id: UUID) -> str:
    """The group that hears of work for a job."""
    return f"joblib.job.{job_id.hex}"


class Publisher:
    """Hands news to the channel layer from any thread without waiting for it.

    It runs on the loop of the server where there is one (an in-memory layer needs that), else on
    a loop in a daemon thread of its own, made at the first news and again after a fork. News of a
    group that comes while earlier news is on its way goes in one message.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server_loop: asyncio.AbstractEventLoop | None = None
        self._own_loop: asyncio.AbstractEventLoop | None = None
        #: By group: the type of its news and the ids that it is about.
        self._unsent: dict[str, tuple[str, list[str]]] = {}
        self._outstanding = 0
        self._dropping = False
        self._sending_on: asyncio.AbstractEventLoop | None = None
        self._sending: asyncio.Task[None] | None = None
        self._idle = threading.Event()
        self._idle.set()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on publish on this loop, while it lives."""
        self._server_loop = loop

    def publish(self, group: str, kind: str, *about: str) -> None:
        """Tell a group what happened to these; a failure is logged and never raised."""
        if get_channel_layer() is None:
            return
        with self._lock:
            if self._outstanding >= MAX_OUTSTANDING:
                if not self._dropping:
                    logger.warning("too much unsent news; dropping %s for %s and more", kind, group)
                self._dropping = True
                return
            self._unsent.setdefault(group, (kind, []))[1].extend(about)
            self._outstanding += len(about)
            if self._sending_on is not None and self._sending_on.is_running():
                return
            loop = self._sending_on = self._loop()
            self._idle.clear()
        try:
            loop.call_soon_threadsafe(self._start)
        except RuntimeError:  # The loop ended in between; the next news finds another.
            logger.warning("no loop to send %s to %s", kind, group)
            with self._lock:
                self._sending_on = None

    def flush(self, timeout: float = SEND_TIMEOUT) -> None:
        """Wait up to `timeout` seconds until all news is handed over."""
        if not self._idle.wait(timeout):
            logger.warning("some news was not sent in time")

    def forget(self) -> None:
        """After a fork: the loops of the parent are not ours."""
        self.__init__()  # type: ignore[misc]

    def _loop(self) -> asyncio.AbstractEventLoop:
        if self._server_loop and self._server_loop.is_running():
            return self._server_loop
        if self._own_loop is None:
            self._own_loop = asyncio.new_event_loop()
            threading.Thread(
                target=self._own_loop.run_forever, name="joblib-news", daemon=True
            ).start()
        return self._own_loop

    def _start(self) -> None:
        self._sending = asyncio.ensure_future(self._send_all())

    async def _send_all(self) -> None:
        while True:
            with self._lock:
                unsent, self._unsent = self._unsent, {}
                self._outstanding = 0
                self._dropping = False
                if not unsent:
                    self._sending_on = None
                    self._idle.set()
                    return
            messages = [
                (group, {"type": kind, "about": about[start : start + SLICE]})
                for group, (kind, about) in unsent.items()
                for start in range(0, len(about), SLICE)
            ]
            for start in range(0, len(messages), SLICE):
                first, *others = (
                    self._send(*message) for message in messages[start : start + SLICE]
                )
                await asyncio.gather(first, *others) if others else await first

    async def _send(self, group: str, message: dict[str, Any]) -> None:
        try:
            layer: Any = get_channel_layer()
            async with asyncio.timeout(SEND_TIMEOUT):
                await layer.group_send(group, message)
        except Exception as error:
            # A line each: while the layer is down there are many.
            logger.warning("could not send %s to %s: %r", message["type"], group, error)


publisher = Publisher()
os.register_at_fork(after_in_child=publisher.forget)
flush = publisher.flush


def announce(change: Signal, tasks: Sequence[TaskRow], **_: Any) -> None:
    """Receiver of `tasks_changed`: tell who waits for an end, watches a room, or waits for work."""
    news: dict[str, list[str]] = defaultdict(list)
    # Tasks that changed together are mostly of one room and one job.
    if change is signals.task_finished:
        kind = "task.finished"
        for room_id, ended in groupby(((task.room_id, task.id) for task in tasks), itemgetter(0)):
            digest = room_digest(room_id)
            news[end_group(room_id)] += [f"{digest}/{task_id.hex}" for _, task_id in ended]
    elif change is signals.task_submitted or change is signals.task_requeued:
        kind = "work.waits"
        for job_id, waiting in groupby(((task.job_id, task.id) for task in tasks), itemgetter(0)):
            job = job_id.hex
            news[job_group(job_id)] += [f"{job}/{task_id.hex}" for _, task_id in waiting]
    else:
        return
    for group, about in news.items():
        publisher.publish(group, kind, *about)


def connect() -> None:
    """Connect the receiver; the app does so when it is ready."""
    signals.tasks_changed.connect(announce, dispatch_uid="zndraw_joblib.news")
