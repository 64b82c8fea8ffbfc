"""The documents of the server as pydantic models. Unknown fields are ignored.

The functions and adapters read answers for `api.send`: they raise `ValueError` for an answer that
is not the server's.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, TypeAdapter
from pydantic_core import from_json

from zndraw_joblib.client.result_json import MAX_RESULT_BYTES
from zndraw_joblib.client.tasks import ClaimedTask
from zndraw_joblib.lifecycle import TERMINAL_STATUSES, TaskStatus

T = TypeVar("T")

#: Seconds of a lease by the server's default, for a server that does not tell it.
DEFAULT_LEASE = 60.0


class TaskState(BaseModel):
    """A task without its payload and its result, as the events of a room describe it.

    `queue_position` is None unless the task is pending. `progress` is from 0 to 1.
    """

    id: str
    job_name: str
    room_id: str
    status: TaskStatus
    error: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    worker_id: str | None = None
    attempt: int
    queue_position: int | None = None
    progress: float | None = None
    message: str | None = None
    run_at: datetime | None = None
    retries_left: int | None = None
    retry_of: str | None = None
    timeout_seconds: float | None = None
    traceparent: str | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether the task ended."""
        return self.status in TERMINAL_STATUSES


class TaskInfo(TaskState):
    """A task, as the server answered.

    `result` is plain JSON. It is None too where an answer leaves results out, as that to a report
    does.
    """

    payload: dict[str, Any]
    result: Any = None


class AttemptInfo(BaseModel):
    """One attempt of a task. `outcome` is None while it is under way.

    Otherwise it is completed, failed, cancelled, lost (with its worker) or requeued (never
    started).
    """

    attempt: int
    worker_id: str | None = None
    claimed_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    outcome: str | None = None
    error: str | None = None


class LogPart(BaseModel):
    """A part of a task's log; offsets count bytes of UTF-8. `ended` is whether the task ended."""

    offset: int
    text: str
    next_offset: int
    ended: bool


class HeartbeatReply(BaseModel):
    """The server's answer to a heartbeat, with the ids of tasks that the worker should stop."""

    id: str
    last_heartbeat: datetime
    lost: list[str] = []
    cancelled: list[str] = []


class Grant(BaseModel):
    """The server's answer to a claim."""

    tasks: list[ClaimedTask]


class CreatedWorker(BaseModel):
    """A worker that the server made; heartbeats are due after each interval.

    Without heartbeats for `worker_timeout_seconds` the server takes the worker's tasks away.
    """

    id: str
    heartbeat_interval_seconds: float
    worker_timeout_seconds: float = DEFAULT_LEASE
    max_result_bytes: int = MAX_RESULT_BYTES


class RegisteredJob(BaseModel):
    """The part of a registered job by which the answer is known to be the server's."""

    worker_id: str


class SubmittedTask(BaseModel):
    """The part of a submitted task that the SDK needs."""

    id: str


class Accepted(BaseModel):
    """Whether one report of a list was accepted, with the problem of its refusal."""

    status: int
    problem: dict[str, Any] = {}


class ReportResult(Accepted):
    """The result of one report of a list: the task, or the problem of its refusal."""

    task: TaskInfo | None = None


def reader(kind: type[T]) -> Callable[[httpx.Response], T]:
    """A function that reads the JSON of an answer."""
    adapter = TypeAdapter(kind)
    return lambda response: adapter.validate_json(response.content)


read_task = reader(TaskInfo)
read_tasks = reader(list[TaskInfo])
read_grant = reader(Grant)
read_worker = reader(CreatedWorker)
read_registered = reader(RegisteredJob)
read_heartbeat = reader(HeartbeatReply)
read_attempts = reader(list[AttemptInfo])
read_submitted = reader(SubmittedTask)
read_submitted_list = reader(list[SubmittedTask])
read_results = reader(list[ReportResult])
read_accepted = reader(list[Accepted])


def read_ended(response: httpx.Response) -> tuple[list[TaskInfo], set[str]]:
    """The ended tasks in the answer to a lookup, and the ids of all its tasks.

    Only ended tasks become models, because most tasks of most answers have not ended. A task whose
    result the server left out counts as not ended, so that it is asked for again.
    """
    documents = from_json(response.content)
    try:
        ended = [
            TaskInfo.model_validate(document)
            for document in documents
            if TaskStatus(document["status"]) in TERMINAL_STATUSES
            and not document.get("result_left_out")
        ]
        return ended, {document["id"] for document in documents}
    except (TypeError, KeyError) as error:
        raise ValueError("the answer is no list of tasks") from error


def read_list(
    read: Callable[[httpx.Response], list[T]], length: int
) -> Callable[[httpx.Response], list[T]]:
    """A function that reads a list of this length."""

    def read_whole(response: httpx.Response) -> list[T]:
        values = read(response)
        if len(values) != length:
            raise ValueError("the list has another length")
        return values

    return read_whole


def read_nothing(response: httpx.Response) -> None:
    """Read an answer without a body."""
    if response.status_code != httpx.codes.NO_CONTENT:
        raise ValueError("the answer has a body")
