"""The client SDK: registers jobs, runs a worker, submits tasks and waits for them.

It needs httpx and pydantic, and never Django. `manager` is the entry; `submitter` and `waiting`
serve those who run no tasks, the other modules those who do.
"""

from __future__ import annotations

from zndraw_joblib.client.api import Api, ApiManager
from zndraw_joblib.client.exceptions import (
    ApiError,
    CredentialsError,
    FileTooLargeError,
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
    RoundTripError,
    SchemaConflictError,
    ServerError,
    TaskFileNotFoundError,
    TaskNotFoundError,
    TaskWaitTimeout,
    ThrottledError,
    TooManyFilesError,
    TooManyJobsError,
    TooManyPendingError,
    TooManyWorkersError,
    UnexpectedAnswerError,
    WorkerNotFoundError,
)
from zndraw_joblib.client.handles import TaskHandle
from zndraw_joblib.client.logs import TaskLogHandler
from zndraw_joblib.client.manager import JobManager
from zndraw_joblib.client.outcomes import (
    Cancelled,
    GiveUp,
    RetryLater,
    TaskCancelled,
    TaskFailed,
    UnsuccessfulTask,
)
from zndraw_joblib.client.result_json import ResultError
from zndraw_joblib.client.schemas import AttemptInfo, HeartbeatReply, TaskInfo
from zndraw_joblib.client.stream import TaskStream
from zndraw_joblib.client.tasks import ClaimedTask

__all__ = [
    "Api",
    "ApiError",
    "ApiManager",
    "AttemptInfo",
    "Cancelled",
    "ClaimedTask",
    "CredentialsError",
    "FileTooLargeError",
    "ForbiddenError",
    "GiveUp",
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
    "ResultError",
    "RetryLater",
    "RoundTripError",
    "SchemaConflictError",
    "ServerError",
    "TaskCancelled",
    "TaskFailed",
    "TaskFileNotFoundError",
    "TaskHandle",
    "TaskInfo",
    "TaskLogHandler",
    "TaskNotFoundError",
    "TaskStream",
    "TaskWaitTimeout",
    "ThrottledError",
    "TooManyFilesError",
    "TooManyJobsError",
    "TooManyPendingError",
    "TooManyWorkersError",
    "UnexpectedAnswerError",
    "UnsuccessfulTask",
    "WorkerNotFoundError",
]
