"""The client SDK: registers jobs, runs a worker, submits tasks and waits for them.

It needs httpx and pydantic, and never Django. The modules by their purpose:

- Entry: `manager` has `JobManager`, made of `registrar` (`register`, `job`) and `submitter`
  (`send`, `submit`, `map`). `exceptions` has the refusals of the server, `outcomes` the exceptions
  of the ends of tasks.
- Requests: `api` sends them, with `credentials`; `retry` says which are repeated, `schemas` has the
  documents of the server, `batches` divides long lists.
- Values: `payloads` and `differences` take instances to a worker; `functions` makes classes of
  functions; `result_json` writes results, `result_values` reads them.
- Submitter: `handles` has `TaskHandle`; `submissions` makes the requests, `waiting` waits for ends,
  `watching` for changes and for log text; `bars` shows progress. `reader` reads and lists tasks.
- Worker: `registration` has its jobs, `claiming` gets tasks, for `worker` (`serve`) or for `stream`
  (`listen`). `grants` has the held tasks, `threads` run them, `execution` and `calls` call their
  code, `reports` reports. `heartbeats` keeps them, `cancel_watches` learns of cancels, and `pulse`
  explains losses.
- The task in the hands of its code: `tasks` has `ClaimedTask`, and `task_actions` what it does on
  the server: `updates` and `pending_updates` send progress and log, `logs` has the logging handler.
- Both: `files` uploads and downloads, `forks` prepares for forked processes.
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
    ResultTooLargeError,
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
    "ResultTooLargeError",
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
