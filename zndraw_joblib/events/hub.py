"""The hub: the waits of one event loop, ended by messages and by reads of the database."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

from zndraw_joblib.events.ends import EndWaits
from zndraw_joblib.events.groups import Groups
from zndraw_joblib.events.messages import TASKS_ENDED, split_entry
from zndraw_joblib.events.publisher import publisher
from zndraw_joblib.events.work import WorkWaits

#: Most views of requests with a wait that run at once.
MAX_VIEWS = 8


class Hub:
    """The waits of one event loop."""

    def __init__(self) -> None:
        publisher.attach(asyncio.get_running_loop())
        # One thread for all waiters, which has a database connection only while it reads.
        executor = ThreadPoolExecutor(1, thread_name_prefix="joblib-reads")
        groups = Groups(self._deliver)
        self.ends = EndWaits(groups, executor)
        self.work = WorkWaits(groups, executor)
        #: Limits how many views of requests with a wait run at once, because each takes a thread
        #: and a database connection.
        self.views = asyncio.Semaphore(MAX_VIEWS)

    def _deliver(self, message: dict[str, Any]) -> None:
        for entry in message["entries"]:
            owner, task_id = split_entry(entry)
            if message["type"] == TASKS_ENDED:
                self.ends.end(UUID(task_id))
            else:
                self.work.wake(UUID(owner), task_id)


_hubs: dict[asyncio.AbstractEventLoop, Hub] = {}


def get_hub() -> Hub:
    """The hub of the running event loop, made at the first call."""
    loop = asyncio.get_running_loop()
    if loop not in _hubs:
        for closed in [known for known in _hubs if known.is_closed()]:
            del _hubs[closed]
        _hubs[loop] = Hub()
    return _hubs[loop]
