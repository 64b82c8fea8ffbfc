"""Tasks, jobs and workers as the documents that clients read, over HTTP and WebSocket alike."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from zndraw_joblib.models import Job, Task, Worker


def rfc3339(moment: datetime | None) -> str | None:
    """A time in UTC as text (RFC 3339)."""
    if moment is None:
        return None
    text = moment.isoformat()
    if not text.endswith("+00:00"):
        text = moment.astimezone(UTC).isoformat()
    return f"{text[:-6]}Z"


def task_document(task: Task) -> dict[str, Any]:
    """A task; `queue_position` too where the queryset brought it."""
    document = {
        "id": str(task.id),
        "job_name": task.job_name,
        "room_id": task.room_id,
        "status": str(task.status),
        "payload": task.payload,
        "error": task.error,
        "created_at": rfc3339(task.created_at),
        "started_at": rfc3339(task.started_at),
        "completed_at": rfc3339(task.completed_at),
        "worker_id": task.worker_id,
        "attempt": task.attempt,
    }
    position = task.queue_position
    return document if position is None else document | {"queue_position": position}


def job_summary(job: Job) -> dict[str, Any]:
    """A job as lists show it; the queryset brings `worker_count`."""
    return {
        "full_name": job.full_name,
        "category": job.category,
        "name": job.name,
        "worker_count": job.worker_count,  # type: ignore[attr-defined]
    }


def job_document(job: Job) -> dict[str, Any]:
    """A job with its schema."""
    return {"id": str(job.id), "room_id": job.room_id, **job_summary(job), "schema": job.schema}


def worker_document(worker: Worker) -> dict[str, Any]:
    """A worker; the queryset brings `job_count`."""
    return {
        "id": worker.id,
        "last_heartbeat": rfc3339(worker.last_heartbeat),
        "created_at": rfc3339(worker.created_at),
        "job_count": worker.job_count,  # type: ignore[attr-defined]
    }
