"""Queries of the waiters, called from a thread; each releases its database connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar
from uuid import UUID

from django.db import router
from django.db.models import OuterRef, Subquery

from zndraw_joblib.lifecycle import TERMINAL_STATUSES, TaskStatus
from zndraw_joblib.models import Job, Task, TaskLogChunk, Worker
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage.clock import Now
from zndraw_joblib.storage.connections import release_connections
from zndraw_joblib.storage.lists import with_results
from zndraw_joblib.storage.logs import LogPart
from zndraw_joblib.storage.rows import TaskRow
from zndraw_joblib.storage.waits import Grant, GrantState, Revision, grant_states, watch
from zndraw_joblib.tenancy import in_tenant

Item = TypeVar("Item")
Key = TypeVar("Key")
Found = TypeVar("Found")

#: Most ids of one query.
CHUNK = 1000

#: A function that returns the tasks which the caller may read.
Visible = Callable[[Sequence[TaskRow]], list[TaskRow]]
#: The ids of tasks, which of them the caller may read, and whether the results are read.
TasksKey = tuple[tuple[UUID, ...], Visible, bool]
#: A task and an offset in its log.
LogKey = tuple[UUID, int]


def reader(tenant: str | None, query: Callable[[list[Key]], Found]) -> Callable[[list[Key]], Found]:
    """The query, for the rows of a tenant."""

    def read(keys: list[Key]) -> Found:
        with in_tenant(tenant):
            return query(keys)

    return read


def ended_tasks(ids: list[UUID]) -> set[UUID]:
    """The tasks among these that have ended or were deleted."""
    try:
        tasks = Task.objects.using(router.db_for_write(Task))
        ended = set(ids)
        for chunk in _chunks(ids):
            unfinished = tasks.filter(pk__in=chunk).exclude(status__in=TERMINAL_STATUSES)
            ended.difference_update(unfinished.values_list("pk", flat=True))
        return ended
    finally:
        release_connections()


def jobs_with_pending_tasks(ids: list[UUID]) -> set[UUID]:
    """The jobs among these that have pending tasks."""
    try:
        return _jobs_with_pending_tasks(ids)
    finally:
        release_connections()


def watched_revisions(ids: list[UUID]) -> list[Revision | UUID]:
    """The revisions of tasks whose changes are published from now on, and the ids of missing ones.

    As `storage.waits.watch`.
    """
    try:
        found: list[Revision | UUID] = []
        for chunk in _chunks(ids):
            read = watch(Task.objects.write_db, chunk)
            found += [*read, *set(chunk).difference(one.task_id for one in read)]
        return found
    finally:
        release_connections()


def states_of_grants(held: list[tuple[Grant, ...]]) -> list[list[GrantState]]:
    """The states of the grants, in the order of the entries."""
    try:
        states: list[GrantState] = []
        for chunk in _chunks([grant for grants in held for grant in grants]):
            states += grant_states(Task.objects.write_db, chunk)
        following = iter(states)
        return [list(islice(following, len(grants))) for grants in held]
    finally:
        release_connections()


def read_tasks(keys: list[TasksKey]) -> list[list[TaskRow] | Exception]:
    """For each key the tasks that exist and its caller may read, in the order of its ids.

    An exception of the host's hook is the result of its key, because it is not the other callers'.
    Results of several tasks are bounded as in `storage.lists.with_results`.
    """
    try:
        found: dict[UUID, TaskRow] = {}
        single = {ids[0] for ids, _, include in keys if include and len(ids) == 1}
        without = {task_id for ids, _, _ in keys for task_id in ids} - single
        for wanted, include_result in ((single, True), (without, False)):
            for chunk in _chunks(list(wanted)):
                found.update(Task.objects.read(chunk, include_result=include_result))
        answers = [
            _visible(visible, [found[task_id] for task_id in ids if task_id in found])
            for ids, visible, _ in keys
        ]
        bounded = {
            index: tasks
            for index, ((ids, _, include), tasks) in enumerate(zip(keys, answers, strict=True))
            if include and len(ids) > 1 and not isinstance(tasks, Exception)
        }
        for index, tasks in zip(bounded, with_results(list(bounded.values())), strict=True):
            answers[index] = tasks
        return answers
    finally:
        release_connections()


def longer_logs(keys: list[LogKey]) -> set[LogKey]:
    """The keys whose log has text beyond the offset, or whose task has ended or was deleted."""
    try:
        tasks = Task.objects.using(router.db_for_write(Task))
        unfinished: dict[UUID, int] = {}
        for chunk in _chunks(list({task_id for task_id, _ in keys})):
            found = tasks.filter(pk__in=chunk).exclude(status__in=TERMINAL_STATUSES)
            unfinished.update(found.values_list("pk", "log_size"))
        return {
            (task_id, offset)
            for task_id, offset in keys
            if task_id not in unfinished or unfinished[task_id] > offset
        }
    finally:
        release_connections()


def read_logs(keys: list[tuple[LogKey, Visible]]) -> list[LogPart | Exception | None]:
    """For each key the part of the log, None if its caller may not read the task, or it is missing.

    An exception of the host's hook is the result of its key, because it is not the other callers'.
    """
    try:
        tasks: dict[UUID, TaskRow] = {}
        for chunk in _chunks(list({task_id for (task_id, _), _ in keys})):
            tasks.update(Task.objects.read(chunk, include_result=False))
        parts: dict[LogKey, LogPart | None] = {}
        found: list[LogPart | Exception | None] = []
        for key, visible in keys:
            readable = _visible(visible, [tasks[key[0]]] if key[0] in tasks else [])
            if isinstance(readable, Exception):
                found.append(readable)
            elif not readable:
                found.append(None)
            else:
                if key not in parts:
                    parts[key] = TaskLogChunk.objects.read(*key, get_settings().max_log_bytes)
                found.append(parts[key])
        return found
    finally:
        release_connections()


def _visible(visible: Visible, tasks: list[TaskRow]) -> list[TaskRow] | Exception:
    try:
        return visible(tasks)
    except Exception as error:
        return error


def workers_worth_claiming(ids: list[str]) -> list[bool]:
    """For each worker whether it was removed, or one of its jobs has pending tasks."""
    try:
        known = Worker.objects.using(router.db_for_write(Task)).filter(pk__in=set(ids))
        jobs: dict[str, set[UUID | None]] = {}
        for worker_id, job_id in known.values_list("pk", "links__job"):
            jobs.setdefault(worker_id, set()).add(job_id)
        pending = _jobs_with_pending_tasks(
            list({job_id for offered in jobs.values() for job_id in offered if job_id})
        )
        return [
            worker_id not in jobs or not jobs[worker_id].isdisjoint(pending) for worker_id in ids
        ]
    finally:
        release_connections()


def _jobs_with_pending_tasks(ids: list[UUID]) -> set[UUID]:
    pending = Task.objects.filter(job=OuterRef("pk"), status=TaskStatus.PENDING, due_at__lte=Now())
    # The first by the index of claims, because PostgreSQL may read the table to find any one.
    head = Subquery(pending.order_by("due_at", "id").values("pk")[:1])
    jobs = Job.objects.using(router.db_for_write(Task)).alias(head=head).filter(head__isnull=False)
    found: set[UUID] = set()
    for chunk in _chunks(ids):
        found.update(jobs.filter(pk__in=chunk).values_list("pk", flat=True))
    return found


def _chunks(items: list[Item]) -> Iterator[list[Item]]:
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]
