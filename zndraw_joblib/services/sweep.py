"""The sweep: recovers tasks of dead workers and removes rows that are no longer needed.

A sweep acts on the state of the database and not on events, so that two sweepers at once, or one
that died midway, do no harm.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta

from django.db import DatabaseError, InterfaceError, router

from zndraw_joblib.lifecycle import AttemptOutcome, TaskStatus
from zndraw_joblib.models import IdempotencyKey, Job, Task, Worker
from zndraw_joblib.services import statistics
from zndraw_joblib.services.files import delete_marked_files
from zndraw_joblib.services.prune import configured_retention, prune
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage.corrections import cap_leases, cap_submits
from zndraw_joblib.storage.outages import Outage, outage_of
from zndraw_joblib.storage.tasks import TIMED_OUT
from zndraw_joblib.tenancy import all_tenants, in_tenant

logger = logging.getLogger(__name__)

#: Seconds after which the old tasks of all tenants, and files, are left to the next sweep, because
#: leases end in the meantime.
PRUNE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class SweepReport:
    """Numbers of rows that a sweep changed.

    `requeued` tasks were claimed and not started; `retried` tasks were running and had a retry
    left; `failed` ones had none. `workers` were removed, `jobs` retired, and `keys` of submits
    deleted. `files` were deleted from the storage. `pruned` are old tasks that were deleted.
    """

    requeued: int = 0
    retried: int = 0
    failed: int = 0
    workers: int = 0
    jobs: int = 0
    keys: int = 0
    files: int = 0
    pruned: int = 0

    def __add__(self, other: SweepReport) -> SweepReport:
        names = self.__slots__
        return SweepReport(*(getattr(self, name) + getattr(other, name) for name in names))

    def __str__(self) -> str:
        return " ".join(f"{name}={getattr(self, name)}" for name in self.__slots__)


def sweep(using: str | None = None) -> SweepReport:
    """Recover tasks whose lease is over, remove dead workers, retire jobs and delete keys.

    Deleted keys are older than `idempotency_key_ttl_seconds`. `using` is a database alias; None is
    the router's for writes of tasks.
    """
    using = using or router.db_for_write(Task)
    settings = get_settings()
    _cap_times(using, settings.lease)
    requeued, retried, failed = _recover_tasks(using)
    stale_workers = Worker.objects.using(using).stale(settings.lease)
    expired_keys = IdempotencyKey.objects.using(using).expired(settings.idempotency_key_ttl)
    return SweepReport(
        requeued,
        retried,
        failed,
        workers=_repeat_until_none(lambda: len(stale_workers.remove())),
        jobs=_repeat_until_none(Job.objects.using(using).retire),
        keys=_repeat_until_none(expired_keys.remove),
        files=delete_marked_files(using, PRUNE_SECONDS),
    )


def sweep_tenants() -> SweepReport:
    """Sweep for each tenant of the host, count and delete its old tasks; returns the sums.

    Deleted tasks are older than `prune_after_days` or `prune_failed_after_days`. A tenant whose
    sweep fails is logged and left out.

    Raises
    ------
    DatabaseError, InterfaceError
        No sweep succeeded.
    """
    reports: list[SweepReport] = []
    failed: DatabaseError | InterfaceError | None = None
    prune_until = time.monotonic() + PRUNE_SECONDS
    for tenant in all_tenants():
        try:
            with in_tenant(tenant):
                reports.append(_pass(prune_until))
        except (DatabaseError, InterfaceError) as error:
            failed = error
            if tenant is not None:
                logger.error("could not sweep for the tenant %s: %s", tenant, str(error).strip())
    if failed and not reports:
        raise failed
    return sum(reports, SweepReport())


def _pass(prune_until: float) -> SweepReport:
    """Sweep, keep the statistics and prune, in this order, so that pruned tasks were counted."""
    begun = time.monotonic()
    report = sweep()
    try:
        statistics.collect()
    except (DatabaseError, InterfaceError) as error:
        if outage_of(error) in (Outage.AWAY, Outage.UNMIGRATED):
            raise
        # Leases and retention matter more than statistics.
        logger.exception("could not keep the statistics")
    report += _prune(prune_until)
    statistics.record_pass(asdict(report), time.monotonic() - begun)
    return report


def _cap_times(using: str, lease: timedelta) -> None:
    """Correct leases, heartbeats and submits that lie further in the future than they can."""
    leases = _repeat_until_none(lambda: cap_leases(using, lease))
    heartbeats = _repeat_until_none(Worker.objects.using(using).cap_heartbeats)
    submits = _repeat_until_none(lambda: cap_submits(using))
    if leases or heartbeats or submits:
        logger.warning(
            "corrected %d leases, %d heartbeats and %d submits that lay too far in the future, "
            "because the database's clock went back or worker_timeout_seconds was lowered",
            leases,
            heartbeats,
            submits,
        )


def _recover_tasks(using: str) -> tuple[int, int, int]:
    """Recover all tasks whose lease is over; returns the numbers requeued, retried and failed."""
    requeued = retried = failed = 0
    tasks = Task.objects.db_manager(using)
    while batch := tasks.recover_expired(TIMED_OUT):
        for task, outcome in batch:
            if outcome == AttemptOutcome.REQUEUED:
                requeued += 1
            elif task.status == TaskStatus.PENDING:
                retried += 1
            else:
                failed += 1
    return requeued, retried, failed


def _prune(until: float) -> SweepReport:
    """Delete old tasks and their files until this monotonic time, at least a chunk of tasks."""
    pruned = 0
    for number in prune(configured_retention()):
        pruned += number
        if time.monotonic() > until:
            break
    files = delete_marked_files(seconds=PRUNE_SECONDS) if pruned else 0
    return SweepReport(files=files, pruned=pruned)


def _repeat_until_none(change_batch: Callable[[], int]) -> int:
    """Change batches of rows until none is left; returns the number of changed rows."""
    total = 0
    while changed := change_batch():
        total += changed
    return total
