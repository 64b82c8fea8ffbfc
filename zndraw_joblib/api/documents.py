"""Tasks, jobs and workers as the documents that clients read, over HTTP and WebSocket alike.

Ids and times are values, which `json_text` turns into text.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import orjson
from rest_framework.utils.encoders import JSONEncoder

from zndraw_joblib.models import Job, TaskAttempt, TaskFile, Worker
from zndraw_joblib.storage.logs import LogPart
from zndraw_joblib.storage.rows import TaskRow


def json_text(document: Any) -> bytes:
    """A document as JSON: ids as text, times in UTC (RFC 3339)."""
    try:
        return orjson.dumps(document, default=str, option=orjson.OPT_UTC_Z)
    except TypeError:  # An integer beyond 64 bits.
        return json.dumps(document, cls=JSONEncoder, ensure_ascii=False).encode()


def utc(moment: datetime | None) -> datetime | None:
    """A time in UTC, because a host may have set another time zone for its database."""
    if moment is None or moment.tzinfo is UTC or not moment.utcoffset():
        return moment
    return moment.astimezone(UTC)


def task_document(
    task: TaskRow, *, include_result: bool = True, include_payload: bool = True
) -> dict[str, Any]:
    """A task; a pending one that is due has a `queue_position`."""
    document = {
        "id": task.id,
        "job_name": task.job_name,
        "room_id": task.room_id,
        "status": task.status,
        "payload": task.payload,
        "error": task.error,
        "created_at": utc(task.created_at),
        "started_at": utc(task.started_at),
        "completed_at": utc(task.completed_at),
        "worker_id": task.worker_id,
        "attempt": task.attempt,
        "progress": task.progress,
        "message": task.message,
        "run_at": utc(task.run_at),
        "retries_left": task.retries_left,
        "retry_of": task.retry_of_id,
        "timeout_seconds": task.timeout_seconds,
    }
    if not include_payload:
        del document["payload"]
    if include_result:
        document["result"] = task.result
    if task.queue_position is not None:
        document["queue_position"] = task.queue_position
    return document


def file_document(file: TaskFile) -> dict[str, Any]:
    """A file of a task, without its content."""
    return {
        "name": file.name,
        "size": file.size,
        "content_type": file.content_type,
        "sha256": file.sha256,
        "created_at": utc(file.created_at),
        "attempt": file.attempt,
    }


def log_document(part: LogPart) -> dict[str, Any]:
    """A part of a task's log."""
    return part._asdict()


def attempt_document(attempt: TaskAttempt) -> dict[str, Any]:
    """An attempt of a task; `outcome` is None while it has not ended."""
    return {
        "attempt": attempt.attempt,
        "worker_id": attempt.worker_id,
        "claimed_at": utc(attempt.claimed_at),
        "started_at": utc(attempt.started_at),
        "ended_at": utc(attempt.ended_at),
        "outcome": attempt.outcome,
        "error": attempt.error,
    }


def task_tag(task: TaskRow) -> str:
    """The entity tag of a task (RFC 9110, section 8.8.3), which changes when the task does.

    Weak, because `queue_position` is not part of it.
    """
    return f'W/"{task.revision}"'


def job_summary(job: Job) -> dict[str, Any]:
    """A job as lists show it; needs the annotation `worker_count`."""
    return {
        "full_name": job.full_name,
        "category": job.category,
        "name": job.name,
        "worker_count": job.worker_count,  # type: ignore[attr-defined]
    }


def job_document(job: Job) -> dict[str, Any]:
    """A job with its schema."""
    return {
        "id": job.id,
        "room_id": job.room_id,
        **job_summary(job),
        "schema": job.schema,
        "retry": job.retry and asdict(job.retry),
        "durable": job.durable,
    }


def worker_document(worker: Worker) -> dict[str, Any]:
    """A worker; needs the annotation `job_count`."""
    return {
        "id": worker.id,
        "last_heartbeat": utc(worker.last_heartbeat),
        "created_at": utc(worker.created_at),
        "job_count": worker.job_count,  # type: ignore[attr-defined]
    }
