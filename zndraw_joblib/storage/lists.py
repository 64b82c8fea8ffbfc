"""Lists of tasks over all rooms, newest first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.apps import apps

from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.names import nfc
from zndraw_joblib.storage import statements
from zndraw_joblib.storage.rows import LEFT_OUT, TaskRow, parsed_id, parsed_time

#: Most tasks that are read for a page of a filter without an index. A filter that few tasks satisfy
#: gives short pages, because to fill a page might take a read of the whole table.
MAX_READ = 1000
#: Most bytes of the results of an answer, because 500 results of the largest size would take 128
#: MiB of memory. A page with larger results ends early, and a lookup leaves results out.
MAX_RESULT_BYTES = 8 * 1024 * 1024


class Filter(NamedTuple):
    """Conditions of a list; None is none."""

    status: str | None = None
    job_id: UUID | None = None
    room_id: str | None = None


class Place(NamedTuple):
    """The place of a task in a list."""

    created_at: datetime
    id: UUID


class Found(NamedTuple):
    """Ids of tasks, and the place after which the next page begins; None on the last page."""

    ids: list[UUID]
    last: Place | None


def newest(
    created_by: str | None, filters: Filter, limit: int, before: tuple[datetime, UUID] | None
) -> Found:
    """Up to `limit` tasks that an identity submitted, or all identities for None, newest first.

    `before` is the time and the id of the task before the page.
    """
    using: str = apps.get_model("zndraw_joblib", "Task")._default_manager.write_db
    before_time, before_id = before or (None, None)
    parameters: dict[str, Any] = {
        "job_id": filters.job_id,
        "room_id": filters.room_id and nfc(filters.room_id),
        "before_id": before_id,
    }
    has_index = filters == Filter()
    if created_by is None:
        statement = "newest_of_all"
        parameters["status"] = filters.status
    else:
        statement = "newest_of_creator"
        statuses = [filters.status] if filters.status else [status.value for status in TaskStatus]
        parameters |= {"created_by": created_by, "statuses": statuses, "before_time": before_time}
        has_index = filters._replace(status=None) == Filter()
    most = limit + 1 if has_index else max(limit + 1, MAX_READ)
    read = statements.run(using, statement, most=most, **parameters).rows
    matching = [row for row in read if row[2]]
    # Another page follows this row, if any does.
    last: Sequence[Any] = ()
    if len(matching) > limit:
        last = matching[limit - 1]
    elif len(read) == most:
        last = read[-1]
    return Found(
        [parsed_id(row[0]) for row in matching[:limit]],
        Place(parsed_time(last[1], using), parsed_id(last[0])) if last else None,
    )


def with_small_results(ids: list[UUID]) -> list[UUID]:
    """The first of these tasks, up to `MAX_RESULT_BYTES` of results and at least one of them."""
    return _fitting(ids, _result_sizes(ids) if len(ids) > 1 else {})


def with_results(answers: Sequence[Sequence[TaskRow]]) -> list[list[TaskRow]]:
    """The tasks of several answers with the results of those that are completed.

    An answer has up to `MAX_RESULT_BYTES` of results, and at least one of them; a task beyond has
    `LEFT_OUT` in its place.
    """
    completed = [
        [task.id for task in tasks if task.status == TaskStatus.COMPLETED] for tasks in answers
    ]
    is_one_each = all(len(ids) <= 1 for ids in completed)
    sizes = {} if is_one_each else _result_sizes(list({id for ids in completed for id in ids}))
    fitting = [set(_fitting(ids, sizes)) for ids in completed]
    tasks_of: Any = apps.get_model("zndraw_joblib", "Task")._default_manager
    read: dict[UUID, TaskRow] = tasks_of.read(set().union(*fitting))

    def with_result(task: TaskRow, fits: set[UUID]) -> TaskRow:
        if task.status != TaskStatus.COMPLETED:
            return task
        # A task that was deleted meanwhile is missing from the answer to the next request.
        missing = task._replace(result=LEFT_OUT)
        return read.get(task.id, missing) if task.id in fits else missing

    return [
        [with_result(task, fits) for task in tasks]
        for tasks, fits in zip(answers, fitting, strict=True)
    ]


def _result_sizes(ids: list[UUID]) -> dict[UUID, int]:
    """Bytes of the results of those tasks that have one."""
    using: str = apps.get_model("zndraw_joblib", "Task")._default_manager.write_db
    read = statements.run(using, "result_sizes", ids=ids).rows
    return {parsed_id(task_id): size for task_id, size in read}


def _fitting(ids: list[UUID], sizes: dict[UUID, int]) -> list[UUID]:
    total = 0
    for index, task_id in enumerate(ids):
        total += sizes.get(task_id, 0)
        if index and total > MAX_RESULT_BYTES:
            return ids[:index]
    return ids
