"""Types of answers, for the OpenAPI document; answers are not validated against them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, NotRequired
from uuid import UUID

from pydantic import Field

# Not from `typing`, whose TypedDict pydantic cannot read before Python 3.12.
from typing_extensions import TypedDict

from zndraw_joblib.lifecycle import AttemptOutcome, TaskStatus
from zndraw_joblib.storage.tasks import MAX_QUEUE_POSITION

Count = Annotated[int, Field(ge=0)]
FullName = Annotated[str, Field(description="Full name of the job, `room:category:Name`.")]


class TaskDocument(TypedDict):
    """A task."""

    id: UUID
    job_name: FullName
    room_id: str
    status: TaskStatus
    payload: dict[str, Any]
    error: str | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    worker_id: str | None
    attempt: Count
    progress: Annotated[float | None, Field(ge=0, le=1, description="How far it is, 0 to 1.")]
    message: str | None
    run_at: Annotated[datetime | None, Field(description="Not granted before; null for at once.")]
    retries_left: Count
    retry_of: Annotated[UUID | None, Field(description="The ended task that this one repeats.")]
    timeout_seconds: float | None
    traceparent: Annotated[
        str | None, Field(description="Trace context of the submit (W3C); a worker continues it.")
    ]
    result: NotRequired[
        Annotated[Any, Field(description="Of a completed task; lists leave it out.")]
    ]
    result_left_out: NotRequired[
        Annotated[
            bool,
            Field(
                description="True in place of `result`, in an answer to a lookup that has 8 MiB of "
                "other results; another lookup gives it."
            ),
        ]
    ]
    queue_position: NotRequired[
        Annotated[
            int,
            Field(
                ge=1,
                le=MAX_QUEUE_POSITION,
                description="While pending and due: place in the job's queue, counted up to "
                f"{MAX_QUEUE_POSITION:,}.",
            ),
        ]
    ]


class ServerSentEvent(TypedDict):
    """An event of a stream, which ends after some time; the client resumes from its last cursor."""

    event: Annotated[str, Field(description="The type of the document in `data`.")]
    id: Annotated[str, Field(description="The cursor.")]
    data: Annotated[str, Field(description="A JSON document, as in the AsyncAPI document.")]


class FileDocument(TypedDict):
    """A file of a task."""

    name: str
    size: Annotated[int, Field(ge=0, description="Bytes.")]
    content_type: str
    sha256: Annotated[str, Field(description="SHA-256 of the content, in hexadecimal digits.")]
    created_at: datetime
    attempt: Annotated[int, Field(ge=0, description="The attempt that uploaded it.")]


class AttemptDocument(TypedDict):
    """One attempt of a task."""

    attempt: Annotated[int, Field(ge=1)]
    worker_id: str | None
    claimed_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    outcome: Annotated[
        AttemptOutcome | None,
        Field(
            description="Null while it has not ended; `lost` if its worker was, or it ran too "
            "long; `requeued` if it ended without a result and without using up a retry."
        ),
    ]
    error: str | None


class ClaimDocument(TypedDict):
    """The tasks that a claim was granted."""

    task: Annotated[TaskDocument | None, Field(description="The oldest one.")]
    tasks: NotRequired[
        Annotated[
            list[TaskDocument],
            Field(description="All of them, oldest first; only if the claim had a `limit`."),
        ]
    ]


class LogDocument(TypedDict):
    """A part of a task's log."""

    offset: Annotated[
        int,
        Field(
            ge=0,
            description="Where the text begins, in bytes of UTF-8 from the first one ever written; "
            "greater than the requested offset where older text was cut, less where that was "
            "within a character.",
        ),
    ]
    text: Annotated[str, Field(description="At most 64 KiB of UTF-8.")]
    next_offset: Annotated[int, Field(ge=0, description="Where the text after this one begins.")]
    ended: Annotated[bool, Field(description="The task has ended, and no text follows this one.")]


class JobSummaryDocument(TypedDict):
    """A job in a list."""

    full_name: FullName
    category: str
    name: str
    worker_count: Count


class RetryDocument(TypedDict):
    """How often, and after how many seconds, tasks of a job are tried again."""

    max_retries: Count
    backoff_seconds: float
    backoff_factor: float
    max_backoff_seconds: float


class JobDocument(JobSummaryDocument):
    """A job with its schema."""

    id: UUID
    room_id: str
    schema: dict[str, Any]
    retry: Annotated[
        RetryDocument | None, Field(description="Retries of its tasks; null without a policy.")
    ]
    durable: Annotated[
        bool, Field(description="Whether the job stays when its last worker leaves.")
    ]


class RegistrationDocument(JobDocument):
    """A registered job and the worker that offers it."""

    worker_id: str


class WorkerDocument(TypedDict):
    """A worker."""

    id: str
    last_heartbeat: datetime
    created_at: datetime
    job_count: Count


class NewWorkerDocument(WorkerDocument):
    """A new worker, the interval of its heartbeats, and the time after which it counts as dead."""

    heartbeat_interval_seconds: float
    worker_timeout_seconds: Annotated[
        float, Field(description="Seconds after the last heartbeat; also the lease of a task.")
    ]
    max_result_bytes: Annotated[int, Field(description="Most bytes of JSON of a task's result.")]


class HeartbeatDocument(TypedDict):
    """The answer to a heartbeat."""

    id: str
    last_heartbeat: datetime
    lost: NotRequired[
        Annotated[
            list[UUID],
            Field(
                description="Listed tasks that this worker does not hold (any more); drop their "
                "results."
            ),
        ]
    ]
    cancelled: NotRequired[
        Annotated[
            list[UUID],
            Field(description="Listed tasks that were cancelled; stop working on them."),
        ]
    ]


class IdentityDocument(TypedDict):
    """The caller."""

    id: str


class FieldErrorDocument(TypedDict):
    """An error at one place of the request."""

    detail: str
    pointer: Annotated[str, Field(description="JSON pointer (RFC 6901) into the body.")]


class ProblemDocument(TypedDict):
    """A problem document (RFC 9457)."""

    type: Annotated[
        str,
        Field(
            description="Address of the problem type's description, or `about:blank` for an error "
            "of the site itself, which may have further members."
        ),
    ]
    title: str
    status: int
    detail: str
    instance: str
    errors: NotRequired[list[FieldErrorDocument]]


class ReportResultDocument(TypedDict):
    """The result of one report of a list."""

    id: Annotated[UUID | None, Field(description="Null if the report has no valid id.")]
    status: Annotated[int, Field(description="The status that the report alone would have had.")]
    task: NotRequired[Annotated[TaskDocument, Field(description="The task, if `status` is 200.")]]
    problem: NotRequired[
        Annotated[ProblemDocument, Field(description="The problem, if `status` is not 200.")]
    ]


class ProblemTypeDocument(TypedDict):
    """A problem type."""

    type: str
    title: str
    status: int
    description: str
