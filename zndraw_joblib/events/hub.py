"""The hub: the waits of one event loop, ended by messages and by reads of the database."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any
from uuid import UUID

from zndraw_joblib.events.changes import ChangeWaits
from zndraw_joblib.events.ends import EndWaits
from zndraw_joblib.events.feeds import RoomFeeds
from zndraw_joblib.events.groups import Groups
from zndraw_joblib.events.logs import LogWaits
from zndraw_joblib.events.messages import (
    PROGRESS_MARK,
    TASKS_CHANGED,
    TASKS_ENDED,
    TASKS_PENDING,
    TASKS_STOPPED,
    split_entry,
)
from zndraw_joblib.events.publisher import publisher
from zndraw_joblib.events.stops import StopWaits
from zndraw_joblib.events.work import WorkWaits

#: Most views of requests with a wait that run at once.
MAX_VIEWS = 8


class Hub:
    """The waits of one event loop for the rows of one tenant."""

    def __init__(self, loop: LoopWaits, tenant: str | None) -> None:
        self.ends = EndWaits(loop.groups, loop.executor, tenant)
        self.work = WorkWaits(loop.groups, loop.executor, tenant)
        self.changes = ChangeWaits(loop.groups, loop.executor, tenant, self.ends.read)
        self.stops = StopWaits(loop.groups, loop.executor, tenant)
        self.views = loop.views
        self._of_reader = loop.executor, tenant

    @cached_property
    def feeds(self) -> RoomFeeds:
        """The feeds of rooms, which only servers with watchers need."""
        return RoomFeeds(*self._of_reader)

    @cached_property
    def logs(self) -> LogWaits:
        """The waits for logs, made at the first one, because they look every second from then."""
        return LogWaits(*self._of_reader)

    def deliver(self, kind: str, owner: str, task_id: str) -> None:
        """Wake the waiters of an entry of a message; entries of unknown kinds are ignored."""
        if kind == TASKS_ENDED:
            self.ends.end(UUID(task_id))
        elif kind == TASKS_PENDING:
            self.work.wake(UUID(owner), task_id)
        elif kind == TASKS_CHANGED:
            revision = int(owner.removeprefix(PROGRESS_MARK))
            is_progress = owner.startswith(PROGRESS_MARK)
            self.changes.change(UUID(task_id), revision, is_progress=is_progress)
        elif kind == TASKS_STOPPED:
            self.stops.stop(UUID(task_id))


class LoopWaits:
    """The hubs of one event loop, which share its channel and its thread."""

    def __init__(self) -> None:
        publisher.attach(asyncio.get_running_loop())
        #: One thread for all waiters, which has a database connection only while it reads.
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="joblib-reads")
        self.groups = Groups(self._deliver)
        #: Limits how many views of requests with a wait run at once, because each takes a thread
        #: and a database connection.
        self.views = asyncio.Semaphore(MAX_VIEWS)
        #: A hub for each tenant; the tenant None on a host without tenants.
        self._hubs: dict[str | None, Hub] = {}

    def hub(self, tenant: str | None) -> Hub:
        """The hub of a tenant, made at the first call."""
        if tenant not in self._hubs:
            self._hubs[tenant] = Hub(self, tenant)
        return self._hubs[tenant]

    def _deliver(self, message: dict[str, Any]) -> None:
        # To every hub, because a message does not name its tenant; ids are unique.
        for entry in message["entries"]:
            owner, task_id = split_entry(entry)
            for hub in self._hubs.values():
                hub.deliver(message["type"], owner, task_id)


_loops: dict[asyncio.AbstractEventLoop, LoopWaits] = {}


def get_hub(tenant: str | None = None) -> Hub:
    """The hub of the running event loop for a tenant, made at the first call."""
    loop = asyncio.get_running_loop()
    if loop not in _loops:
        for closed in [known for known in _loops if known.is_closed()]:
            del _loops[closed]
        _loops[loop] = LoopWaits()
    return _loops[loop].hub(tenant)
