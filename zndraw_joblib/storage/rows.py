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

from zndraw_joblib.lifecycle import TERMINAL_STATUSES, TaskStatus
from zndraw_joblib.storage.fields import json_loads
from zndraw_joblib.storage.statements import Result


class TaskRow(NamedTuple):
    """A task as a statement read or wrote it; the fields are those of the model `Task`.

    `job_name` is the full name of its job. `queue_position` is the place of a pending task in the
    queue of its job, from 1; None if the statement does not compute it.
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
    retries_left: int
    worker_id: str | None
    worker_identity: str
    lease_expires_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    queue_position: int | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether the task ended."""
        return self.status in TERMINAL_STATUSES


class Report(NamedTuple):
    """A change of a task's status that its worker, its submitter or an operator requests.

    With `attempt` None the worker's identity alone is the fence. `error` says why the task failed
    or was cancelled; beside completed it is a remark.
    """

    task_id: UUID
    status: TaskStatus
    attempt: int | None = None
    error: str | None = None


class Heartbeat(NamedTuple):
    """A heartbeat as it was written, and whether the worker has claimed or running tasks."""

    worker_id: str
    last_heartbeat: datetime
    has_tasks: bool


def task_rows(using: str, result: Result) -> list[TaskRow]:
    """The rows of a result with every column of the task table and `job_name`."""
    make_row = _row_maker(result.columns, connections[using].vendor)
    return [make_row(using, row) for row in result.rows]


@cache
def _row_maker(columns: tuple[str, ...], vendor: str) -> Callable[[str, Sequence[Any]], TaskRow]:
    """A function that makes a row. Unknown columns, of a newer server's migration, are ignored.

    A statement may leave out the last fields, which have defaults.
    """
    names = [name for name in TaskRow._fields if name in columns]
    values = itemgetter(*map(columns.index, names))
    if vendor != "sqlite":
        payload = names.index("payload")

        def from_postgresql(using: str, row: Sequence[Any]) -> TaskRow:
            fields = list(values(row))
            fields[payload] = json_loads(fields[payload])
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
    "payload": lambda value, using: json_loads(value),
    "lease_expires_at": parsed_time,
    "created_at": parsed_time,
    "started_at": parsed_time,
    "completed_at": parsed_time,
}
