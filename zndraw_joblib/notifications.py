"""News over Channels: what changed is published after the commit, and who waits is woken.

News only says where to look. Whoever waits reads the database, so lost news costs time, never
an answer: each hub re-reads the database for all its waiters every `REREAD_SECONDS`.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

from channels.layers import get_channel_layer
from django.db import connections, router
from django.db.models import Exists, OuterRef

from zndraw_joblib import signals
from zndraw_joblib.lifecycle import TERMINAL_STATUSES, TaskStatus
from zndraw_joblib.models import Job, Task

logger = logging.getLogger(__name__)

REREAD_SECONDS = 5.0
#: News not yet handed to the layer; what comes on top is dropped and left to the re-read.
MAX_OUTSTANDING = 10_000
#: Seconds that one message may take to be handed to the layer.
SEND_TIMEOUT = 2.0
#: Ids in one query of the re-read.
CHUNK = 1000


def task_group(task_id: UUID) -> str:
    """The group that hears of the task's end."""
    return f"joblib.task.{task_id.hex}"


def room_group(room_id: str) -> str:
    """The group that hears of each end in a room; ids may hold what group names may not."""
    return f"joblib.room.{hashlib.sha256(room_id.encode()).hexdigest()[:48]}"


def job_group(job_id: UUID) -> str:
    """The group that hears of work for a job."""
    return f"joblib.job.{job_id.hex}"


class Publisher:
    """Hands news to the channel layer from any thread without waiting for it.

    It runs on the loop of the server where there is one (an in-memory layer needs that), else on
    a loop in a daemon thread of its own, made at the first news and again after a fork.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server_loop: asyncio.AbstractEventLoop | None = None
        self._own_loop: asyncio.AbstractEventLoop | None = None
        self._outstanding: set[Future[None]] = set()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on publish on this loop, while it lives."""
        self._server_loop = loop

    def publish(self, group: str, message: dict[str, Any]) -> None:
        """Send a message to a group; a failure is logged and never raised."""
        with self._lock:
            if len(self._outstanding) >= MAX_OUTSTANDING:
                logger.warning("too much unsent news; dropped %s for %s", message["type"], group)
                return
            coroutine = self._send(group, message)
            try:
                future = asyncio.run_coroutine_threadsafe(coroutine, self._loop())
            except RuntimeError:  # The loop ended in between.
                coroutine.close()
                logger.warning("no loop to send %s to %s", message["type"], group)
                return
            self._outstanding.add(future)
        # Outside the lock: a future that is done already calls back at once.
        future.add_done_callback(self._outstanding.discard)

    def flush(self, timeout: float = SEND_TIMEOUT) -> None:
        """Wait up to `timeout` seconds until all news is handed over."""
        for future in list(self._outstanding):
            try:
                future.result(timeout)
            except (TimeoutError, asyncio.CancelledError):
                logger.warning("some news was not sent in time")
                return

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

    async def _send(self, group: str, message: dict[str, Any]) -> None:
        try:
            layer = get_channel_layer()
            if layer is not None:
                async with asyncio.timeout(SEND_TIMEOUT):
                    await layer.group_send(group, message)
        except Exception:
            logger.exception("could not send %s to %s", message["type"], group)


publisher = Publisher()
os.register_at_fork(after_in_child=publisher.forget)
flush = publisher.flush


def announce_end(task: Task, **_: Any) -> None:
    """Receiver of `task_finished`: tell those who wait for the task or watch its room."""
    message = {"type": "task.finished", "task": task.id.hex}
    publisher.publish(task_group(task.id), message)
    publisher.publish(room_group(task.room_id), message)


def announce_work(task: Task, **_: Any) -> None:
    """Receiver of `task_submitted` and `task_requeued`: tell those who wait for work."""
    publisher.publish(
        job_group(task.job_id), {"type": "work.waits", "job": task.job_id.hex, "task": task.id.hex}
    )


def connect() -> None:
    """Connect the receivers; the app does so when it is ready."""
    signals.task_finished.connect(announce_end, dispatch_uid="zndraw_joblib.end")
    signals.task_submitted.connect(announce_work, dispatch_uid="zndraw_joblib.submitted")
    signals.task_requeued.connect(announce_work, dispatch_uid="zndraw_joblib.requeued")


@dataclass(eq=False)
class Claimer:
    """Somebody who waits for work of some jobs. `news` is the task that woke them, if known."""

    jobs: tuple[UUID, ...]
    woken: asyncio.Future[str | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Hub:
    """All who wait on one event loop, over one channel, with one task that receives.

    The receiving task is never cancelled: in the pub/sub layer that would delete the channel.
    """

    def __init__(self) -> None:
        self._layer: Any = get_channel_layer()
        self._channel: str | None = None
        self._ends: dict[UUID, set[asyncio.Future[None]]] = {}
        self._unread: set[UUID] = set()
        self._claimers: dict[UUID, deque[Claimer]] = {}
        self._joined: set[str] = set()
        self._joining: dict[str, asyncio.Task[None]] = {}
        self._wake_reader = asyncio.Event()
        # One thread and one connection for all waiters, and only while it reads.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="joblib-reread")
        loop = asyncio.get_running_loop()
        publisher.attach(loop)
        self._tasks = [loop.create_task(self._receive()), loop.create_task(self._reread())]

    async def wait_for_end(self, task_id: UUID, seconds: float) -> None:
        """Return when the task ended or is gone, or after `seconds`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        ended: asyncio.Future[None] = loop.create_future()
        self._ends.setdefault(task_id, set()).add(ended)
        try:
            await self._join(task_group(task_id))
            # It may have ended before the group was joined.
            self._unread.add(task_id)
            self._wake_reader.set()
            await asyncio.wait([ended], timeout=max(0.0, deadline - loop.time()))
        finally:
            waiters = self._ends[task_id]
            waiters.discard(ended)
            if not waiters:
                del self._ends[task_id]
                self._unread.discard(task_id)
            self._reconcile(task_group(task_id))

    async def claim(
        self,
        jobs: Iterable[UUID],
        seconds: float,
        attempt: Callable[[], Coroutine[Any, Any, str | None]],
    ) -> None:
        """Call `attempt` until it answers a task's id, or `seconds` are over.

        `attempt` answers the hex id of the task it claimed, or None. It is called once at the
        start, and then whenever there may be work: of all claimers in this process one is woken
        for each piece of news. Whoever was woken for a task and took another, or left, wakes the
        next.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        jobs = tuple(jobs)
        claimer = self._enlist(Claimer(jobs))
        try:
            await asyncio.gather(*(self._join(job_group(job)) for job in jobs))
            while True:
                taken = await attempt()
                if taken or loop.time() >= deadline:
                    if claimer.woken.done() and claimer.woken.result() != taken:
                        self._pass_on(claimer)
                    return
                await asyncio.wait([claimer.woken], timeout=max(0.0, deadline - loop.time()))
                if not claimer.woken.done():
                    return
                news = claimer.woken.result()
                self._dismiss(claimer)
                claimer = self._enlist(Claimer(jobs))
                taken = await attempt()
                if taken:
                    if news != taken:
                        self._wake(jobs, news)
                    if claimer.woken.done() and claimer.woken.result() != taken:
                        self._pass_on(claimer)
                    return
        except BaseException:
            self._pass_on(claimer)
            raise
        finally:
            self._dismiss(claimer)
            for job in jobs:
                self._reconcile(job_group(job))
