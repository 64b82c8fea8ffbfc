"""The events of a room, as pydantic models. Unknown fields are ignored."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import AwareDatetime, BaseModel, Field, TypeAdapter
from pydantic_core import from_json

from zndraw_joblib.client.schemas import TaskState


class _Event(BaseModel):
    #: Place in the room's events: a stream that begins there misses nothing after this event.
    cursor: str


class ReadyEvent(_Event):
    """The stream has begun; the changes after this cursor follow."""

    type: Literal["ready"] = "ready"


class ResetEvent(_Event):
    """Changes were missed, because they were too many or the cursor is unknown.

    Lists that were kept have to be read again; the changes after this cursor follow.
    """

    type: Literal["reset"] = "reset"


class TaskEvent(_Event):
    """A task changed. `revision` grows with each change of the task but its place in the queue."""

    type: Literal["task"] = "task"
    revision: int
    task: TaskState


class JobState(BaseModel):
    """A job, with the number of the workers that offer it."""

    id: str
    room_id: str
    full_name: str
    category: str
    name: str
    worker_count: int
    durable: bool


class JobEvent(_Event):
    """A job was registered, or its workers came or went."""

    type: Literal["job"] = "job"
    job: JobState


class RetiredJob(BaseModel):
    """The full name of a job that was retired."""

    full_name: str


class JobRetiredEvent(_Event):
    """A job was retired."""

    type: Literal["job_retired"] = "job_retired"
    job: RetiredJob


class WorkerState(BaseModel):
    """A worker, with the numbers of its jobs and of its claimed and running tasks."""

    id: str
    last_heartbeat: AwareDatetime
    created_at: AwareDatetime
    job_count: int
    running: int


class WorkerEvent(_Event):
    """A worker came or changed; for administrators only."""

    type: Literal["worker"] = "worker"
    worker: WorkerState


class LeftWorker(BaseModel):
    """The id of a worker that left."""

    id: str


class WorkerLeftEvent(_Event):
    """A worker left, or was removed; for administrators only."""

    type: Literal["worker_left"] = "worker_left"
    worker: LeftWorker


RoomEvent = (
    ReadyEvent | ResetEvent | TaskEvent | JobEvent | JobRetiredEvent | WorkerEvent | WorkerLeftEvent
)

_TYPES = {event.model_fields["type"].default for event in get_args(RoomEvent)}
_adapter: TypeAdapter[RoomEvent] = TypeAdapter(Annotated[RoomEvent, Field(discriminator="type")])


def read_event(text: str) -> RoomEvent | None:
    """The event of a JSON document; None for a type that this version does not know.

    Raises
    ------
    ValueError
        The text is not the document of an event.
    """
    document: Any = from_json(text)
    if not isinstance(document, dict) or not isinstance(document.get("type"), str):
        raise ValueError("the document has no type")
    return _adapter.validate_python(document) if document["type"] in _TYPES else None
