"""Errors of the SDK, one class for each problem type (RFC 9457) of the server."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar

import httpx

#: Media type of a problem document.
PROBLEM_TYPE = "application/problem+json"
#: Most seconds that `Retry-After` sets.
LONGEST_RETRY_AFTER = 86_400.0


class ApiError(Exception):
    """The server refused a request, or another program answered in its place.

    An answer without a problem document is not the server's. A proxy sends such answers while the
    server is away.

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
        detail = problem.get("detail", "") if problem else self._described(response)
        super().__init__(f"{self.status} {title}: {detail}".rstrip(": "))

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickling would else call the class with the text alone, for instance in a pool of
        # processes; the same holds for the exceptions below.
        return type(self), (self.response, self.problem)

    @staticmethod
    def _described(response: httpx.Response) -> str:
        """Text about an answer that is not the server's, without its body, which may be secret."""
        return f"not an answer of the server ({response.headers.get('Content-Type', 'no type')})"

    @property
    def errors(self) -> list[dict[str, str]]:
        """The errors in the request, each with `detail` and `pointer`."""
        errors = self.problem.get("errors", [])
        return errors if isinstance(errors, list) else []

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait before another attempt, from `Retry-After`; None without this header.

        The header has seconds or a date (RFC 9110, section 10.2.3). At most a day is returned.
        """
        text = self.response.headers.get("Retry-After", "").strip()
        if text.isascii() and text.isdigit():
            return min(float(text), LONGEST_RETRY_AFTER)
        until = _date(text)
        if until is None:
            return None
        # By the clock of the server that set the date, if it sent its time.
        now = _date(self.response.headers.get("Date", "")) or datetime.now(UTC)
        return min(max((until - now).total_seconds(), 0.0), LONGEST_RETRY_AFTER)


class UnexpectedAnswerError(ApiError):
    """A redirect, or a 2xx whose body is not what the server answers to this request."""


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


class ResultTooLargeError(ApiError):
    """The server accepts no result of this size; upload it as a file."""

    slug = "result-too-large"


class FileTooLargeError(ApiError):
    """The server accepts no file of this size."""

    slug = "file-too-large"


class TooManyFilesError(ApiError):
    """The task has as many files as a task may have."""

    slug = "too-many-files"


class TaskFileNotFoundError(ApiError):
    """The task has no file of this name."""

    slug = "file-not-found"


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
        self.timeout = timeout
        self.task_ids = list(task_ids)
        others = len(self.task_ids) - 1
        rest = f" (nor were {others} others yielded)" if others > 0 else ""
        super().__init__(f"task {self.task_ids[0]} has not ended within {timeout} s{rest}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.timeout, self.task_ids)


class RoundTripError(ValueError):
    """An instance cannot be submitted, because its worker would get another one or none."""

    def __init__(self, cls: type, reason: str) -> None:
        self._cls, self._reason = cls, reason
        super().__init__(f"{cls.__name__} cannot be submitted: {reason}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._cls, self._reason)


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
        self._failure = cause
        accepted = sum(task_id is not None for task_id in self.task_ids)
        super().__init__(f"{accepted} of {len(self.task_ids)} tasks were submitted: {cause}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.task_ids, self._failure)


class CredentialsError(httpx.TransportError):
    """The credentials of a request could not be made, for instance while a token server is away.

    It counts as an outage, because the server has not refused these credentials. `__cause__` is the
    error of the function or of the `httpx.Auth` that failed.
    """


def _date(text: str) -> datetime | None:
    """The time of an HTTP date; None for any other text."""
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


_BY_SLUG = {cls.slug: cls for cls in ApiError.__subclasses__() if cls.slug}


def error_of(response: httpx.Response, problem: dict[str, Any] | None = None) -> ApiError:
    """The error for an answer of 400 or above; `ServerError` for a 5xx of an unknown problem type.

    Without `problem` the problem document is read from the answer.
    """
    if problem is None:
        problem = _problem_of(response)
    slug = str(problem.get("type", "")).rpartition("/")[2]
    fallback = ServerError if response.status_code >= 500 else ApiError
    return _BY_SLUG.get(slug, fallback)(response, problem)


def _problem_of(response: httpx.Response) -> dict[str, Any]:
    """The problem document of an answer; empty if it has none."""
    try:
        document = response.json()
    except (ValueError, RecursionError):
        return {}
    if not isinstance(document, dict) or not isinstance(document.get("type"), str):
        return {}
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    # Also plain JSON with the address of a problem type, because a proxy may change the media type.
    is_problem = media_type == PROBLEM_TYPE or "/problems/" in document["type"]
    return document if is_problem else {}
