"""The attempts of a task: earlier ones have rows, the latest mostly is in the row of the task."""

from __future__ import annotations

from typing import Any

from zndraw_joblib.lifecycle import TERMINAL_STATUSES
from zndraw_joblib.models import Task, TaskAttempt
from zndraw_joblib.storage.rows import TaskRow


def attempts_of(
    task: Task | TaskRow, after: int = 0, limit: int | None = None
) -> list[TaskAttempt]:
    """The attempts of a task with greater numbers than `after`, oldest first, up to `limit`.

    An attempt that has not ended has no `outcome`.
    """
    rows = TaskAttempt.objects.using(Task.objects.write_db).filter(task=task.id, attempt__gt=after)
    attempts = list(rows.order_by("attempt")[:limit])
    latest = _latest(task)
    # The row counts if there is one, because the task may have been read before its attempt ended.
    known = attempts[-1].attempt if attempts else after
    if latest is not None and latest.attempt > known and len(attempts) != limit:
        attempts.append(latest)
    return attempts


def _latest(task: Task | TaskRow) -> TaskAttempt | None:
    """The latest attempt as the task's own row tells it; None before the first claim."""
    if not task.attempt:
        return None
    return TaskAttempt(
        task_id=task.id,
        attempt=task.attempt,
        worker_id=task.worker_id,
        claimed_at=task.claimed_at,
        started_at=task.started_at,
        **_end(task),
    )


def _end(task: Task | TaskRow) -> dict[str, Any]:
    # Given as None, because the fields have defaults that say otherwise.
    if task.status not in TERMINAL_STATUSES:
        return {"ended_at": None, "outcome": None}
    return {"ended_at": task.completed_at, "outcome": task.status, "error": task.error}
