"""Claiming tasks for a worker."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.db import router

from zndraw_joblib import tracing
from zndraw_joblib.access import Caller
from zndraw_joblib.exceptions import WorkerNotFound
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.models import Task, Worker, WorkerJobLink
from zndraw_joblib.services.spans import record_spans
from zndraw_joblib.services.workers import checked_worker_id
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage.rows import Report, TaskRow


def claim(
    caller: Caller, worker_id: str | None, limit: int = 1, *, start: bool = False
) -> list[TaskRow]:
    """Grant a worker of the caller up to `limit` of the oldest pending tasks of its jobs.

    `worker_id` None is the caller's default worker. With `start` the tasks are running at once. The
    result is empty also for a worker that does not exist; `jobs_of_worker` raises for such an id.

    Raises
    ------
    WorkerNotFound
        The id is too long or has control characters.
    """
    began = tracing.now()
    worker_id = checked_worker_id(worker_id or caller.identity)
    granted: list[TaskRow] = Task.objects.grant(
        worker_id, caller.identity, get_settings().lease, limit, start=start
    )
    record_spans("joblib claim", granted, began)
    return granted


def jobs_of_worker(caller: Caller, worker_id: str | None) -> tuple[UUID, ...]:
    """Ids of the jobs that a worker of the caller offers; none for a default worker not made yet.

    Raises
    ------
    WorkerNotFound
        The caller has no such worker.
    """
    worker_id = checked_worker_id(worker_id or caller.identity)
    using = router.db_for_write(Task)
    links = WorkerJobLink.objects.using(using).filter(
        worker=worker_id, worker__identity=caller.identity
    )
    job_ids = tuple(links.values_list("job_id", flat=True))
    own = Worker.objects.using(using).filter(pk=worker_id, identity=caller.identity)
    if not job_ids and worker_id != caller.identity and not own.exists():
        raise WorkerNotFound
    return job_ids


def requeue_granted(grants: Sequence[tuple[UUID, int]]) -> None:
    """Requeue tasks that were granted to a client that had left: pairs of id and attempt."""
    Task.objects.move([Report(task_id, TaskStatus.PENDING, attempt) for task_id, attempt in grants])
