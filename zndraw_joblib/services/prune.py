"""Deletes ended tasks with their logs, attempts, files and Idempotency-Keys; jobs stay.

Each chunk is a short transaction of its own. A run that is ended midway has deleted the earlier
chunks, and the next run goes on with the rest.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import models, router, transaction
from django.db.models import F, QuerySet

from zndraw_joblib.lifecycle import TERMINAL_STATUSES, TaskStatus
from zndraw_joblib.models import Task
from zndraw_joblib.services.files import delete_files_of, delete_marked_files
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage.clock import Now, database_time
from zndraw_joblib.storage.locking import skip_locked

#: Most tasks that one transaction deletes.
CHUNK = 100
#: The rest after a chunk over the time that it took, because claims share the database's cores, and
#: on SQLite its only writer. With 1 instead of 3, one claim in a hundred took three times as long.
REST = 3


@dataclass(frozen=True)
class Retention:
    """The ages, counted from `completed_at`, beyond which tasks are deleted; None for never.

    `failed` is that of failed tasks, `others` that of completed and cancelled ones.
    """

    others: timedelta | None = None
    failed: timedelta | None = None

    def age(self, status: TaskStatus) -> timedelta | None:
        """The age of tasks in a terminal status."""
        return self.failed if status is TaskStatus.FAILED else self.others


def configured_retention() -> Retention:
    """The ages of the settings `prune_after_days` and `prune_failed_after_days`."""
    settings = get_settings()
    return Retention(_days(settings.prune_after_days), _days(settings.prune_failed_after_days))


def count(retention: Retention, using: str | None = None) -> int:
    """The number of tasks that `prune` would delete now."""
    using = using or router.db_for_write(Task)
    return sum(tasks.count() for tasks in _expired(using, retention))


def prune(retention: Retention, using: str | None = None) -> Generator[int, None, None]:
    """Delete the tasks that are older than the retention; yields the number of each chunk.

    The bytes of their files stay until `services.files.delete_marked_files` is called. Tasks that
    another transaction has locked are left for the next run, and so are tasks to which a model of
    the site refers by PROTECT or RESTRICT. It sleeps between chunks, see `REST`.
    """
    using = using or router.db_for_write(Task)
    for tasks in _expired(using, retention):
        left = tasks
        while True:
            begun = time.monotonic()
            with transaction.atomic(using=using):
                chunk = _lock(left)
                if not chunk:
                    break
                number = _delete(using, [task_id for task_id, _ in chunk])
            yield number
            # Begins where the chunk ended, because the scan would pass all deleted rows again.
            left = tasks.filter(completed_at__gte=chunk[-1][1])
            time.sleep(REST * (time.monotonic() - begun))


def prune_now(ids: Sequence[UUID], using: str | None = None) -> set[UUID]:
    """Delete those of these tasks that have ended, of any age; returns their ids."""
    using = using or router.db_for_write(Task)
    deleted: set[UUID] = set()
    for start in range(0, len(ids), CHUNK):
        tasks = _unprotected(using).filter(
            pk__in=ids[start : start + CHUNK], status__in=[*TERMINAL_STATUSES]
        )
        with transaction.atomic(using=using):
            chunk = [task_id for task_id, _ in _lock(tasks)]
            _delete(using, chunk)
        deleted.update(chunk)
    # After the commit, because a site may run the caller in a transaction that is rolled back.
    transaction.on_commit(lambda: delete_marked_files(using), using=using, robust=True)
    return deleted


def _expired(using: str, retention: Retention) -> Iterator[QuerySet[Any]]:
    """The tasks that are older than the retention, by their status."""
    now = database_time(using)
    for status in sorted(TERMINAL_STATUSES):
        if (age := retention.age(status)) is not None:
            # One status a query, so that each reads one range of the index `joblib_task_ended`.
            yield _unprotected(using).filter(status=status, completed_at__lt=now - age)


def _unprotected(using: str) -> QuerySet[Any]:
    """The tasks that no model of the site protects from a deletion."""
    tasks: QuerySet[Any] = Task.objects.using(using)
    for relation in Task._meta.get_fields(include_hidden=True):
        if getattr(relation, "on_delete", None) in (models.PROTECT, models.RESTRICT):
            # Only relations of other models to this one have an `on_delete` themselves.
            rows = relation.related_model._base_manager.using(using)  # type: ignore[union-attr]
            protecting = rows.filter(**{relation.field.name: models.OuterRef("pk")})  # type: ignore[union-attr]
            tasks = tasks.filter(~models.Exists(protecting))
    return tasks


def _lock(tasks: QuerySet[Any]) -> list[tuple[UUID, Any]]:
    """Lock up to `CHUNK` tasks, skipping locked ones; returns ids and ends by their ends."""
    locked = skip_locked(tasks.order_by("completed_at"))
    return list(locked.values_list("pk", "completed_at")[:CHUNK])


def _delete(using: str, ids: Sequence[UUID]) -> int:
    """Delete locked tasks; returns their number.

    By the ORM, because a site's own models may refer to tasks, and its signals count. It reads the
    ids alone, because payloads and results may be large.
    """
    tasks: QuerySet[Any] = Task.objects.using(using)
    delete_files_of(ids, using)
    tasks.filter(retry_of__in=ids).update(
        retry_of=None, revision=F("revision") + 1, changed_at=Now()
    )
    _, numbers = tasks.filter(pk__in=ids).only("pk").delete()
    return numbers.get(Task._meta.label, 0)


def _days(days: float | None) -> timedelta | None:
    return None if days is None else timedelta(days=days)
