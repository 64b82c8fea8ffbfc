"""Rows that the named statements return: plain values instead of model instances."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cache
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connections
from django.utils.timezone import make_aware

from zndraw_joblib.lifecycle import LEASED_STATUSES, TERMINAL_STATUSES, TaskStatus, sources
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage.fields import json_dumps, json_loads
from zndraw_joblib.storage.statements import Result
from zndraw_joblib.text import truncate_utf8

#: The `result` of a completed task that was not read, because the answer would be too large.
LEFT_OUT = object()


class TaskRow(NamedTuple):
    """A task as a statement read or wrote it; the fields are those of the model `Task`.

    `job_name` is the full name of its job. `queue_position` is the place of a pending task in the
    queue of its job, from 1; None if the task is not due yet, or the statement does not compute it.
    `result` is None also where the statement leaves it out, and `LEFT_OUT` if it was not read
    because the answer would be too large.
    """

    id: UUID
    job_id: UUID
    job_name: str
    room_id: str
    created_by: str
    payload: Any
    status: str
    error: str | None
    attempt: int
    retries: int | None
    retries_left: int
    timeout_seconds: float | None
    retry_of_id: UUID | None
    worker_id: str | None
    worker_identity: str
    lease_expires_at: datetime | None
    created_at: datetime
    run_at: datetime | None
    due_at: datetime
    claimed_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    progress: float | None
    message: str | None
    revision: int
    changed_at: datetime
    log_size: int
    traceparent: str | None
    watched_until: datetime | None
    result: Any = None
    queue_position: int | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether the task ended."""
        return self.status in TERMINAL_STATUSES

    def attributes(self) -> dict[str, Any]:
        """What spans and log records tell about the task; never its payload or result."""
        return {
            "task_id": str(self.id),
            "job": self.job_name,
            "room": self.room_id,
            "attempt": self.attempt,
            "worker_id": self.worker_id,
            "status": self.status,
        }


def pending_row(job: Any, room_id: str, created_by: str) -> TaskRow:
    """The values that all new tasks of a submit share; fields that differ between them are None."""
    values: dict[str, Any] = dict.fromkeys(TaskRow._fields) | {
        "job_id": job.pk,
        "job_name": job.full_name,
        "room_id": room_id,
        "created_by": created_by,
        "status": TaskStatus.PENDING.value,
        "attempt": 0,
        "worker_identity": "",
        "revision": 0,
        "log_size": 0,
    }
    return TaskRow(**values)


class NewTask(NamedTuple):
    """A task that is about to be inserted.

    `retries` None leaves it to the job and the settings. `run_at`, or `delay` in seconds, says
    when it is due; both None for at once. `timeout_seconds` limits one attempt. `traceparent`
    is the trace context of the submit. `retry_of` is the ended task that this one repeats.
    """

    payload: Any
    retries: int | None = None
    run_at: datetime | None = None
    delay: float | None = None
    timeout_seconds: float | None = None
    traceparent: str | None = None
    retry_of: UUID | None = None

    def record(self, task_id: UUID) -> dict[str, Any]:
        """The task as a record of a statement, without the fields that are None."""
        record = {"id": task_id, "payload": json_dumps(self.payload)}
        # Compared at once, because nearly all tasks have a payload only.
        if self[1:] != _NO_OPTIONS:
            options = zip(self._fields[1:], self[1:], strict=True)
            record |= {name: value for name, value in options if value is not None}
        return record


#: The fields of a `NewTask` after its payload, where none is given.
_NO_OPTIONS = NewTask(None)[1:]


class Report(NamedTuple):
    """A change of a task's status that its worker, its submitter or an operator requests.

    With `attempt` None the worker's identity alone is the fence. `error` says why the task failed
    or was cancelled; beside completed it is a remark. `result`, the text of its JSON, goes with
    completed, `progress` (0 to 1) and `message` with running. A failed task is tried again while
    retries are left and `retry` is not False: after its backoff, or after `retry_after` seconds.
    """

    task_id: UUID
    status: TaskStatus
    attempt: int | None = None
    error: str | None = None
    result: str | None = None
    progress: float | None = None
    message: str | None = None
    retry: bool = True
    retry_after: float | None = None

    def record(self, of_running: bool, held_only: bool) -> dict[str, Any]:
        """The report as a record of a statement; see `legal_from`."""
        record: dict[str, Any] = {
            "id": self.task_id,
            "attempt": self.attempt,
            "status": self.status.value,
            "legal_from": legal_from(self.status, of_running=of_running, held_only=held_only),
        }
        if error := self.error_text:
            record["error"] = error
        if self.result is not None:
            record["result"] = self.result
        if self.progress is not None:
            record["progress"] = self.progress
        if self.message is not None:
            record["message"] = self.message
        if not self.retry:
            record["final"] = True
        return record

    @property
    def error_text(self) -> str | None:
        """The error as it is stored; None without one, or for an empty one.

        Cleaned and cut, because a refusal would lose the report.
        """
        if not self.error:
            return None
        return truncate_utf8(self.error, get_settings().max_error_bytes)

    @property
    def has_progress(self) -> bool:
        """Whether the report says how far a running task is."""
        return self.progress is not None or self.message is not None


@cache
def legal_from(status: TaskStatus, *, of_running: bool, held_only: bool) -> list[str]:
    """The statuses from which a task may move; running alone for reports `of_running` tasks.

    `held_only` leaves out pending.
    """
    legal = frozenset({TaskStatus.RUNNING}) if of_running else sources(status)
    return sorted(legal & LEASED_STATUSES if held_only else legal)


class Heartbeat(NamedTuple):
    """A heartbeat as it was written, and whether the worker has claimed or running tasks."""

    worker_id: str
    last_heartbeat: datetime
    has_tasks: bool


def task_rows(using: str, result: Result) -> list[TaskRow]:
    """The rows of a result with every column of the task table and `job_name`."""
    make_row = _row_maker(result.columns, connections[using].vendor)
    return [make_row(using, row) for row in result.rows]


def column_values(using: str, result: Result) -> list[dict[str, Any]]:
    """The rows of a result with some columns of the task table, as values by column."""
    rows = (dict(zip(result.columns, row, strict=True)) for row in result.rows)
    if connections[using].vendor != "sqlite":
        return list(rows)
    return [
        {
            name: value if value is None or name not in _SQLITE else _SQLITE[name](value, using)
            for name, value in row.items()
        }
        for row in rows
    ]


@cache
def _row_maker(columns: tuple[str, ...], vendor: str) -> Callable[[str, Sequence[Any]], TaskRow]:
    """A function that makes a row. Unknown columns, of a newer server's migration, are ignored.

    A statement may leave out the last fields, which have defaults.

    Raises
    ------
    LookupError
        The statement leaves out another field.
    """
    names = [name for name in TaskRow._fields if name in columns]
    # By position below, where a missing value would give its place to the next one.
    if missing := [name for name in TaskRow._fields[: len(names)] if name not in names]:
        raise LookupError(f"the statement returns no {', '.join(missing)}")
    values = itemgetter(*map(columns.index, names))
    if vendor != "sqlite":
        texts = [names.index(name) for name in ("payload", "result") if name in names]

        def from_postgresql(using: str, row: Sequence[Any]) -> TaskRow:
            fields = list(values(row))
            for text in texts:
                if fields[text] is not None:
                    fields[text] = json_loads(fields[text])
            return TaskRow(*fields)

        return from_postgresql
    converters = [_SQLITE.get(name) for name in names]

    def from_sqlite(using: str, row: Sequence[Any]) -> TaskRow:
        return TaskRow(
            *(
                value if convert is None or value is None else convert(value, using)
                for value, convert in zip(values(row), converters, strict=True)
            )
        )

    return from_sqlite


def parsed_time(value: str | datetime, using: str) -> datetime:
    """A time as Django reads it from SQLite, where times are text without an offset."""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    connection = connections[using]
    return make_aware(moment, connection.timezone) if moment.tzinfo is None else moment


def parsed_id(value: UUID | str) -> UUID:
    """An id of either database; SQLite keeps ids as text."""
    return value if isinstance(value, UUID) else UUID(value)


_SQLITE: dict[str, Callable[[Any, str], Any]] = {
    "id": lambda value, using: UUID(value),
    "job_id": lambda value, using: UUID(value),
    "retry_of_id": lambda value, using: UUID(value),
    "payload": lambda value, using: json_loads(value),
    "result": lambda value, using: json_loads(value),
    "lease_expires_at": parsed_time,
    "created_at": parsed_time,
    "run_at": parsed_time,
    "due_at": parsed_time,
    "claimed_at": parsed_time,
    "started_at": parsed_time,
    "completed_at": parsed_time,
    "changed_at": parsed_time,
    "watched_until": parsed_time,
}
