"""Waits for the ends of tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from uuid import UUID

from zndraw_joblib.events.groups import Groups
from zndraw_joblib.events.messages import end_group
from zndraw_joblib.events.queries import Visible, ended_tasks, read_tasks, reader
from zndraw_joblib.events.reads import BatchedReads, RepeatedReads
from zndraw_joblib.events.waiters import counted
from zndraw_joblib.storage.rows import TaskRow


class EndWaits:
    """The waits of one event loop for the ends of a tenant's tasks."""

    def __init__(self, groups: Groups, executor: Executor, tenant: str | None) -> None:
        self._groups = groups
        #: The futures of the waiters of each task.
        self._waiters: dict[UUID, set[asyncio.Future[None]]] = {}
        self._repeated = RepeatedReads(
            executor, self._waiters.keys(), reader(tenant, ended_tasks), self.end
        )
        # Two queues, because the reads of many lookups would delay the waits for single tasks.
        self._single_reads = BatchedReads(executor, reader(tenant, read_tasks))
        self._lookup_reads = BatchedReads(
            executor, reader(tenant, read_tasks), rows=lambda key: len(key[0])
        )

    @counted("end")
    async def wait(self, rooms: Mapping[UUID, str], deadline: float) -> None:
        """Return when one of the tasks has ended or was deleted, or at `deadline`.

        `rooms` has the id of each task's room. The deadline is a time of the loop's clock.
        """
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        groups = {end_group(room_id) for room_id in rooms.values()}
        for task_id in rooms:
            self._waiters.setdefault(task_id, set()).add(ended)
        try:
            await self._groups.join(groups)
            # A task may have ended before its group was joined.
            self._repeated.read_soon(rooms)
            await asyncio.wait([ended], timeout=max(0.0, deadline - loop.time()))
        finally:
            for task_id in rooms:
                waiters = self._waiters[task_id]
                waiters.discard(ended)
                if not waiters:
                    del self._waiters[task_id]
            self._groups.leave(groups)

    async def read(
        self,
        ids: Sequence[UUID],
        visible: Visible,
        include_result: bool = True,
    ) -> list[TaskRow]:
        """The tasks as they are now, in the order of `ids`, without missing and invisible ones.

        `visible` returns the tasks that the caller may read; it is called in a thread. Their
        results are read only with `include_result`.

        Raises
        ------
        DatabaseError, InterfaceError
            The tasks could not be read.
        Exception
            An exception of `visible`.
        """
        reads = self._single_reads if len(ids) == 1 else self._lookup_reads
        found = await reads.read((tuple(ids), visible, include_result))
        if isinstance(found, Exception):
            raise found
        return found

    def end(self, task_id: UUID) -> None:
        """Wake the waiters of a task."""
        for ended in self._waiters.get(task_id, ()):
            if not ended.done():
                ended.set_result(None)
