"""Tasks, jobs and workers as the documents that clients read, over HTTP and WebSocket alike.

Ids and times are in them as they are; `json_text` writes them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from rest_framework.utils.encoders import JSONEncoder

from zndraw_joblib.models import Job, Task, Worker
from zndraw_joblib.storage.rows import columns


def json_text(document: Any) -> bytes:
    """A document as JSON: ids as text, times in UTC (RFC 3339)."""
    try:
        return orjson.dumps(document, default=str, option=orjson.OPT_UTC_Z)
    except TypeError:  # An integer beyond 64 bits.
        return json.dumps(document, cls=JSONEncoder, ensure_ascii=False).encode()


def utc(moment: datetime | None) -> datetime | None:
    """A time in UTC, whatever zone the host gave its database."""
    if moment is None or moment.tzinfo is UTC or not moment.utcoffset():
        return moment
    return moment.astimezone(UTC)


#: What a task's document shows.
_TASK = (
    "id",
    "job_name",
    "room_id",
    "status",
    "payload",
    "error",
    "created_at",
    "started_at",
    "completed_at",
    "worker_id",
    "attempt",
    "queue_position",
)


def task_document(task: Task) -> dict[str, Any]:
    """A task; `queue_position` too where the queryset brought it."""
    (document,) = task_documents([task])
    return document


def task_documents(tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """Several tasks, as `task_document` has them."""
    return [_task_document(values) for values in columns(tasks, *_TASK)]


def _task_document(values: Sequence[Any]) -> dict[str, Any]:
    document = dict(zip(_TASK, values, strict=True))
    document["status"] = str(document["status"])
    document["created_at"] = utc(document["created_at"])
    document["started_at"] = utc(document["started_at"])
    document["completed_at"] = utc(document["completed_at"])
    if document["queue_position"] is None:
        del document["queue_position"]
    return document


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
    return {"id": job.id, "room_id": job.room_id, **job_summary(job), "schema": job.schema}


def worker_document(worker: Worker) -> dict[str, Any]:
    """A worker; the queryset brings `job_count`."""
    return {
        "id": worker.id,
        "last_heartbeat": utc(worker.last_heartbeat),
        "created_at": utc(worker.created_at),
        "job_count": worker.job_count,  # type: ignore[attr-defined]
    }
