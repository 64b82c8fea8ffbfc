"""Queries over jobs."""

from __future__ import annotations

from typing import Any, Self

from django.apps import apps
from django.db import models, transaction
from django.db.models import Count, Exists, OuterRef, Q, Subquery
from django.db.models.functions import Coalesce

from zndraw_joblib.lifecycle import LEASED_STATUSES, TaskStatus
from zndraw_joblib.names import GLOBAL_ROOM, JobName
from zndraw_joblib.storage.clock import Now
from zndraw_joblib.storage.locking import lock_batch


class JobQuerySet(models.QuerySet[Any]):
    """Queries over jobs."""

    def live(self) -> Self:
        """Jobs that are not retired."""
        return self.filter(retired_at=None)

    def visible_from(self, room_id: str) -> Self:
        """Live jobs that may be used in a room: its own and the global ones."""
        return self.live().filter(room_id__in={room_id, GLOBAL_ROOM})

    def named(self, name: JobName) -> Self:
        """The job of this name, retired or not."""
        return self.filter(room_id=name.room_id, category=name.category, name=name.name)

    def with_worker_count(self) -> Self:
        """Annotate each job with `worker_count`."""
        count = _links().values("job").annotate(count=Count("pk")).values("count")
        return self.annotate(worker_count=Coalesce(Subquery(count), 0))

    def retire(self) -> int:
        """Retire up to `BATCH` jobs without workers and unfinished tasks; returns how many.

        Durable jobs stay.
        """
        tasks = apps.get_model("zndraw_joblib", "Task")._base_manager.filter(job=OuterRef("pk"))
        idle = self.live().filter(
            Q(durable=False),
            ~Exists(_links()),
            # Two conditions, because each has a partial index; one would scan all tasks of a job.
            ~Exists(tasks.filter(status=TaskStatus.PENDING)),
            ~Exists(tasks.filter(status__in=LEASED_STATUSES)),
        )
        with transaction.atomic(using=self.db):
            locked = lock_batch(idle)
            # The condition is repeated, because a submit or a registration may have committed
            # before the lock was taken.
            return idle.filter(pk__in=locked).update(retired_at=Now()) if locked else 0


def _links() -> models.QuerySet[Any]:
    links = apps.get_model("zndraw_joblib", "WorkerJobLink")
    return links._base_manager.filter(job=OuterRef("pk")).order_by()
