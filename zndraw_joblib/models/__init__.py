"""The models: jobs and workers, tasks, their attempts, logs and files, and records of submits."""

from __future__ import annotations

from zndraw_joblib.models.jobs import Job, Worker, WorkerJobLink
from zndraw_joblib.models.life import (
    MAX_FILE_NAME_LENGTH,
    OUTCOME_LABELS,
    TaskAttempt,
    TaskFile,
    TaskLogChunk,
)
from zndraw_joblib.models.submits import IdempotencyKey, RoomBacklog
from zndraw_joblib.models.tasks import MAX_IDENTITY_LENGTH, STATUS_LABELS, Task

__all__ = [
    "MAX_FILE_NAME_LENGTH",
    "MAX_IDENTITY_LENGTH",
    "OUTCOME_LABELS",
    "STATUS_LABELS",
    "IdempotencyKey",
    "Job",
    "RoomBacklog",
    "Task",
    "TaskAttempt",
    "TaskFile",
    "TaskLogChunk",
    "Worker",
    "WorkerJobLink",
]
