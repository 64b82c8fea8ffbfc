"""Request bodies and, for the OpenAPI document, the shapes of answers."""

from __future__ import annotations

from functools import cache
from typing import Any
from uuid import UUID

from rest_framework import serializers

from zndraw_joblib.exceptions import MAX_ERRORS
from zndraw_joblib.lifecycle import REPORTABLE_STATUSES, TaskStatus
from zndraw_joblib.models import MAX_IDENTITY_LENGTH

#: Other names of a registration's `schema`; the second is what the original's client sends.
SCHEMA_ALIASES = {"json_schema", "schema_"}

MAX_ATTEMPT = 2**31 - 1
#: Characters of a UUID as it is usually written.
UUID_LENGTH = 36
TASK_STATUSES = [status.value for status in TaskStatus]
REPORT_STATUSES = sorted(status.value for status in REPORTABLE_STATUSES)


class StrictCharField(serializers.CharField):
    """A string and nothing that could be made one; DRF's own takes the number 0."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        """Refuse what is not a string."""
        if not isinstance(data, str):
            self.fail("invalid")
        return data


class StrictIntegerField(serializers.IntegerField):
    """An integer, not a string of digits, a float or a boolean."""

    def to_internal_value(self, data: Any) -> int:
        """Refuse what is not an integer."""
        if not isinstance(data, int) or isinstance(data, bool):
            self.fail("invalid")
        return data


class StrictBooleanField(serializers.BooleanField):
    """true or false and nothing that could be made one."""

    def to_internal_value(self, data: Any) -> bool:
        """Refuse what is no boolean."""
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class JSONObjectField(serializers.JSONField):
    """A JSON object."""

    default_error_messages = {"not_an_object": "Must be a JSON object."}  # noqa: RUF012

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """Refuse what is not an object."""
        if not isinstance(data, dict):
            self.fail("not_an_object")
        return data


class Body(serializers.Serializer[Any]):
    """A request body in which unknown fields are errors."""

    @classmethod
    def check(cls, data: Any) -> dict[str, Any]:
        """The validated values.

        Raises
        ------
        rest_framework.serializers.ValidationError
            They are not valid.
        """
        if type(data) is dict and (plain := cls.plain(data)) is not None:
            return plain
        # One for all requests: to make one costs more than to validate, and it keeps no state.
        validated: dict[str, Any] = _serializer(cls).run_validation(data)
        return validated

    @staticmethod
    def plain(data: dict[str, Any]) -> dict[str, Any] | None:
        """The values of a body that is as most are and plainly valid, which is cheap to see.

        None leaves it to the fields.
        """
        return None

    def to_internal_value(self, data: Any) -> Any:
        """Refuse unknown fields along with what the fields refuse."""
        unknown = self._unknown(data) if isinstance(data, dict) else {}
        try:
            value = super().to_internal_value(data)
        except serializers.ValidationError as error:
            detail: Any = error.detail
            raise serializers.ValidationError({**detail, **unknown}) from error
        if unknown:
            raise serializers.ValidationError(unknown)
        return value

    def _unknown(self, data: dict[str, Any]) -> dict[str, list[str]]:
        """The fault of each unknown field, as many as are listed."""
        keys = [key for key in data if key not in self.fields]
        detail = f"Unknown field; known are {', '.join(self.fields)}."
        if len(keys) <= MAX_ERRORS:
            return {key: [detail] for key in keys}
        more = len(keys) - MAX_ERRORS + 1
        return {key: [detail] for key in keys[:-more]} | {
            "non_field_errors": [f"{more} more unknown fields are not listed."]
        }


@cache
def _serializer(body: type[Body]) -> Body:
    return body()


def worker_id_field() -> StrictCharField:
    """Which of the caller's workers; left out, the default one."""
    return StrictCharField(
        required=False,
        allow_null=True,
        max_length=MAX_IDENTITY_LENGTH,
        help_text="One of your workers; left out or null, your default worker.",
    )


class RegistrationBody(Body):
    """Registers a job."""

    category = StrictCharField(help_text="One of the categories that this server allows.")
    name = StrictCharField(help_text="Name of the job, 1 to 128 characters without @ : /.")
    schema = JSONObjectField(
        help_text="JSON Schema of a payload: draft 2020-12, or 2019-09 or 7 where `$schema` says "
        "so; `json_schema` is accepted for it."
    )
    worker_id = worker_id_field()

    def to_internal_value(self, data: Any) -> Any:
        """Take another name of the schema for `schema`."""
        if isinstance(data, dict) and "schema" not in data:
            for alias in SCHEMA_ALIASES & data.keys():
                data = {("schema" if key == alias else key): data[key] for key in data}
        return super().to_internal_value(data)


class SubmissionBody(Body):
    """Submits a task."""

    payload = JSONObjectField(required=False, help_text="What the job's schema describes.")

    @staticmethod
    def plain(data: dict[str, Any]) -> dict[str, Any] | None:
        """A payload and nothing else."""
        return data if data.keys() == {"payload"} and type(data["payload"]) is dict else None


class ClaimBody(Body):
    """Claims tasks."""

    worker_id = worker_id_field()
    limit = StrictIntegerField(
        required=False,
        allow_null=True,
        min_value=1,
        help_text="Claim up to so many; they are listed as `tasks`.",
    )
    start = StrictBooleanField(
        required=False, help_text="Report them running at once, which saves a request for each."
    )

    @staticmethod
    def plain(data: dict[str, Any]) -> dict[str, Any] | None:
        """A worker, perhaps with a limit and a start."""
        worker_id = data.get("worker_id")
        fine = (
            data.keys() <= {"worker_id", "limit", "start"}
            and type(worker_id) is str
            and 0 < len(worker_id) <= MAX_IDENTITY_LENGTH
            and type(data.get("start", False)) is bool
            and (limit := data.get("limit", 1)) is not None
            and type(limit) is int
            and limit > 0
        )
        return data if fine else None


class ReportBody(Body):
    """Reports on a task."""

    status = serializers.ChoiceField(
        choices=REPORT_STATUSES,
        help_text="`claimed` and `pending` are the server's own.",
    )
    error = StrictCharField(
        required=False,
        allow_null=True,
        allow_blank=True,
        help_text="Why it failed or was cancelled; cut at the server's limit.",
    )
    attempt = StrictIntegerField(
        required=False,
        allow_null=True,
        min_value=0,
        max_value=MAX_ATTEMPT,
        help_text="The attempt that the claim gave; a report for another one is refused.",
    )

    @staticmethod
    def plain(data: dict[str, Any]) -> dict[str, Any] | None:
        """A status and an attempt."""
        return data if data.keys() == {"status", "attempt"} and _plain_report(data) else None

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """An error text goes with failed and cancelled alone."""
        if attrs.get("error") is not None and attrs["status"] not in {
            TaskStatus.FAILED,
            TaskStatus.CANCELLED,
        }:
            raise serializers.ValidationError(
                {"error": "Goes with the status failed or cancelled only."}
            )
        return attrs


class ListedReportBody(ReportBody):
    """One report of a list."""

    id = serializers.UUIDField(help_text="Id of the task.")

    @staticmethod
    def plain(data: dict[str, Any]) -> dict[str, Any] | None:
        """An id, a status and an attempt."""
        if data.keys() == {"id", "status", "attempt"} and _plain_report(data):
            return _with_uuid(data)
        return None


class Grant(Body):
    """A task and the attempt that was granted."""

    id = serializers.UUIDField()
    attempt = StrictIntegerField(min_value=0, max_value=MAX_ATTEMPT)

    @staticmethod
    def plain(data: dict[str, Any]) -> dict[str, Any] | None:
        """What else it could be."""
        plain = data.keys() == {"id", "attempt"} and _plain_attempt(data["attempt"])
        return _with_uuid(data) if plain else None

    def run_validation(self, data: Any = serializers.empty) -> Any:
        """As a child of a list too."""
        plain = self.plain(data) if type(data) is dict else None
        return super().run_validation(data) if plain is None else plain


def _plain_attempt(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_ATTEMPT


def _plain_report(data: dict[str, Any]) -> bool:
    status = data["status"]
    return type(status) is str and status in REPORTABLE_STATUSES and _plain_attempt(data["attempt"])


def _with_uuid(data: dict[str, Any]) -> dict[str, Any] | None:
    text = data["id"]
    if type(text) is not str or len(text) != UUID_LENGTH:
        return None
    try:
        return data | {"id": UUID(text)}
    except ValueError:
        return None


class HeartbeatBody(Body):
    """A heartbeat; without `tasks` it renews all of the worker's."""

    tasks = serializers.ListField(child=Grant(), required=False, max_length=500)

    @staticmethod
    def plain(data: dict[str, Any]) -> dict[str, Any] | None:
        """No body, or an empty list."""
        return data if not data or data == {"tasks": []} else None


class TaskDocument(serializers.Serializer[Any]):
    """A task."""

    id = serializers.UUIDField()
    job_name = serializers.CharField(help_text="Full name of the job, `room:category:Name`.")
    room_id = serializers.CharField()
    status = serializers.ChoiceField(choices=TASK_STATUSES)
    payload = serializers.DictField(child=serializers.JSONField(allow_null=True))
    error = serializers.CharField(allow_null=True)
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    completed_at = serializers.DateTimeField(allow_null=True)
    worker_id = serializers.CharField(allow_null=True)
    attempt = serializers.IntegerField(min_value=0)
    queue_position = serializers.IntegerField(
        required=False,
        min_value=1,
        max_value=1000,
        help_text="While pending: place in the job's queue, counted up to 1,000.",
    )


class ClaimDocument(serializers.Serializer[Any]):
    """What a claim got."""

    task = TaskDocument(allow_null=True, help_text="The oldest one.")
    tasks = TaskDocument(
        many=True, required=False, help_text="All of them, oldest first; there with `limit` alone."
    )


class JobSummaryDocument(serializers.Serializer[Any]):
    """A job in a list."""

    full_name = serializers.CharField()
    category = serializers.CharField()
    name = serializers.CharField()
    worker_count = serializers.IntegerField(min_value=0)


class JobDocument(JobSummaryDocument):
    """A job with its schema."""

    id = serializers.UUIDField()
    room_id = serializers.CharField()
    schema = serializers.DictField(child=serializers.JSONField(allow_null=True))


class RegistrationDocument(JobDocument):
    """A registered job and the worker that offers it."""

    worker_id = serializers.CharField()


class WorkerDocument(serializers.Serializer[Any]):
    """A worker."""

    id = serializers.CharField()
    last_heartbeat = serializers.DateTimeField()
    created_at = serializers.DateTimeField()
    job_count = serializers.IntegerField(min_value=0)


class NewWorkerDocument(WorkerDocument):
    """A worker just made, and how often it is to send heartbeats."""

    heartbeat_interval_seconds = serializers.FloatField()


class HeartbeatDocument(serializers.Serializer[Any]):
    """The reply to a heartbeat."""

    id = serializers.CharField()
    last_heartbeat = serializers.DateTimeField()
    lost = serializers.ListField(
        child=serializers.UUIDField(),
        required=False,
        help_text="Listed tasks that are not, or no longer, this worker's; drop their results.",
    )
    cancelled = serializers.ListField(
        child=serializers.UUIDField(),
        required=False,
        help_text="Listed tasks that somebody cancelled; stop working on them.",
    )


class IdentityDocument(serializers.Serializer[Any]):
    """Who the caller is."""

    id = serializers.CharField()


class FaultDocument(serializers.Serializer[Any]):
    """One fault of the request."""

    detail = serializers.CharField()
    pointer = serializers.CharField(help_text="JSON pointer (RFC 6901) into the body.")


class ProblemDocument(serializers.Serializer[Any]):
    """A problem document (RFC 9457)."""

    type = serializers.CharField(help_text="Address of the problem type's description.")
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    instance = serializers.CharField()
    # DRF's own `errors` is a property of each serializer.
    errors = FaultDocument(many=True, required=False)  # type: ignore[assignment]


class ReportResultDocument(serializers.Serializer[Any]):
    """What became of one report of a list."""

    id = serializers.UUIDField(allow_null=True, help_text="Null when the report holds none.")
    status = serializers.IntegerField(help_text="What the report alone would have been answered.")
    task = TaskDocument(required=False, help_text="The task, when it was 200.")
    problem = ProblemDocument(required=False, help_text="What is wrong, when it was not.")


class ProblemTypeDocument(serializers.Serializer[Any]):
    """A problem type."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    description = serializers.CharField()
