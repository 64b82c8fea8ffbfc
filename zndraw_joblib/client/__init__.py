"""The client SDK: register jobs, run a worker, submit tasks and wait for them.

It needs httpx and pydantic, and no Django.
"""

from __future__ import annotations

from zndraw_joblib.client.api import Api, ApiManager
from zndraw_joblib.client.exceptions import (
    ApiError,
    ForbiddenError,
    IdempotencyKeyReusedError,
    InvalidCategoryError,
    InvalidPayloadError,
    InvalidRoomIdError,
    InvalidTaskTransitionError,
    JobNotFoundError,
    LeaseLostError,
    NotAuthenticatedError,
    PartlySubmittedError,
    RequestInvalidError,
    SchemaConflictError,
    ServerError,
    TaskNotFoundError,
    TaskWaitTimeout,
    ThrottledError,
    TooManyJobsError,
    TooManyPendingError,
    TooManyWorkersError,
    WorkerNotFoundError,
)
from zndraw_joblib.client.manager import JobManager
from zndraw_joblib.client.schemas import ClaimedTask, HeartbeatReply, TaskInfo
from zndraw_joblib.client.stream import TaskStream

__all__ = [
    "Api",
    "ApiError",
    "ApiManager",
    "ClaimedTask",
    "ForbiddenError",
    "HeartbeatReply",
    "IdempotencyKeyReusedError",
    "InvalidCategoryError",
    "InvalidPayloadError",
    "InvalidRoomIdError",
    "InvalidTaskTransitionError",
    "JobManager",
    "JobNotFoundError",
    "LeaseLostError",
    "NotAuthenticatedError",
    "PartlySubmittedError",
    "RequestInvalidError",
    "SchemaConflictError",
    "ServerError",
    "TaskInfo",
    "TaskNotFoundError",
    "TaskStream",
    "TaskWaitTimeout",
    "ThrottledError",
    "TooManyJobsError",
    "TooManyPendingError",
    "TooManyWorkersError",
    "WorkerNotFoundError",
]
