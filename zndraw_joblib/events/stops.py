"""Waits of heartbeats until a task of their worker is cancelled or lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from uuid import UUID

from zndraw_joblib.events.groups import Groups
from zndraw_joblib.events.messages import STOP_GROUP
from zndraw_joblib.events.queries import reader, states_of_grants
from zndraw_joblib.events.reads import BatchedReads, RepeatedReads
from zndraw_joblib.events.waiters import counted
from zndraw_joblib.storage.waits import Grant, GrantState

_STOPPED = {GrantState.CANCELLED, GrantState.LOST}


class WaitingHeartbeat:
    """A heartbeat, and the tasks that its worker holds as far as it knows."""

    __slots__ = ("grants", "stopped")

    def __init__(self, grants: Sequence[Grant]) -> None:
        self.grants = tuple(grants)
        #: The states of all grants, once one was cancelled or lost.
        self.stopped: asyncio.Future[list[GrantState]] = asyncio.get_running_loop().create_future()


class StopWaits:
    """The waits of one event loop for the ends of grants, of a tenant's tasks.

    Ends that the workers report themselves wake no heartbeat.
    """

    def __init__(self, groups: Groups, executor: Executor, tenant: str | None) -> None:
        self._groups = groups
        #: The heartbeats that list a task.
        self._listing: dict[UUID, set[WaitingHeartbeat]] = {}
        self._waiting: set[WaitingHeartbeat] = set()
        read = reader(tenant, states_of_grants)

        def compare(
            waiting: list[WaitingHeartbeat],
        ) -> list[tuple[WaitingHeartbeat, list[GrantState]]]:
            return list(zip(waiting, read([one.grants for one in waiting]), strict=True))

        self._repeated = RepeatedReads(executor, self._waiting, compare, self._stop)
        self._batched = BatchedReads(executor, read, rows=len)

    @counted("heartbeat")
    async def wait(self, grants: Sequence[Grant], deadline: float) -> list[GrantState]:
        """The state of each grant, as soon as one was cancelled or lost, or at `deadline`.

        The deadline is a time of the loop's clock.

        Raises
        ------
        DatabaseError, InterfaceError
            The tasks could not be read.
        """
        loop = asyncio.get_running_loop()
        heartbeat = WaitingHeartbeat(grants)
        self._waiting.add(heartbeat)
        for grant in grants:
            self._listing.setdefault(grant.id, set()).add(heartbeat)
        try:
            await self._groups.join({STOP_GROUP})
            # A task may have been stopped before the group was joined.
            self._repeated.read_soon([heartbeat])
            await asyncio.wait([heartbeat.stopped], timeout=max(0.0, deadline - loop.time()))
        finally:
            self._waiting.discard(heartbeat)
            for grant in grants:
                listing = self._listing.get(grant.id, set())
                listing.discard(heartbeat)
                if not listing:
                    self._listing.pop(grant.id, None)
            self._groups.leave({STOP_GROUP})
        if heartbeat.stopped.done():
            return heartbeat.stopped.result()
        return await self._batched.read(heartbeat.grants)

    def stop(self, task_id: UUID) -> None:
        """Read the grants of the heartbeats that list a task, because it was taken away."""
        self._repeated.read_soon(self._listing.get(task_id, ()))

    def _stop(self, read: tuple[WaitingHeartbeat, list[GrantState]]) -> None:
        heartbeat, states = read
        if not _STOPPED.isdisjoint(states) and not heartbeat.stopped.done():
            heartbeat.stopped.set_result(states)
