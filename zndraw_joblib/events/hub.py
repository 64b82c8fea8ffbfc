"""All who wait in a process: for the end of a task, or for work.

Whoever waits reads the database, so lost news costs time, never an answer: each hub re-reads the
database for all its waiters every `REREAD_SECONDS`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from uuid import UUID

from channels.layers import get_channel_layer
from django.db import connections, router
from django.db.models import Exists, OuterRef

from zndraw_joblib.events.publisher import end_group, job_group, publisher
from zndraw_joblib.lifecycle import TERMINAL_STATUSES, TaskStatus
from zndraw_joblib.models import Job, Task, Worker
from zndraw_joblib.storage.rows import TaskRow

logger = logging.getLogger(__name__)

Wish = TypeVar("Wish")
Found = TypeVar("Found")

REREAD_SECONDS = 5.0
#: Requests that look at the database at a time before they wait.
MAX_LOOKING = 8
#: Ids in one query of the re-read.
CHUNK = 1000


class Readings(Generic[Wish, Found]):
    """Whatever is wanted while a read is under way is answered by the next one, all at once."""

    def __init__(self, executor: Executor, read: Callable[[list[Wish]], Sequence[Found]]) -> None:
        self._executor = executor
        self._read = read
        self._wanted: list[tuple[Wish, asyncio.Future[Found]]] = []
        self._reader: asyncio.Task[None] | None = None

    async def read(self, wish: Wish) -> Found:
        """What the database holds of it by now.

        Raises
        ------
        DatabaseError, InterfaceError
            It could not be read.
        """
        found: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self._wanted.append((wish, found))
        if self._reader is None:
            self._reader = asyncio.create_task(self._read_all())
        return await found

    async def _read_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._wanted:
            batch, self._wanted = self._wanted[:CHUNK], self._wanted[CHUNK:]
            try:
                wishes = [wish for wish, _ in batch]
                results = await loop.run_in_executor(self._executor, self._read, wishes)
            except Exception as error:
                logger.exception("could not read for %d whose wait ended", len(batch))
                for _, found in batch:
                    if not found.done():
                        found.set_exception(error)
            else:
                for (_, found), result in zip(batch, results, strict=True):
                    if not found.done():
                        found.set_result(result)
        self._reader = None


@dataclass(eq=False)
class Claimer:
    """Somebody who waits for work of some jobs."""

    jobs: tuple[UUID, ...]
    #: What it was woken for: a job and, where news said so, the hex id of its task.
    owed: set[tuple[UUID, str | None]] = field(default_factory=set)
    woken: asyncio.Event = field(default_factory=asyncio.Event)


class Hub:
    """All who wait on one event loop, over one channel, with one task that receives.

    The receiving task is never cancelled: in the pub/sub layer that would delete the channel.
    """

    def __init__(self) -> None:
        self._layer: Any = get_channel_layer()
        self._channel: str | None = None
        self._ends: dict[UUID, set[asyncio.Future[None]]] = {}
        self._unread: set[UUID] = set()
        self._unread_jobs: set[UUID] = set()
        self._idle: dict[UUID, deque[Claimer]] = {}
        self._wanted: Counter[str] = Counter()
        self._joined: set[str] = set()
        self._joining: dict[str, asyncio.Task[None]] = {}
        self._unread_waits = asyncio.Event()
        #: Who is about to wait looks at the database first, so many at a time.
        self.looking = asyncio.Semaphore(MAX_LOOKING)
        # One thread and one connection for all waiters, and only while it reads.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="joblib-reread")
        self._tasks_read = Readings(self._executor, read_tasks)
        self._workers_read = Readings(self._executor, read_workers)
        loop = asyncio.get_running_loop()
        publisher.attach(loop)
        self._tasks = [loop.create_task(self._reread_forever())]
        if self._layer is not None:
            self._tasks.append(loop.create_task(self._receive_forever()))

    async def wait_for_end(self, task_id: UUID, room_id: str, deadline: float) -> None:
        """Return when this room's task ended or is gone, or at `deadline` by the loop's clock."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        self._ends.setdefault(task_id, set()).add(ended)
        group = end_group(room_id)
        try:
            await self._join(group)
            # It may have ended before the group was joined.
            self._unread.add(task_id)
            self._unread_waits.set()
            await asyncio.wait([ended], timeout=max(0.0, deadline - loop.time()))
        finally:
            self._ends[task_id].discard(ended)
            if not self._ends[task_id]:
                del self._ends[task_id]
                self._unread.discard(task_id)
            self._leave(group)

    async def read(self, task_id: UUID, sees: Callable[[TaskRow], bool]) -> TaskRow | None:
        """The task as it is now; None when it is gone or `sees` says no, called in a thread.

        Raises
        ------
        DatabaseError, InterfaceError
            It could not be read.
        """
        return await self._tasks_read.read((task_id, sees))

    async def may_be_granted(self, worker_id: str) -> bool:
        """Whether another claim of this worker may be answered otherwise than with nothing.

        Errors as in `read`.
        """
        return await self._workers_read.read(worker_id)

    async def wait_for_work(
        self,
        jobs: Iterable[UUID],
        deadline: float,
        attempt: Callable[[], Coroutine[Any, Any, Collection[str] | None]],
    ) -> bool:
        """Call `attempt` when there may be work, until it is done or the `deadline` comes.

        Says whether it is done. The deadline is a time of the loop's clock. `attempt` answers the
        hex ids of the tasks that it claimed, or None to go on. Of all claimers on this loop one is
        woken for each task that waits. Whoever was woken for a task and took another, or left,
        passes the news on.
        """
        claimer = Claimer(tuple(jobs))
        owed: set[tuple[UUID, str | None]] = set()
        taken: Collection[str] | None = None
        try:
            await asyncio.gather(*(self._join(job_group(job)) for job in claimer.jobs))
            self._enlist(claimer)
            # Work may have come before it stood in line.
            self._unread_jobs.update(claimer.jobs)
            self._unread_waits.set()
            while True:
                try:
                    async with asyncio.timeout_at(deadline):
                        await claimer.woken.wait()
                except TimeoutError:
                    return False
                owed, claimer.owed = claimer.owed, set()
                claimer.woken.clear()
                # In line again before it looks: news that comes meanwhile must find it.
                self._enlist(claimer)
                taken = await attempt()
                if taken is not None:
                    return True
                # Nothing there: what it was woken for has gone to others.
                owed.clear()
        finally:
            self._dismiss(claimer)
            for job, task in owed | claimer.owed:
                if task is None or task not in (taken or ()):
                    self._wake(job, task)
            for job in claimer.jobs:
                self._leave(job_group(job))

    def _enlist(self, claimer: Claimer) -> None:
        for job in claimer.jobs:
            queue = self._idle.setdefault(job, deque())
            if claimer not in queue:
                queue.append(claimer)

    def _dismiss(self, claimer: Claimer) -> None:
        for job in claimer.jobs:
            queue = self._idle.get(job)
            if queue and claimer in queue:
                queue.remove(claimer)
            if not queue:
                self._idle.pop(job, None)

    def _wake(self, job: UUID, task: str | None) -> None:
        if queue := self._idle.get(job):
            claimer = queue[0]
            self._dismiss(claimer)
            claimer.owed.add((job, task))
            claimer.woken.set()

    def _end(self, task_id: UUID) -> None:
        for ended in self._ends.get(task_id, ()):
            if not ended.done():
                ended.set_result(None)

    async def _join(self, group: str) -> None:
        self._wanted[group] += 1
        changing = self._reconcile(group)
        if changing:
            # A layer that hangs costs a second; the re-read stands in for it.
            await asyncio.wait([changing], timeout=1)

    def _leave(self, group: str) -> None:
        self._wanted[group] -= 1
        if not self._wanted[group]:
            del self._wanted[group]
            self._reconcile(group)

    def _reconcile(self, group: str) -> asyncio.Task[None] | None:
        """Join or leave the group as wanted: one task a group, so that the last wish wins."""
        if self._channel is None:
            return None
        if group not in self._joining and (group in self._wanted) != (group in self._joined):
            self._joining[group] = asyncio.create_task(self._change(group, self._channel))
        return self._joining.get(group)

    async def _change(self, group: str, channel: str) -> None:
        try:
            while channel == self._channel and (group in self._wanted) != (group in self._joined):
                if group in self._wanted:
                    await self._layer.group_add(group, channel)
                    self._joined.add(group)
                else:
                    await self._layer.group_discard(group, channel)
                    self._joined.discard(group)
        except Exception:
            logger.warning("the channel layer failed; %s is tried again", group, exc_info=True)
        finally:
            del self._joining[group]

    async def _receive_forever(self) -> None:
        while True:
            try:
                if self._channel is None:
                    self._channel = await self._layer.new_channel()
                    self._joined.clear()
                    for group in list(self._wanted):
                        self._reconcile(group)
                self._deliver(await self._layer.receive(self._channel))
            except Exception:
                logger.exception("the channel layer failed; receiving on a new channel")
                self._channel = None
                await asyncio.sleep(1)

    def _deliver(self, message: dict[str, Any]) -> None:
        for about in message["about"]:
            where, _, task = about.partition("/")
            if message["type"] == "task.finished":
                self._end(UUID(task))
            else:
                self._wake(UUID(where), task)

    async def _reread_forever(self) -> None:
        loop = asyncio.get_running_loop()
        everything_at = loop.time() + REREAD_SECONDS
        while True:
            try:
                async with asyncio.timeout_at(everything_at):
                    await self._unread_waits.wait()
                ids, jobs = list(self._unread), list(self._unread_jobs & self._idle.keys())
            except TimeoutError:
                everything_at = loop.time() + REREAD_SECONDS
                ids, jobs = list(self._ends), list(self._idle)
                for group in [*self._wanted, *self._joined]:
                    self._reconcile(group)
            self._unread_waits.clear()
            self._unread.clear()
            self._unread_jobs.clear()
            if not ids and not jobs:
                continue
            try:
                ended, busy = await loop.run_in_executor(self._executor, read_state, ids, jobs)
            except Exception:
                logger.exception("could not re-read %d tasks; trying again", len(ids))
                continue
            for task_id in ended:
                self._end(task_id)
            for job in busy:
                self._wake(job, None)


def read_state(ids: list[UUID], jobs: list[UUID]) -> tuple[set[UUID], set[UUID]]:
    """Which of these tasks ended or are gone, and which of these jobs have pending tasks."""
    try:
        tasks = Task.objects.using(router.db_for_write(Task))
        ended = set(ids)
        for start in range(0, len(ids), CHUNK):
            unfinished = tasks.filter(pk__in=ids[start : start + CHUNK])
            unfinished = unfinished.exclude(status__in=TERMINAL_STATUSES)
            ended.difference_update(unfinished.values_list("pk", flat=True))
        return ended, with_work(jobs)
    finally:
        release_connections()


def with_work(jobs: Sequence[UUID]) -> set[UUID]:
    """Those of these jobs that have pending tasks."""
    waiting = Job.objects.using(router.db_for_write(Task)).filter(
        Exists(Task.objects.filter(job=OuterRef("pk"), status=TaskStatus.PENDING))
    )
    found: set[UUID] = set()
    for start in range(0, len(jobs), CHUNK):
        some = waiting.filter(pk__in=jobs[start : start + CHUNK])
        found.update(some.values_list("pk", flat=True))
    return found


def read_tasks(wishes: list[tuple[UUID, Callable[[TaskRow], bool]]]) -> list[TaskRow | None]:
    """The task with each of these ids, where it is there and the caller sees it."""
    try:
        found = Task.objects.read({task_id for task_id, _ in wishes})
        return [
            task if (task := found.get(task_id)) and sees(task) else None
            for task_id, sees in wishes
        ]
    finally:
        release_connections()


def read_workers(ids: list[str]) -> list[bool]:
    """Whether each of these workers is gone, or one of its jobs has pending tasks."""
    try:
        known = Worker.objects.using(router.db_for_write(Task)).filter(pk__in=set(ids))
        offered: dict[str, set[UUID | None]] = {}
        for worker_id, job in known.values_list("pk", "links__job"):
            offered.setdefault(worker_id, set()).add(job)
        busy = with_work([*{job for jobs in offered.values() for job in jobs if job}])
        return [
            worker_id not in offered or not offered[worker_id].isdisjoint(busy) for worker_id in ids
        ]
    finally:
        release_connections()


def release_connections() -> None:
    """Give this thread's database connections back, but those inside a transaction."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()


_hubs: dict[asyncio.AbstractEventLoop, Hub] = {}


def get_hub() -> Hub:
    """The hub of the running loop, made at the first call."""
    loop = asyncio.get_running_loop()
    if loop not in _hubs:
        for closed in [known for known in _hubs if known.is_closed()]:
            del _hubs[closed]
        _hubs[loop] = Hub()
    return _hubs[loop]
