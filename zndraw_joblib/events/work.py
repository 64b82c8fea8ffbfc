"""Waiting for pending tasks."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from zndraw_joblib.events.groups import Groups
from zndraw_joblib.events.messages import job_group
from zndraw_joblib.events.queries import jobs_with_pending_tasks, workers_worth_claiming
from zndraw_joblib.events.reads import BatchedReads, RepeatedReads

#: A job, and the hex id of its pending task where a message named one.
Wakeup = tuple[UUID, str | None]


@dataclass(eq=False)
class Claimer:
    """A claim request that waits for pending tasks of some jobs."""

    jobs: tuple[UUID, ...]
    #: Wakeups that it has received and not yet acted on.
    wakeups: set[Wakeup] = field(default_factory=set)
    woken: asyncio.Event = field(default_factory=asyncio.Event)


class WorkWaits:
    """The waits of one event loop for pending tasks.

    Each job has a line of idle claimers. A pending task wakes the first of the line only, because
    a wakeup of all would cost a claim statement of each; a claimer that does not take the task
    passes the wakeup on to the next.
    """

    def __init__(self, groups: Groups, executor: Executor) -> None:
        self._groups = groups
        #: By job the claimers in line.
        self._lines: dict[UUID, deque[Claimer]] = {}
        self._repeated = RepeatedReads(
            executor, self._lines.keys(), jobs_with_pending_tasks, lambda job: self.wake(job, None)
        )
        self._batched = BatchedReads(executor, workers_worth_claiming)

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
            self._line_up(claimer)
            # Tasks may have become pending before the claimer stood in line.
            self._repeated.read_soon(claimer.jobs)
            while True:
                try:
                    async with asyncio.timeout_at(deadline):
                        await claimer.woken.wait()
                except TimeoutError:
                    return False
                wakeups, claimer.wakeups = claimer.wakeups, set()
                claimer.woken.clear()
                # In line again before the attempt, because a wakeup meanwhile must find it there.
                self._line_up(claimer)
                claimed = await attempt()
                if claimed is not None:
                    return True
                # Nothing was pending, so other claimers have the tasks of these wakeups.
                wakeups.clear()
        finally:
            self._step_out(claimer)
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
            # It leaves all its lines, so that two tasks wake two claimers.
            self._step_out(claimer)
            claimer.wakeups.add((job, task))
            claimer.woken.set()

    def _line_up(self, claimer: Claimer) -> None:
        for job in claimer.jobs:
            line = self._lines.setdefault(job, deque())
            if claimer not in line:
                line.append(claimer)

    def _step_out(self, claimer: Claimer) -> None:
        for job in claimer.jobs:
            line = self._lines.get(job)
            if line and claimer in line:
                line.remove(claimer)
            if not line:
                self._lines.pop(job, None)
