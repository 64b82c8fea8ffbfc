"""Waits for the next change of a task, of any kind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from zndraw_joblib.events.groups import Groups
from zndraw_joblib.events.messages import change_group
from zndraw_joblib.events.queries import Visible, reader, watched_revisions
from zndraw_joblib.events.reads import RepeatedReads
from zndraw_joblib.events.waiters import counted
from zndraw_joblib.storage.rows import TaskRow
from zndraw_joblib.storage.waits import Revision

#: Seconds that a wait lasts before progress ends it, because each answer costs a request, and tasks
#: may report progress many times a second. All other changes end it at once.
GATHER_SECONDS = 0.2
#: Seconds until a task is read again whose row another transaction had locked.
LOCKED_SECONDS = 0.1

Read = Callable[[Sequence[UUID], Visible], Coroutine[Any, Any, list[TaskRow]]]


@dataclass(eq=False)
class Waiter:
    """A request that waits for a revision after this one; progress ends it at `progress_at`."""

    revision: int
    progress_at: float
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    #: Whether `changed` will be set at `progress_at`.
    is_due: bool = False


class ChangeWaits:
    """The waits of one event loop for changes of a tenant's tasks.

    Only changes of tasks that somebody watches are published, because a message costs more than
    most reports. So each read of the watched tasks has their changes published for a while.
    `read` returns the tasks as they are now, as `EndWaits.read`.
    """

    def __init__(self, groups: Groups, executor: Executor, tenant: str | None, read: Read) -> None:
        self._groups = groups
        self._read = read
        self._waiters: dict[UUID, set[Waiter]] = {}
        self._repeated = RepeatedReads(
            executor, self._waiters.keys(), reader(tenant, watched_revisions), self._compare
        )

    @counted("change")
    async def wait(
        self,
        task: tuple[UUID, str, int],
        visible: Visible,
        is_known: Callable[[TaskRow], bool],
        deadline: float,
    ) -> TaskRow | None:
        """The task once `is_known` is false for it, or as it is at the `deadline`.

        None if it does not exist any more, or `visible` leaves it out. `task` is the id, the room
        and the revision of the task as the caller knows it. The deadline is a time of the loop's
        clock.

        Raises
        ------
        Exception
            As `EndWaits.read`.
        """
        task_id, room_id, revision = task
        loop = asyncio.get_running_loop()
        waiter = Waiter(revision, loop.time() + GATHER_SECONDS)
        groups = {change_group(room_id)}
        self._waiters.setdefault(task_id, set()).add(waiter)
        try:
            await self._groups.join(groups)
            # The task may have changed before its changes were published and the group was joined.
            self._repeated.read_soon([task_id])
            while True:
                try:
                    async with asyncio.timeout_at(deadline):
                        await waiter.changed.wait()
                except TimeoutError:
                    pass
                waiter.changed.clear()
                found = next(iter(await self._read((task_id,), visible)), None)
                if found is None or not is_known(found) or loop.time() >= deadline:
                    return found
                waiter.revision = found.revision
        finally:
            waiters = self._waiters[task_id]
            waiters.discard(waiter)
            if not waiters:
                del self._waiters[task_id]
            self._groups.leave(groups)

    def change(self, task_id: UUID, revision: int, *, is_progress: bool = False) -> None:
        """Wake the waiters of a task that do not know this revision."""
        loop = asyncio.get_running_loop()
        for waiter in self._waiters.get(task_id, ()):
            if waiter.revision < revision and not waiter.changed.is_set():
                if not is_progress or loop.time() >= waiter.progress_at:
                    waiter.changed.set()
                elif not waiter.is_due:
                    # Once, because each of many waiters may get hundreds of messages until then.
                    waiter.is_due = True
                    loop.call_at(waiter.progress_at, waiter.changed.set)

    def _compare(self, read: Revision | UUID) -> None:
        if isinstance(read, UUID):
            for waiter in self._waiters.get(read, ()):
                waiter.changed.set()
            return
        self.change(read.task_id, read.revision)
        if not read.is_watched:
            loop = asyncio.get_running_loop()
            loop.call_later(LOCKED_SECONDS, self._repeated.read_soon, [read.task_id])
