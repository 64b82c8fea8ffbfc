"""Types of the messages of a room's events, for the AsyncAPI document; they are not validated."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field
from typing_extensions import TypedDict

from zndraw_joblib.api.answers import Count, FullName, TaskDocument

Cursor = Annotated[
    str,
    Field(description="Opaque. Send the last one that you know when you come back: `?cursor=`."),
]


class ReadyMessage(TypedDict):
    """The first message. The state of everything that changed since the given cursor follows."""

    type: Literal["ready"]
    cursor: Cursor


class ResetMessage(TypedDict):
    """The changes since the cursor are unknown or too many: load the lists, and read on.

    In place of `ready`, or later.
    """

    type: Literal["reset"]
    cursor: Cursor


class TaskMessage(TypedDict):
    """The present state of a task that changed, without its payload and result."""

    type: Literal["task"]
    cursor: Cursor
    revision: Annotated[int, Field(ge=0, description="Goes up with each change of the task.")]
    task: TaskDocument


class JobStateDocument(TypedDict):
    """A job."""

    id: UUID
    room_id: str
    full_name: FullName
    category: str
    name: str
    worker_count: Count
    durable: bool


class JobMessage(TypedDict):
    """The present state of a job that was registered, got another schema, or whose workers changed.

    The schema itself is at `GET rooms/{room_id}/jobs/{full_name}`.
    """

    type: Literal["job"]
    cursor: Cursor
    job: JobStateDocument


class JobNameDocument(TypedDict):
    """The name of a job."""

    full_name: FullName


class JobRetiredMessage(TypedDict):
    """A job was retired: nobody can submit to it any more."""

    type: Literal["job_retired"]
    cursor: Cursor
    job: JobNameDocument


class WorkerStateDocument(TypedDict):
    """A worker."""

    id: str
    last_heartbeat: datetime
    created_at: datetime
    job_count: Count
    running: Annotated[int, Field(ge=0, description="Its claimed and running tasks.")]


class WorkerMessage(TypedDict):
    """The present state of a worker; for administrators only."""

    type: Literal["worker"]
    cursor: Cursor
    worker: WorkerStateDocument


class WorkerIdDocument(TypedDict):
    """The id of a worker."""

    id: str


class WorkerLeftMessage(TypedDict):
    """A worker left, or offers no job of the room any more; for administrators only."""

    type: Literal["worker_left"]
    cursor: Cursor
    worker: WorkerIdDocument


#: The messages of a room's events by their types.
MESSAGES = {
    "ready": ReadyMessage,
    "reset": ResetMessage,
    "task": TaskMessage,
    "job": JobMessage,
    "job_retired": JobRetiredMessage,
    "worker": WorkerMessage,
    "worker_left": WorkerLeftMessage,
}
