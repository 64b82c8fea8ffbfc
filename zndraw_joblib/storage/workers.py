"""Queries over workers."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Self

from django.apps import apps
from django.db import models, transaction
from django.db.models import Count, OuterRef, Subquery
from django.db.models.functions import Coalesce

from zndraw_joblib.storage import statements
from zndraw_joblib.storage.clock import TOLERANCE, Now
from zndraw_joblib.storage.locking import delete_in_order, lock_batch
from zndraw_joblib.storage.managers import WriteManager
from zndraw_joblib.storage.rows import Heartbeat, parsed_time


class WorkerQuerySet(models.QuerySet[Any]):
    """Queries over workers."""

    def stale(self, timeout: timedelta) -> Self:
        """Workers whose last heartbeat is older than `timeout`."""
        return self.filter(last_heartbeat__lt=Now() - timeout)

    def with_job_count(self) -> Self:
        """Annotate each worker with `job_count`."""
        links = apps.get_model("zndraw_joblib", "WorkerJobLink")._base_manager
        of_worker = links.filter(worker=OuterRef("pk")).order_by()
        count = of_worker.values("worker").annotate(count=Count("pk")).values("count")
        return self.annotate(job_count=Coalesce(Subquery(count), 0))

    def cap_heartbeats(self) -> int:
        """Set heartbeats that lie ahead of the clock to now, up to `BATCH`; returns how many.

        A worker that died before the clock went back would otherwise count as alive until the
        clock has caught up.
        """
        ahead = self.filter(last_heartbeat__gt=Now() + TOLERANCE)
        with transaction.atomic(using=self.db):
            ids = lock_batch(ahead)
            # The condition is repeated, because a heartbeat may have come before the lock.
            return ahead.filter(pk__in=ids).update(last_heartbeat=Now()) if ids else 0

    def remove(self) -> list[str]:
        """Delete up to `BATCH` of these workers with their links; returns their ids."""
        with transaction.atomic(using=self.db):
            ids = lock_batch(self)
            # The condition is repeated, because a heartbeat may have come before the lock.
            removed = list(self.filter(pk__in=ids).values_list("pk", flat=True)) if ids else []
            if removed:
                links = apps.get_model("zndraw_joblib", "WorkerJobLink")._base_manager
                delete_in_order(links.using(self.db).filter(worker__in=removed))
                self.model._base_manager.using(self.db).filter(pk__in=removed).delete()
            return removed


class WorkerManager(WriteManager.from_queryset(WorkerQuerySet)):  # type: ignore[misc]
    """Verbs over the table of workers."""

    def record_heartbeat(self, worker_id: str, identity: str) -> Heartbeat | None:
        """Write the time of a heartbeat; None if the identity has no such worker."""
        using = self.write_db
        found = statements.run(using, "record_heartbeat", worker_id=worker_id, identity=identity)
        for worker_id, last_heartbeat, has_tasks in found.rows:
            return Heartbeat(worker_id, parsed_time(last_heartbeat, using), bool(has_tasks))
        return None
