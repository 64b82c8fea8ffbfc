"""Bodies that register jobs and submit tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AliasChoices, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from zndraw_joblib.api.bodies import MAX_SECONDS, Body, WorkerId
from zndraw_joblib.api.limits import AtMost, Described
from zndraw_joblib.api.times import Time
from zndraw_joblib.lifecycle import RetryPolicy
from zndraw_joblib.names import MAX_NAME_LENGTH
from zndraw_joblib.storage.rows import NewTask


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
        return NewTask(traceparent=traceparent, **dict(self))


def parts_to_repeat(bodies: Sequence[SubmissionBody], *, many: bool = False) -> list[Any]:
    """The parts of a submit that a repeated one with its Idempotency-Key must equal.

    `many` tells an array from its only entry.
    """
    payloads = [body.payload for body in bodies]
    options = [body.options() for body in bodies]
    return [payloads if many else payloads[0], *([options] if any(options) else [])]
