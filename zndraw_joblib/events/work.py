"""Waits for pending tasks."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from zndraw_joblib.events import reads
from zndraw_joblib.events.groups import Groups
from zndraw_joblib.events.messages import job_group
from zndraw_joblib.events.queries import jobs_with_pending_tasks, reader, workers_worth_claiming
from zndraw_joblib.events.reads import BatchedReads, RepeatedReads
from zndraw_joblib.events.waiters import counted

#: A job, and the hex id of its pending task where a message named one.
Wakeup = tuple[UUID, str | None]


@dataclass(eq=False)
class Claimer:
    """A claim request that waits for pending tasks of some jobs."""

    jobs: tuple[UUID, ...]
    #: Wakeups that the claimer has received and not yet acted on.
    wakeups: set[Wakeup] = field(default_factory=set)
    woken: asyncio.Event = field(default_factory=asyncio.Event)


class WorkWaits:
    """The waits of one event loop for a tenant's pending tasks.

    Each job has a line of idle claimers. A pending task wakes only the first in the line, because
    each claimer that is woken runs a claim statement. A claimer that does not claim the task passes
    the wakeup on to the next. The jobs of all lines are read every `reads.DUE_SECONDS`, because no
    message says that a task became due.
    """

    def __init__(self, groups: Groups, executor: Executor, tenant: str | None) -> None:
        self._groups = groups
        #: The idle claimers of each job.
        self._lines: dict[UUID, deque[Claimer]] = {}
        self._repeated = RepeatedReads(
            executor,
            self._lines.keys(),
            reader(tenant, jobs_with_pending_tasks),
            lambda job: self.wake(job, None),
            lambda: reads.DUE_SECONDS,
        )
        self._batched = BatchedReads(executor, reader(tenant, workers_worth_claiming))

    @counted("work")
    async def wait(
        self,
        jobs: Iterable[UUID],
        deadline: float,
        attempt: Callable[[], Coroutine[Any, Any, Collection[str] | None]],
    ) -> bool:
        """Call `attempt` whenever there may be work, until it succeeds or the `deadline` comes.

        Returns whether it succeeded. `attempt` returns the hex ids of the tasks that it claimed,
        or None to go on waiting. The deadline is a time of the loop's clock.
        """
        claimer = Claimer(tuple(jobs))
        groups = {job_group(job) for job in claimer.jobs}
        wakeups: set[Wakeup] = set()
        claimed: Collection[str] | None = None
        try:
            await self._groups.join(groups)
            self._join_lines(claimer)
            # Tasks may have become pending before the claimer joined the line.
            self._repeated.read_soon(claimer.jobs)
            while True:
                try:
                    async with asyncio.timeout_at(deadline):
                        await claimer.woken.wait()
                except TimeoutError:
                    return False
                wakeups, claimer.wakeups = claimer.wakeups, set()
                claimer.woken.clear()
                # Before the attempt, because a wakeup during the attempt must not be lost.
                self._join_lines(claimer)
                claimed = await attempt()
                if claimed is not None:
                    return True
                # Not passed on, because no task was pending: other claimers have claimed them.
                wakeups.clear()
        finally:
            self._leave_lines(claimer)
            for job, task in wakeups | claimer.wakeups:
                if task is None or task not in (claimed or ()):
                    self.wake(job, task)
            self._groups.leave(groups)

    async def is_worth_claiming(self, worker_id: str) -> bool:
        """Whether another claim of this worker may be answered with a task or an error.

        Raises
        ------
        DatabaseError, InterfaceError
            The worker could not be read.
        """
        return await self._batched.read(worker_id)

    def wake(self, job: UUID, task: str | None) -> None:
        """Wake the first claimer in the job's line."""
        if line := self._lines.get(job):
            claimer = line[0]
            # Out of all its lines, because the next task must wake another claimer.
            self._leave_lines(claimer)
            claimer.wakeups.add((job, task))
            claimer.woken.set()

    def _join_lines(self, claimer: Claimer) -> None:
        for job in claimer.jobs:
            line = self._lines.setdefault(job, deque())
            if claimer not in line:
                line.append(claimer)

    def _leave_lines(self, claimer: Claimer) -> None:
        for job in claimer.jobs:
            line = self._lines.get(job)
            if line and claimer in line:
                line.remove(claimer)
            if not line:
                self._lines.pop(job, None)
