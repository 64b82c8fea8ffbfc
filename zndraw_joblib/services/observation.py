"""The state of queues, workers and the sweeper, for metrics and health checks.

Each function takes one query that reads a bounded number of rows, on the router's database for
writes of tasks, in the tenant of its thread.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from django.db import router

from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.models import SweeperPass, Task, Worker
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage import statements
from zndraw_joblib.storage.clock import Now, database_time

#: Most due tasks of a job that are counted.
MAX_PENDING = 1000
#: Most jobs with due tasks that are looked at.
MAX_JOBS = 1000
#: Most claimed and running tasks, and most workers, that are counted.
MAX_COUNTED = 10_000


class Queue(NamedTuple):
    """The due tasks of a job: their number up to `MAX_PENDING`, and the age of the oldest.

    The age counts seconds from the time at which the task became due.
    """

    room_id: str
    category: str
    name: str
    pending: int
    oldest_seconds: float


class HeldNumbers(NamedTuple):
    """The numbers of claimed and running tasks, together up to `MAX_COUNTED`.

    `overdue_seconds` have passed since the first of their leases ended, 0 while all last.
    """

    claimed: int
    running: int
    overdue_seconds: float


def queues() -> list[Queue]:
    """The queues of the jobs that have due tasks, up to `MAX_JOBS` of them."""
    using = router.db_for_write(Task)
    found = statements.run(using, "count_queues", max_jobs=MAX_JOBS, limit=MAX_PENDING)
    return [Queue(*row) for row in found.rows]


def held() -> HeldNumbers:
    """The tasks that workers hold."""
    found = statements.run(router.db_for_write(Task), "count_held", limit=MAX_COUNTED).rows
    numbers = {status: number for status, number, _ in found}
    overdue = max((seconds for _, _, seconds in found), default=0.0)
    return HeldNumbers(
        numbers.get(TaskStatus.CLAIMED, 0), numbers.get(TaskStatus.RUNNING, 0), max(0.0, overdue)
    )


def live_workers() -> int:
    """The number of workers whose heartbeat is not too old, up to `MAX_COUNTED`."""
    workers = Worker.objects.using(router.db_for_write(Worker)).order_by()
    live = workers.filter(last_heartbeat__gte=Now() - get_settings().lease)
    return int(live[:MAX_COUNTED].count())


def seconds_since_sweep() -> float:
    """Seconds since a sweeper ended its last pass; infinite if none ever did."""
    using = router.db_for_write(SweeperPass)
    ended_at = SweeperPass.objects.using(using).values_list("ended_at", flat=True).first()
    return inf if ended_at is None else (database_time(using) - ended_at).total_seconds()
