"""One step of housekeeping: what dead workers left behind.

A step is a predicate over the database, not an event, so two sweepers at once, or one that died
midway, do no harm.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.db import router

from zndraw_joblib.models import IdempotencyKey, Job, Task, Worker
from zndraw_joblib.settings import get_settings


@dataclass(frozen=True, slots=True)
class SweepReport:
    """How many rows a step changed.

    `requeued` were claimed and never started; `retried` ran and had a retry left; `failed` ran
    and had none; `workers` were removed, `jobs` retired, and `keys` of submits forgotten.
    """

    requeued: int = 0
    retried: int = 0
    failed: int = 0
    workers: int = 0
    jobs: int = 0
    keys: int = 0

    def __str__(self) -> str:
        return " ".join(f"{name}={getattr(self, name)}" for name in self.__slots__)


def sweep(using: str | None = None) -> SweepReport:
    """Take tasks from workers whose lease is over, remove dead workers, retire idle jobs.

    Keys of submits that are older than `idempotency_key_ttl_seconds` are forgotten. `using` is a
    database alias; the one that the router writes tasks to, when left out.
    """
    using = using or router.db_for_write(Task)
    held = Task.objects.using(using)
    counts = {"requeued": 0, "retried": 0, "failed": 0}
    while any(batch := held.abandon("timed out")):
        for outcome, tasks in zip(counts, batch, strict=True):
            counts[outcome] += len(tasks)
    workers = 0
    settings = get_settings()
    stale = Worker.objects.using(using).stale(settings.lease)
    while removed := stale.remove():
        workers += len(removed)
    jobs = 0
    while retired := Job.objects.using(using).retire():
        jobs += retired
    keys = 0
    expired = IdempotencyKey.objects.using(using).expired(settings.idempotency_key_ttl)
    while removed_keys := expired.remove():
        keys += removed_keys
    return SweepReport(**counts, workers=workers, jobs=jobs, keys=keys)
