"""Groups failed tasks by their error, apart from the numbers and ids in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple
from uuid import UUID

from django.db import router
from django.db.models import Exists, OuterRef, QuerySet

from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.models import FailedTask, FailureGroup, Task

#: Most tasks that a group keeps, the latest ones; they are those that `retry all` retries.
MAX_TASKS = 10_000
#: Groups that one statement deletes.
CHUNK = 500
#: Most groups that are kept, those with the latest failures, because errors may be any text.
MAX_GROUPS = 1_000
#: Most characters of a line of an error that tell two groups apart.
MAX_LINE = 300
#: Most characters of a line in which numbers and ids are looked for. More than `MAX_LINE`, because
#: an id that is cut is not recognized.
MAX_READ = 2_000

#: UUIDs, hexadecimal numbers that have a digit, and other numbers.
_VARIABLE = re.compile(
    r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"
    r"|\b0x[0-9a-f]+\b"
    r"|\b(?=[a-f]*[0-9])[0-9a-f]{6,}\b"
    r"|(?<!\w)[+-]?(?:\d+(?:[.,]\d+)*|[.]\d+)(?:e[+-]?\d+)?"
    r"|\d+",
    re.IGNORECASE,
)


class Failure(NamedTuple):
    """A failed task."""

    task_id: UUID
    job_id: UUID
    failed_at: datetime
    error: str | None


def normalized(error: str | None) -> str:
    """The first and the last line of an error, with # for numbers and ids.

    A traceback names the exception in its last line, other errors mostly in their first.
    """
    lines = [line.strip() for line in (error or "").splitlines() if line.strip()]
    ends = dict.fromkeys([lines[0], lines[-1]] if lines else [])
    return "\n".join(_VARIABLE.sub("#", line[:MAX_READ])[:MAX_LINE] for line in ends)


def group_id(job_id: UUID, error: str) -> str:
    """The id of the group of a job's tasks with this normalized error."""
    return sha256(f"{job_id} {error}".encode()).hexdigest()[:32]


def record_failures(using: str, failures: Sequence[Failure]) -> None:
    """Add failed tasks to their groups, except those that are in one already.

    Call it under the lock of `StatisticsState`.
    """
    if not failures:
        return
    tasks = FailedTask.objects.using(using)
    # `in_bulk`, because SQLite limits the parameters of a query, and any number of tasks may have
    # ended at one moment.
    known = tasks.in_bulk([failure.task_id for failure in failures], field_name="task_id")
    groups: dict[str, FailureGroup] = {}
    members: list[FailedTask] = []
    for failure in sorted(failures, key=lambda failure: failure.failed_at):
        if failure.task_id in known:
            continue
        error = normalized(failure.error)
        key = group_id(failure.job_id, error)
        group = groups.get(key)
        if group is None:
            group = groups[key] = FailureGroup(
                id=key, job_id=failure.job_id, error=error, count=0, first_at=failure.failed_at
            )
        group.count += 1
        group.last_at, group.example = failure.failed_at, failure.task_id
        members.append(FailedTask(task_id=failure.task_id, group_id=key))
    _save(using, groups)
    tasks.bulk_create(members, batch_size=500)
    _cut(using, groups.values())


def unretried(group: str, using: str | None = None) -> QuerySet[Task]:
    """The tasks of a group that are still failed and were not retried, oldest first."""
    using = using or router.db_for_write(Task)
    members = FailedTask.objects.using(using).filter(group=group).values("task_id")
    retries = Task.objects.using(using).filter(retry_of=OuterRef("pk"))
    tasks: QuerySet[Task] = Task.objects.using(using).filter(
        ~Exists(retries), pk__in=members, status=TaskStatus.FAILED
    )
    return tasks.order_by("pk")


def _save(using: str, groups: dict[str, FailureGroup]) -> None:
    rows = FailureGroup.objects.using(using)
    for known in rows.in_bulk(list(groups)).values():
        group = groups[known.pk]
        group.count += known.count
        group.first_at = min(group.first_at, known.first_at)
        if known.last_at > group.last_at:
            group.last_at, group.example = known.last_at, known.example
    rows.bulk_create(
        groups.values(),
        batch_size=500,
        update_conflicts=True,
        unique_fields=["id"],
        update_fields=["count", "first_at", "last_at", "example"],
    )


def expire_failures(using: str, before: datetime) -> None:
    """Delete groups whose last failure is older, and those beyond `MAX_GROUPS`.

    Call it under the lock of `StatisticsState`.
    """
    groups = FailureGroup.objects.using(using)
    groups.filter(last_at__lt=before).delete()
    latest = groups.order_by("-last_at", "pk").values_list("pk", flat=True)
    while beyond := list(latest[MAX_GROUPS : MAX_GROUPS + CHUNK]):
        groups.filter(pk__in=beyond).delete()


def _cut(using: str, groups: Iterable[FailureGroup]) -> None:
    """Leave each group its latest `MAX_TASKS` tasks."""
    for group in groups:
        if group.count <= MAX_TASKS:
            continue
        tasks = FailedTask.objects.using(using).filter(group=group)
        beyond = tasks.order_by("-pk").values_list("pk", flat=True)[MAX_TASKS : MAX_TASKS + 1]
        for last in beyond:
            tasks.filter(pk__lte=last).delete()
