"""Bodies of requests as pydantic models: they validate a request and describe it for OpenAPI."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Self, get_args
from uuid import UUID

import pydantic
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from zndraw_joblib.api.limits import AtMost, Described
from zndraw_joblib.api.parsing import invalid_fields
from zndraw_joblib.api.times import Time
from zndraw_joblib.exceptions import FieldError, json_pointer
from zndraw_joblib.lifecycle import (
    MAX_MESSAGE_LENGTH,
    MAX_RETRY_AFTER,
    REPORTABLE_STATUSES,
    RetryPolicy,
    TaskStatus,
)
from zndraw_joblib.models import MAX_IDENTITY_LENGTH
from zndraw_joblib.names import MAX_NAME_LENGTH
from zndraw_joblib.storage.rows import NewTask
from zndraw_joblib.text import Message
from zndraw_joblib.translation import library_message

#: Largest value of the database's column.
MAX_ATTEMPT = 2**31 - 1
#: Most tasks that one heartbeat lists.
MAX_HEARTBEAT_TASKS = 500
#: Most ids of a lookup. Not a setting, because a client divides longer lists beforehand.
MAX_LOOKUP = 500

#: Messages in the words of JSON, because pydantic's own name Python's types.
_MESSAGES = {
    "dict_type": "Must be a JSON object.",
    "model_type": "Must be a JSON object.",
    "list_type": "Must be a JSON array.",
}


class Body(BaseModel):
    """A JSON object with strict types, in which unknown fields are errors."""

    model_config = ConfigDict(strict=True, extra="forbid")

    #: Names of the fields whose text may have any character, because it is not the client's own.
    free_text: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def read(cls, value: Any, *path: int) -> Self:
        """Validate parsed JSON, which is at `path` in the request's body.

        Raises
        ------
        zndraw_joblib.exceptions.ValidationError
            The value is not valid; `errors` has a pointer to each invalid field.
        """
        try:
            return cls.model_validate(value)
        except pydantic.ValidationError as error:
            raise invalid_fields(cls._field_errors(error, path)) from error

    @classmethod
    def _field_errors(
        cls, error: pydantic.ValidationError, path: tuple[int, ...]
    ) -> Iterator[FieldError]:
        for each in error.errors(include_url=False, include_context=False, include_input=False):
            location = each["loc"]
            if each["type"] == "extra_forbidden":
                message = Message(
                    "Unknown field; known are {names}.",
                    names=", ".join(cls._fields_at(location)),
                )
            else:
                message = library_message(_MESSAGES.get(each["type"], each["msg"]))
            yield FieldError(message, json_pointer((*path, *location)))

    @classmethod
    def _fields_at(cls, location: tuple[str | int, ...]) -> list[str]:
        """The names that a request may use in the object around `location`."""
        model: type[BaseModel] = cls
        for name in location[:-1]:
            if isinstance(name, str):
                model = next(_models(model.model_fields[name].annotation))
        return [field.alias or name for name, field in model.model_fields.items()]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in an annotation such as ``list[Grant] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


#: Not strict, because strict pydantic accepts instances of UUID only, which JSON does not have.
TaskId = Annotated[UUID, Field(strict=False, description="Id of the task.")]
Attempt = Annotated[int, Field(ge=0, le=MAX_ATTEMPT)]
WorkerId = Annotated[
    Annotated[str, Field(min_length=1, max_length=MAX_IDENTITY_LENGTH)] | None,
    Field(description="One of your workers; left out or null, your default worker."),
]
#: Every status, because a report of `pending` or `claimed` is well-formed; the service refuses it.
ReportedStatus = Annotated[
    TaskStatus,
    Field(
        strict=False,
        description="`claimed` and `pending` are set by the server alone "
        "(409 `invalid-task-transition`).",
    ),
]


#: Most seconds of a delay or a timeout: a year.
MAX_SECONDS = 31_536_000


class EmptyBody(Body):
    """A body without fields."""


class RetryBody(Body):
    """How often, and after which time, failed and lost tasks of a job are tried again."""

    max_retries: Annotated[int, Field(ge=0), AtMost("max_retries")] = Field(
        default=0, description="Retries of a task whose submit does not say otherwise."
    )
    backoff_seconds: float = Field(
        default=RetryPolicy.backoff_seconds,
        ge=0,
        le=MAX_SECONDS,
        description="Seconds before the first retry.",
    )
    backoff_factor: float = Field(
        default=RetryPolicy.backoff_factor,
        ge=1,
        le=1_000,
        description="Each further retry waits this many times as long.",
    )
    max_backoff_seconds: float = Field(
        default=RetryPolicy.max_backoff_seconds,
        ge=0,
        le=MAX_SECONDS,
        description="Longest time before a retry, in seconds.",
    )

    def policy(self) -> RetryPolicy:
        """The policy that the body describes."""
        return RetryPolicy(
            self.max_retries, self.backoff_seconds, self.backoff_factor, self.max_backoff_seconds
        )


class RegistrationBody(Body):
    """Registers a job."""

    category: Annotated[
        str, Field(min_length=1), Described("One of the server's categories: {allowed_categories}.")
    ]
    name: str = Field(
        description=f"Name of the job, 1 to {MAX_NAME_LENGTH} characters without `@ : /`."
    )
    #: Its name in requests is `schema`, which is a method of pydantic's models. The original
    #: server's client sends `json_schema`.
    json_schema: Annotated[
        dict[str, Any],
        Described(
            "JSON Schema (draft 2020-12, 2019-09 or 7) of a payload, at most {max_schema_bytes} "
            "bytes of JSON nested at most {max_schema_depth} deep; left out it is `{{}}`, which "
            "every payload satisfies. `json_schema` is accepted for its name."
        ),
    ] = Field(
        default_factory=dict,
        alias="schema",
        validation_alias=AliasChoices("schema", "json_schema", "schema_"),
    )
    worker_id: WorkerId = None
    retry: RetryBody | None = Field(
        default=None,
        description="Retries of the job's tasks; left out, those of an earlier registration stay.",
    )
    durable: bool | None = Field(
        default=None,
        description="Whether the job stays when its last worker leaves; left out, as it was.",
    )


class SubmissionBody(Body):
    """Submits a task."""

    payload: Annotated[
        dict[str, Any],
        Described(
            "The payload that the job's schema describes, at most {max_payload_bytes} bytes of "
            "JSON."
        ),
    ] = Field(default_factory=dict)
    retries: Annotated[int, Field(ge=0), AtMost("max_retries")] | None = Field(
        default=None,
        description="How often the task is tried again when it fails or its worker is lost; left "
        "out, as the job says.",
    )
    run_at: Time | None = Field(
        default=None,
        description="The task is granted from this time on (RFC 3339, with an offset).",
    )
    delay: Annotated[float, Field(ge=0, le=MAX_SECONDS)] | None = Field(
        default=None,
        description="The task is granted from this many seconds after the submit on; not beside "
        "`run_at`.",
    )
    timeout_seconds: Annotated[float, Field(ge=0.001, le=MAX_SECONDS)] | None = Field(
        default=None,
        description="An attempt that runs longer ends like that of a lost worker.",
    )

    @field_validator("delay")
    @classmethod
    def _not_beside_run_at(cls, delay: float | None, info: ValidationInfo) -> float | None:
        if delay is not None and info.data.get("run_at") is not None:
            raise PydanticCustomError("delay", "Does not go beside run_at.")
        return delay

    def options(self) -> dict[str, Any]:
        """The fields that were given besides the payload, as JSON."""
        return self.model_dump(mode="json", exclude={"payload"}, exclude_none=True)

    def task(self, traceparent: str | None = None) -> NewTask:
        """The task that the body describes, in the trace of a context."""
        return NewTask(
            self.payload, self.retries, self.run_at, self.delay, self.timeout_seconds, traceparent
        )


def parts_to_repeat(bodies: Sequence[SubmissionBody], *, many: bool = False) -> list[Any]:
    """The parts of a submit that a repeated one with its Idempotency-Key must equal.

    `many` tells an array from its only entry.
    """
    payloads = [body.payload for body in bodies]
    options = [body.options() for body in bodies]
    return [payloads if many else payloads[0], *([options] if any(options) else [])]


class ClaimBody(Body):
    """Claims tasks."""

    worker_id: WorkerId = None
    limit: Annotated[int, Field(ge=1), AtMost("max_batch_size")] | None = Field(
        default=None, description="Claim up to this many tasks; the answer lists them as `tasks`."
    )
    start: bool = Field(
        default=False,
        description="Start the claimed tasks at once, which saves a report for each of them.",
    )


#: The statuses of a report that each of these fields goes with.
_GOES_WITH = {
    "error": (TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED),
    "result": (TaskStatus.COMPLETED,),
    "progress": (TaskStatus.RUNNING,),
    "message": (TaskStatus.RUNNING,),
    "retry": (TaskStatus.FAILED,),
    "retry_after": (TaskStatus.FAILED,),
}


def _listed(statuses: tuple[TaskStatus, ...]) -> str:
    *first, last = statuses
    return f"{', '.join(first)} or {last}" if first else str(last)


class ReportBody(Body):
    """Reports on a task."""

    free_text: ClassVar = frozenset({"error", "message"})

    status: ReportedStatus
    error: Annotated[
        str | None,
        Described(
            "Why the task failed or was cancelled, or a remark on a completed one; cut after "
            "{max_error_bytes} bytes of UTF-8."
        ),
    ] = None
    attempt: Attempt | None = Field(
        default=None,
        description="The attempt that the claim gave; a report for another one is refused.",
    )

    result: Annotated[
        Any,
        Described(
            "The result of a completed task: any JSON of at most {max_result_bytes} bytes "
            "(413 `result-too-large`)."
        ),
    ] = None
    progress: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="How far a running task is, from 0 to 1; renews the lease."
    )
    message: Annotated[str, Field(max_length=MAX_MESSAGE_LENGTH)] | None = Field(
        default=None, description="A word about the progress of a running task; renews the lease."
    )
    retry: bool | None = Field(
        default=None,
        description="False if a failed task must not be tried again, although it has retries left.",
    )
    retry_after: Annotated[float, Field(ge=0, le=MAX_RETRY_AFTER)] | None = Field(
        default=None,
        description="Seconds before a failed task is tried again, in place of the backoff.",
    )

    @field_validator(*_GOES_WITH)
    @classmethod
    def _goes_with_the_status(cls, value: Any, info: ValidationInfo) -> Any:
        allowed = _GOES_WITH[info.field_name or ""]
        # An invalid status is missing from `data` and has its own error, and the service refuses
        # those that the server alone sets.
        status = info.data.get("status")
        if value is not None and status in REPORTABLE_STATUSES and status not in allowed:
            raise PydanticCustomError(
                "status", "Goes with the status {statuses} only.", {"statuses": _listed(allowed)}
            )
        return value


class ListedReportBody(ReportBody):
    """One report of a list."""

    id: TaskId

    @staticmethod
    def id_of(entry: Any) -> UUID | None:
        """The task's id in an invalid entry; None if it has no valid id."""
        try:
            return UUID(entry["id"])
        except (KeyError, TypeError, ValueError, AttributeError):
            return None


class LogBody(Body):
    """Adds text to the log of a task."""

    free_text: ClassVar = frozenset({"text"})

    attempt: Attempt = Field(
        description="The attempt that the claim gave; text of another one is refused."
    )
    text: str = Field(
        description="Text that follows the earlier one at once, without a line break of its own; "
        "an empty one only renews the lease."
    )


class Grant(Body):
    """A task and the attempt that the claim gave."""

    id: TaskId
    attempt: Attempt


#: A part of a task that lists leave out.
Part = Annotated[str, Field(pattern="^result$")]


class LookupBody(Body):
    """Looks tasks up."""

    ids: list[TaskId] = Field(
        min_length=1,
        max_length=MAX_LOOKUP,
        description="Ids of tasks; unknown ones and those that you may not read are left out.",
    )
    include: list[Part] = Field(
        default=[], max_length=1, description="`result` adds the results, which lists leave out."
    )

    @property
    def include_result(self) -> bool:
        """Whether the answer has the results."""
        return "result" in self.include


class HeartbeatBody(Body):
    """A heartbeat; without `tasks` it renews all leases of the worker."""

    tasks: list[Grant] | None = Field(default=None, max_length=MAX_HEARTBEAT_TASKS)
