"""One step of housekeeping: what dead workers left behind.

A step is a predicate over the database, not an event, so two sweepers at once, or one that died
midway, do no harm.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.db import router
from django.db.models import F, Value
from django.db.models.functions import Concat

from zndraw_joblib.models import Job, Task, Worker
from zndraw_joblib.settings import get_settings


@dataclass(frozen=True, slots=True)
class SweepReport:
    """How many rows a step changed.

    `requeued` were claimed and never started; `retried` ran and had a retry left; `failed` ran
    and had none; `workers` were removed and `jobs` retired.
    """

    requeued: int = 0
    retried: int = 0
    failed: int = 0
    workers: int = 0
    jobs: int = 0

    def __str__(self) -> str:
        return " ".join(f"{name}={getattr(self, name)}" for name in self.__slots__)


def sweep(using: str | None = None) -> SweepReport:
    """Take tasks from workers whose lease is over, remove dead workers, retire idle jobs.

    `using` is a database alias; the one that the router writes tasks to, when left out.
    """
    using = using or router.db_for_write(Task)
    due = Task.objects.using(using).due()
    timed_out = Concat(Value("Worker '"), F("worker_id"), Value("' timed out"))
    counts = {"requeued": 0, "retried": 0, "failed": 0}
    while any(batch := due.abandon(timed_out)):
        for outcome, tasks in zip(counts, batch, strict=True):
            counts[outcome] += len(tasks)
    workers = 0
    stale = Worker.objects.using(using).stale(get_settings().lease)
    while removed := stale.remove():
        workers += len(removed)
    jobs = 0
    while retired := Job.objects.using(using).retire():
        jobs += retired
    return SweepReport(**counts, workers=workers, jobs=jobs)
