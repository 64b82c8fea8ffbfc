"""Waits for more text in the logs of tasks.

No message tells of a log write, because most logs have no reader and a message costs more than the
write. Instead each hub reads the sizes of the logs that it waits for, all in one query.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from uuid import UUID

from zndraw_joblib.events.queries import LogKey, Visible, longer_logs, read_logs, reader
from zndraw_joblib.events.reads import BATCH, BatchedReads, RepeatedReads
from zndraw_joblib.events.waiters import counted
from zndraw_joblib.storage.logs import LogPart

#: Seconds between two reads of the sizes.
POLL_SECONDS = 1.0
#: Most parts of logs that one batch reads, because each takes a query and has up to 64 KiB.
MAX_PARTS = 50


class LogWaits:
    """The waits of one event loop for more text in the logs of a tenant's tasks."""

    def __init__(self, executor: Executor, tenant: str | None) -> None:
        #: The futures of the waiters of each task and offset.
        self._waiters: dict[LogKey, set[asyncio.Future[None]]] = {}
        self._repeated = RepeatedReads(
            executor,
            self._waiters.keys(),
            reader(tenant, longer_logs),
            self._wake,
            lambda: POLL_SECONDS,
        )
        self._reads = BatchedReads(
            executor, reader(tenant, read_logs), rows=lambda key: BATCH // MAX_PARTS
        )

    @counted("log")
    async def wait(self, task_id: UUID, offset: int, deadline: float) -> None:
        """Return when the log has text beyond the offset, the task has ended, or at `deadline`.

        Also returns when the task was deleted. The deadline is a time of the loop's clock.
        """
        loop = asyncio.get_running_loop()
        key, longer = (task_id, offset), loop.create_future()
        self._waiters.setdefault(key, set()).add(longer)
        try:
            self._repeated.read_soon([key])
            await asyncio.wait([longer], timeout=max(0.0, deadline - loop.time()))
        finally:
            waiters = self._waiters[key]
            waiters.discard(longer)
            if not waiters:
                del self._waiters[key]

    async def read(self, task_id: UUID, offset: int, visible: Visible) -> LogPart | None:
        """The part of a log as it is now; None if the task is missing or not the caller's to read.

        `visible` returns the tasks that the caller may read; it is called in a thread.

        Raises
        ------
        DatabaseError, InterfaceError
            The log could not be read.
        Exception
            An exception of `visible`.
        """
        found = await self._reads.read(((task_id, offset), visible))
        if isinstance(found, Exception):
            raise found
        return found

    def _wake(self, key: LogKey) -> None:
        for longer in self._waiters.get(key, ()):
            if not longer.done():
                longer.set_result(None)
