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
  `watching` for changes and for log text; `bars` shows progress. `reader` lists tasks.
- Events of a room: `room_events` has the documents, `sse` parses a stream of them and `feed` opens
  it, for `room_watch` (`watch_room`) and for `task_events` (a task's `watch`).
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
from zndraw_joblib.client.room_events import (
    JobEvent,
    JobRetiredEvent,
    JobState,
    ReadyEvent,
    ResetEvent,
    RoomEvent,
    TaskEvent,
    WorkerEvent,
    WorkerLeftEvent,
    WorkerState,
)
from zndraw_joblib.client.schemas import AttemptInfo, HeartbeatReply, TaskInfo, TaskState
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
    "JobEvent",
    "JobManager",
    "JobNotFoundError",
    "JobRetiredEvent",
    "JobState",
    "LeaseLostError",
    "NotAuthenticatedError",
    "PartlySubmittedError",
    "ReadyEvent",
    "RequestInvalidError",
    "ResetEvent",
    "ResultError",
    "ResultTooLargeError",
    "RetryLater",
    "RoomEvent",
    "RoundTripError",
    "SchemaConflictError",
    "ServerError",
    "TaskCancelled",
    "TaskEvent",
    "TaskFailed",
    "TaskFileNotFoundError",
    "TaskHandle",
    "TaskInfo",
    "TaskLogHandler",
    "TaskNotFoundError",
    "TaskState",
    "TaskStream",
    "TaskWaitTimeout",
    "ThrottledError",
    "TooManyFilesError",
    "TooManyJobsError",
    "TooManyPendingError",
    "TooManyWorkersError",
    "UnexpectedAnswerError",
    "UnsuccessfulTask",
    "WorkerEvent",
    "WorkerLeftEvent",
    "WorkerNotFoundError",
    "WorkerState",
]
