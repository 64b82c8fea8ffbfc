"""Errors of the SDK, one class for each problem type (RFC 9457) of the server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import httpx


class ApiError(Exception):
    """The server refused a request.

    Attributes
    ----------
    status : int
        HTTP status code.
    problem : dict
        The problem document; empty if the answer has none.
    response : httpx.Response
        The answer itself.
    """

    #: Last part of the problem type's address.
    slug: ClassVar[str] = ""

    def __init__(self, response: httpx.Response, problem: dict[str, Any]) -> None:
        self.status = response.status_code
        self.problem = problem
        self.response = response
        title = problem.get("title") or response.reason_phrase
        super().__init__(f"{self.status} {title}: {problem.get('detail', '')}".rstrip(": "))

    @property
    def errors(self) -> list[dict[str, str]]:
        """The errors in the request, each with `detail` and `pointer`."""
        errors = self.problem.get("errors", [])
        return errors if isinstance(errors, list) else []

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait before another attempt, from `Retry-After`; None without this header."""
        text = self.response.headers.get("Retry-After", "")
        return float(text) if text.isascii() and text.isdigit() else None


class JobNotFoundError(ApiError):
    """No such job is registered in the room."""

    slug = "job-not-found"


class WorkerNotFoundError(ApiError):
    """The worker does not exist, or was removed after missed heartbeats."""

    slug = "worker-not-found"


class TaskNotFoundError(ApiError):
    """The task does not exist, or the caller may not read it."""

    slug = "task-not-found"


class SchemaConflictError(ApiError):
    """A live worker registered the job with another schema."""

    slug = "schema-conflict"


class InvalidTaskTransitionError(ApiError):
    """The task's state does not allow the report, for instance after a cancel."""

    slug = "invalid-task-transition"


class LeaseLostError(ApiError):
    """The task was granted again, as another attempt; drop the result."""

    slug = "lease-lost"


class InvalidCategoryError(ApiError):
    """The server does not accept jobs of this category."""

    slug = "invalid-category"


class InvalidRoomIdError(ApiError):
    """The room id is not valid."""

    slug = "invalid-room-id"


class InvalidPayloadError(ApiError):
    """The payload does not satisfy the job's schema; see `errors`."""

    slug = "invalid-payload"


class RequestInvalidError(ApiError):
    """The request is malformed; see `errors`."""

    slug = "validation-error"


class NotAuthenticatedError(ApiError):
    """The credentials are missing or wrong."""

    slug = "not-authenticated"


class ForbiddenError(ApiError):
    """The caller may not do this."""

    slug = "forbidden"


class TooManyJobsError(ApiError):
    """The worker offers as many jobs as a worker may."""

    slug = "too-many-jobs"


class TooManyWorkersError(ApiError):
    """The caller has as many workers as one identity may have."""

    slug = "too-many-workers"


class TooManyPendingError(ApiError):
    """The room has as many pending tasks as it may have; see `retry_after`."""

    slug = "too-many-pending"


class IdempotencyKeyReusedError(ApiError):
    """The request's key was used with another body."""

    slug = "idempotency-key-reused"


class ThrottledError(ApiError):
    """Too many requests; see `retry_after`."""

    slug = "throttled"


class ServerError(ApiError):
    """The server failed."""

    slug = "server-error"


class TaskWaitTimeout(TimeoutError):
    """Tasks did not end in time; they go on regardless.

    Attributes
    ----------
    task_ids : list of str
        The tasks that were not yielded. In an ordered wait the first of them has not ended; others
        may have.
    """

    def __init__(self, timeout: float | None, task_ids: Sequence[str]) -> None:
        self.task_ids = list(task_ids)
        others = len(self.task_ids) - 1
        rest = f" (nor were {others} others yielded)" if others > 0 else ""
        super().__init__(f"task {self.task_ids[0]} has not ended within {timeout} s{rest}")


class RoundTripError(ValueError):
    """An instance cannot be submitted, because its worker would get another one or none."""

    def __init__(self, cls: type, reason: str) -> None:
        super().__init__(f"{cls.__name__} cannot be submitted: {reason}")


class PartlySubmittedError(Exception):
    """Some of many tasks were submitted before a request failed; `__cause__` is its error.

    Attributes
    ----------
    task_ids : list of str or None
        In the order of the instances; None for each that was not accepted. If the cause is an
        `httpx.TransportError`, the server may have accepted some of these.
    """

    def __init__(self, task_ids: Sequence[str | None], cause: Exception) -> None:
        self.task_ids = list(task_ids)
        accepted = sum(task_id is not None for task_id in self.task_ids)
        super().__init__(f"{accepted} of {len(self.task_ids)} tasks were submitted: {cause}")


_BY_SLUG = {cls.slug: cls for cls in ApiError.__subclasses__()}


def error_of(response: httpx.Response) -> ApiError:
    """The error for a refusal; `ServerError` for a 5xx of an unknown problem type."""
    try:
        document = response.json()
    except ValueError:
        document = {}
    problem = document if isinstance(document, dict) else {}
    slug = str(problem.get("type", "")).rpartition("/")[2]
    fallback = ServerError if response.status_code >= 500 else ApiError
    return _BY_SLUG.get(slug, fallback)(response, problem)


def raise_for_problem(response: httpx.Response) -> httpx.Response:
    """Return an answer below 400, and raise any other as an error.

    Raises
    ------
    ApiError
        The error that `error_of` returns.
    """
    if response.status_code < 400:
        return response
    raise error_of(response)
