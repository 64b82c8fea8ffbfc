"""The grant of one chosen task, for tests of a site; a claim chooses its tasks by itself."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from django.db.models import F

from zndraw_joblib import signals
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.storage.clock import Now
from zndraw_joblib.storage.rows import TaskRow
from zndraw_joblib.storage.tasks import TaskManager


def grant_at_once(
    tasks: TaskManager, task_id: UUID, worker_id: str, lease: timedelta
) -> TaskRow | None:
    """Grant a pending task, due or not, and start it; None if it has another status.

    The worker needs no row; its id is its identity too.
    """
    task = tasks.using(tasks.write_db).filter(pk=task_id, status=TaskStatus.PENDING)
    granted = task.update(
        status=TaskStatus.RUNNING,
        attempt=F("attempt") + 1,
        worker_id=worker_id,
        worker_identity=worker_id,
        lease_expires_at=Now() + lease,
        claimed_at=Now(),
        started_at=Now(),
        progress=None,
        message=None,
        revision=F("revision") + 1,
        changed_at=Now(),
    )
    rows = list(tasks.read([task_id]).values()) if granted else []
    tasks.announce(rows, signals.task_claimed, signals.task_started)
    return next(iter(rows), None)
