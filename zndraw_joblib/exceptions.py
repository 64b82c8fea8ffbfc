"""One exception class for each problem type (RFC 9457) of this app.

The class's name gives the slug (``JobNotFound`` -> ``job-not-found``) and its docstring's first
line the description that ``/v1/problems/<slug>`` shows.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from zndraw_joblib.text import Message

#: Most errors that a problem lists. The last entry may be the number of errors left out.
MAX_ERRORS = 1001


@dataclass(frozen=True, slots=True)
class FieldError:
    """An error at one place of a request's body.

    `pointer` is the JSON pointer (RFC 6901) to the invalid value; ``""`` is the whole body.
    """

    detail: str
    pointer: str = ""


def escape_pointer(token: str | int) -> str:
    """One reference token of a JSON pointer (RFC 6901, section 3)."""
    return str(token).replace("~", "~0").replace("/", "~1")


def json_pointer(path: Iterable[str | int]) -> str:
    """The JSON pointer of a path of keys and indexes."""
    return "".join(f"/{escape_pointer(token)}" for token in path)


def first_errors(errors: Iterable[FieldError]) -> tuple[FieldError, ...]:
    """The errors that a problem lists, at most `MAX_ERRORS`.

    Without a limit an answer could be many times larger than its request.
    """
    errors = tuple(errors)
    if len(errors) <= MAX_ERRORS:
        return errors
    listed = errors[: MAX_ERRORS - 1]
    more = len(errors) - len(listed)
    return (
        *listed,
        FieldError(Message("At least {number} more errors are not listed.", number=more)),
    )


class ProblemException(Exception):
    """The server could not carry out the request."""

    status: int = 500
    title: str = "Server Error"

    def __init__(
        self,
        detail: str | None = None,
        *,
        errors: Iterable[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        self.detail = detail or Message(self.description())
        self.errors = first_errors(errors)
        self.headers = dict(headers or {})
        #: Extension members of the document (RFC 9457, section 3.2), in JSON.
        self.members = dict(members or {})
        super().__init__(self.detail)

    @classmethod
    def slug(cls) -> str:
        """The problem's name in its type URL: ``job-not-found``."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()

    @classmethod
    def description(cls) -> str:
        """The description of the problem type: the first line of the class's docstring."""
        return (inspect.getdoc(cls) or "").partition("\n")[0]

    def document(self, type_url: str, instance: str) -> dict[str, Any]:
        """The problem as an RFC 9457 document (section 3.1)."""
        (title, detail, *details), _language = self.texts()
        document: dict[str, Any] = {
            "type": type_url,
            "title": title,
            "status": self.status,
            "detail": detail,
            "instance": instance,
            **self.members,
        }
        if self.errors:
            document["errors"] = [
                {"detail": shown, "pointer": error.pointer}
                for shown, error in zip(details, self.errors, strict=True)
            ]
        return document

    def texts(self) -> tuple[list[str], str]:
        """Title, detail and the details of the errors in one language; and that language."""
        # Imported here, because these classes can be imported without Django.
        from zndraw_joblib.translation import translated  # noqa: PLC0415

        details = [error.detail for error in self.errors]
        # A subclass may have chosen its title from a template.
        title = self.title if isinstance(self.title, Message) else Message(self.title)
        return translated([title, self.detail, *details])


class JobNotFound(ProblemException):
    """No such job is registered in this room."""

    status = 404
    title = "Job Not Found"


class WorkerNotFound(ProblemException):
    """No such worker is registered to you; it may have been removed after missed heartbeats."""

    status = 404
    title = "Worker Not Found"


class TaskNotFound(ProblemException):
    """No such task exists, or you may not see it."""

    status = 404
    title = "Task Not Found"


class NotFound(ProblemException):
    """There is nothing at this address."""

    status = 404
    title = "Not Found"


class SchemaConflict(ProblemException):
    """A live worker has registered this job with another schema."""

    status = 409
    title = "Schema Conflict"


class InvalidTaskTransition(ProblemException):
    """The task's state does not allow this change."""

    status = 409
    title = "Invalid Task Transition"


class LeaseLost(ProblemException):
    """The task was granted to a worker again; a report for an earlier attempt changes nothing."""

    status = 409
    title = "Lease Lost"


class TooManyJobs(ProblemException):
    """The worker offers the most jobs that a worker may; delete it, or use another one."""

    status = 409
    title = "Too Many Jobs"


class TooManyWorkers(ProblemException):
    """You have the most workers that an identity may have; delete workers that you do not need."""

    status = 409
    title = "Too Many Workers"


class TooManyPending(ProblemException):
    """The room has the most pending tasks that it may have; try again when some have started."""

    status = 429
    title = "Too Many Pending Tasks"


class InvalidCategory(ProblemException):
    """Jobs of this category are not accepted here."""

    status = 400
    title = "Invalid Category"


class InvalidRoomId(ProblemException):
    """A room id has 1 to 128 characters without @, :, / or control characters."""

    status = 400
    title = "Invalid Room Id"


class InvalidPayload(ProblemException):
    """The payload does not satisfy the job's JSON Schema."""

    status = 422
    title = "Invalid Payload"


class IdempotencyKeyReused(ProblemException):
    """The Idempotency-Key was used with another body; a new request needs a new key."""

    status = 422
    title = "Idempotency Key Reused"


class ValidationError(ProblemException):
    """The request is malformed: `errors` names each offending field."""

    status = 400
    title = "Validation Error"


class ContentTooLarge(ProblemException):
    """The body is larger than this server accepts."""

    status = 413
    title = "Content Too Large"


class ResultTooLarge(ProblemException):
    """The result is larger than this server accepts; upload it as a file of the task."""

    status = 413
    title = "Result Too Large"


class FileTooLarge(ProblemException):
    """The file is larger than this server accepts."""

    status = 413
    title = "File Too Large"


class TooManyFiles(ProblemException):
    """The task has the most files that a task may have; replace one, or upload an archive."""

    status = 409
    title = "Too Many Files"


class FileNotFound(ProblemException):
    """The task has no file of this name."""

    status = 404
    title = "File Not Found"


class RangeNotSatisfiable(ProblemException):
    """The file does not have the range of bytes; `Content-Range` tells its size."""

    status = 416
    title = "Range Not Satisfiable"


class PreconditionFailed(ProblemException):
    """The file does not meet the condition of a header of the request, such as `If-Match`."""

    status = 412
    title = "Precondition Failed"


class StorageUnavailable(ProblemException):
    """The storage of files did not answer; the request may be tried again."""

    status = 503
    title = "Storage Unavailable"


class LengthRequired(ProblemException):
    """The body comes in chunks, whose end this server may not see; send its Content-Length."""

    status = 411
    title = "Length Required"


class NotAuthenticated(ProblemException):
    """The request carries no valid credentials."""

    status = 401
    title = "Not Authenticated"


class Forbidden(ProblemException):
    """You may not do this."""

    status = 403
    title = "Forbidden"


class MethodNotAllowed(ProblemException):
    """The address does not support this method; `Allow` lists the methods that it supports."""

    status = 405
    title = "Method Not Allowed"


class UnsupportedMediaType(ProblemException):
    """The body must be application/json."""

    status = 415
    title = "Unsupported Media Type"


class Throttled(ProblemException):
    """You sent too many requests; `Retry-After` has the seconds to wait."""

    status = 429
    title = "Too Many Requests"


class ServerError(ProblemException):
    """The server failed; the request may be tried again."""

    status = 500
    title = "Server Error"


class ServiceUnavailable(ProblemException):
    """The database did not answer or does not accept writes; the request may be tried again."""

    status = 503
    title = "Service Unavailable"


class DatabaseNotMigrated(ProblemException):
    """The database lacks a table or column; the site's operator must run `manage.py migrate`."""

    status = 503
    title = "Database Not Migrated"


def _problem_types() -> dict[str, type[ProblemException]]:
    return {cls.slug(): cls for cls in ProblemException.__subclasses__()}


#: Every problem type by its slug, in the order of this file.
PROBLEM_TYPES: Mapping[str, type[ProblemException]] = _problem_types()
