"""The models: jobs, workers, tasks and what belongs to them, records of submits, statistics."""

from __future__ import annotations

from zndraw_joblib.models.jobs import Job, Worker, WorkerJobLink
from zndraw_joblib.models.life import (
    OUTCOME_LABELS,
    FileToDelete,
    TaskAttempt,
    TaskFile,
    TaskLogChunk,
)
from zndraw_joblib.models.statistics import (
    FailedTask,
    FailureGroup,
    JobGauge,
    JobInterval,
    StatisticsState,
    SweeperPass,
)
from zndraw_joblib.models.submits import IdempotencyKey, RoomBacklog
from zndraw_joblib.models.tasks import MAX_IDENTITY_LENGTH, STATUS_LABELS, Task

__all__ = [
    "MAX_IDENTITY_LENGTH",
    "OUTCOME_LABELS",
    "STATUS_LABELS",
    "FailedTask",
    "FailureGroup",
    "FileToDelete",
    "IdempotencyKey",
    "Job",
    "JobGauge",
    "JobInterval",
    "RoomBacklog",
    "StatisticsState",
    "SweeperPass",
    "Task",
    "TaskAttempt",
    "TaskFile",
    "TaskLogChunk",
    "Worker",
    "WorkerJobLink",
]
