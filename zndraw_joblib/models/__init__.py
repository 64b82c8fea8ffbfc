"""The models: jobs and workers, tasks, their attempts, logs and files, and records of submits."""

from __future__ import annotations

from zndraw_joblib.models.jobs import Job, Worker, WorkerJobLink
from zndraw_joblib.models.life import (
    OUTCOME_LABELS,
    FileToDelete,
    TaskAttempt,
    TaskFile,
    TaskLogChunk,
)
from zndraw_joblib.models.saved_filters import SavedFilter
from zndraw_joblib.models.submits import IdempotencyKey, RoomBacklog
from zndraw_joblib.models.tasks import MAX_IDENTITY_LENGTH, STATUS_LABELS, Task

__all__ = [
    "MAX_IDENTITY_LENGTH",
    "OUTCOME_LABELS",
    "STATUS_LABELS",
    "FileToDelete",
    "IdempotencyKey",
    "Job",
    "RoomBacklog",
    "SavedFilter",
    "Task",
    "TaskAttempt",
    "TaskFile",
    "TaskLogChunk",
    "Worker",
    "WorkerJobLink",
]
