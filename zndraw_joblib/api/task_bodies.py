"""Bodies of workers and of readers: claims, reports, logs, lookups and heartbeats."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar
from uuid import UUID

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from zndraw_joblib.api.bodies import Attempt, Body, TaskId, WorkerId
from zndraw_joblib.api.limits import AtMost, Described
from zndraw_joblib.lifecycle import (
    MAX_MESSAGE_LENGTH,
    MAX_RETRY_AFTER,
    REPORTABLE_STATUSES,
    TaskStatus,
)

#: Most tasks that one heartbeat lists.
MAX_HEARTBEAT_TASKS = 500
#: Most ids of a lookup. Not a setting, because a client divides longer lists beforehand.
MAX_LOOKUP = 500

#: Every status, because a report of `pending` or `claimed` is well-formed; the service refuses it.
ReportedStatus = Annotated[
    TaskStatus,
    Field(
        strict=False,
        description="`claimed` and `pending` are set by the server alone "
        "(409 `invalid-task-transition`).",
    ),
]


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
