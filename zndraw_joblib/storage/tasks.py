"""Verbs over tasks.

Each change of a status is one of the named statements in ``sql/``, and all of those run here. Of
two concurrent changes the one whose statement returns the row has won. After the commit each verb
sends signals about the rows that it changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import models, transaction
from django.dispatch import Signal

from zndraw_joblib import signals
from zndraw_joblib.lifecycle import LEASED_STATUSES, TERMINAL_STATUSES, TaskStatus, sources
from zndraw_joblib.names import nfc
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage import locking, statements
from zndraw_joblib.storage.clock import TOLERANCE
from zndraw_joblib.storage.fields import json_dumps
from zndraw_joblib.storage.managers import WriteManager
from zndraw_joblib.storage.rows import Report, TaskRow, parsed_id, task_rows
from zndraw_joblib.text import truncate_utf8

#: Largest `queue_position`; places beyond it are not counted, because a count takes time.
MAX_QUEUE_POSITION = 1000
_MOST_AHEAD = MAX_QUEUE_POSITION - 1


#: Reason of `TaskManager.recover_expired` for a sweep.
TIMED_OUT = "timed out"


class TaskQuerySet(models.QuerySet[Any]):
    """Queries over tasks, and moves of all tasks of a query.

    A move first reads the attempts of the tasks. It then changes the tasks whose attempt is still
    the same and whose status allows the move, and returns these tasks as they are now.
    """

    def start(self) -> list[TaskRow]:
        """Claimed -> running."""
        return self._move(TaskStatus.RUNNING)

    def complete(self) -> list[TaskRow]:
        """Running -> completed."""
        return self._move(TaskStatus.COMPLETED)

    def fail(self, error: str | None) -> list[TaskRow]:
        """Running -> failed."""
        return self._move(TaskStatus.FAILED, error)

    def cancel(self, error: str | None = None) -> list[TaskRow]:
        """Pending, claimed or running -> cancelled."""
        return self._move(TaskStatus.CANCELLED, error)

    def requeue(self) -> list[TaskRow]:
        """Claimed or running -> pending; the attempt stays until the next claim."""
        return self._move(TaskStatus.PENDING)

    def _move(self, status: TaskStatus, error: str | None = None) -> list[TaskRow]:
        # The router's database for writes, because a replica may lag behind.
        using = self.select_for_update().db
        attempts = self.using(using).order_by().values_list("pk", "attempt")
        reports = [Report(pk, status, attempt, error) for pk, attempt in attempts]
        manager: TaskManager = self.model._default_manager.db_manager(using)
        return manager.move(reports)


class TaskManager(WriteManager.from_queryset(TaskQuerySet)):  # type: ignore[misc]
    """Verbs over the table of tasks; they run on the database that the router writes to."""

    def enqueue(
        self,
        job: Any,
        room_id: str,
        created_by: str,
        retries: int,
        payloads: Mapping[UUID, Any],
    ) -> list[TaskRow]:
        """Insert tasks of a job; returns them as pending tasks, in the order of their ids.

        Inserts none, and returns an empty list, if the job was retired or its schema changed since
        `job` was read.
        """
        using = self.write_db
        tasks = [
            {"id": task_id, "payload": json_dumps(payload)} for task_id, payload in payloads.items()
        ]
        inserted = statements.run(
            using,
            "insert_tasks",
            job_id=job.pk,
            revision=job.revision,
            room_id=nfc(room_id),
            created_by=created_by,
            retries_left=retries,
            tasks=statements.records(using, tasks),
            most_ahead=_MOST_AHEAD,
        )
        tasks_ahead = inserted.columns.index("tasks_ahead")
        ahead = inserted.rows[0][tasks_ahead] if inserted.rows else 0
        rows = sorted(task_rows(using, inserted), key=lambda task: task.id.int)
        placed = [
            task._replace(queue_position=min(ahead + number, MAX_QUEUE_POSITION))
            for number, task in enumerate(rows, 1)
        ]
        return self._announce(placed, signals.task_submitted)

    def grant(
        self,
        worker_id: str,
        identity: str,
        lease: timedelta,
        limit: int = 1,
        *,
        start: bool = False,
    ) -> list[TaskRow]:
        """Grant the worker up to `limit` of the oldest pending tasks of its jobs, oldest first.

        The attempt goes up by one and the lease ends `lease` from now. With `start` the tasks are
        running at once. The result is empty only if the jobs have no pending task, or other claims
        have locked all of them.
        """
        using = self.write_db
        parameters = {
            "worker_id": worker_id,
            "identity": identity,
            "lease_seconds": lease.total_seconds(),
            "start": start,
        }
        granted: list[TaskRow] = []
        if limit > 1:
            found = statements.run(using, "grant_tasks", limit=limit, **parameters)
            granted = task_rows(using, found)
        if not granted:
            found = statements.run(using, "grant_task", limit=1, **parameters)
            granted = task_rows(using, found)
        granted.sort(key=lambda task: (task.created_at, task.id))
        started = [signals.task_started] if start else []
        return self._announce(granted, signals.task_claimed, *started)

    def move(self, reports: Sequence[Report], identity: str | None = None) -> list[TaskRow]:
        """Carry out reports, at most one for each task; returns the tasks that moved.

        A task moves if its status allows it and its attempt is that of the report. With an
        `identity` only claimed and running tasks of its workers move.
        """
        moved: list[TaskRow] = []
        for statement, statuses, signal in _MOVES:
            matching = [report for report in reports if report.status in statuses]
            if matching:
                rows = self._run_reports(statement, matching, identity)
                moved += self._announce(rows, signal)
        return moved

    def _run_reports(
        self, statement: str, reports: Sequence[Report], identity: str | None
    ) -> list[TaskRow]:
        using = self.write_db
        limit = get_settings().max_error_bytes
        listed = [
            {
                "id": report.task_id,
                "attempt": report.attempt,
                "status": report.status.value,
                # Cleaned and cut, because a refusal would lose the report.
                "error": report.error and truncate_utf8(report.error, limit),
                "legal_from": _legal_from(report.status, held_only=identity is not None),
            }
            for report in reports
        ]
        moved = statements.run(
            using, statement, reports=statements.records(using, listed), identity=identity
        )
        return task_rows(using, moved)

    def cap_leases(self, lease: timedelta) -> int:
        """Make leases that end later than `lease` from now end then, up to `BATCH` of them.

        Returns how many. Such leases were granted before the clock went back, or by a longer
        setting. They are shortened and not ended, because most of their workers are alive.
        """
        capped = statements.run(
            self.write_db,
            "cap_leases",
            lease_seconds=lease.total_seconds(),
            longest_seconds=(lease + TOLERANCE).total_seconds(),
            limit=locking.BATCH,
        )
        return len(capped.rows)

    def recover_expired(self, reason: str) -> tuple[list[TaskRow], list[TaskRow]]:
        """Recover up to `BATCH` claimed and `BATCH` running tasks whose lease is over.

        Returns the tasks that were claimed and the tasks that ran. Claimed tasks are pending again.
        Running ones are, too, while retries are left, else failed with ``Worker '<id>' <reason>``.
        Rows that other transactions have locked are skipped.
        """
        limit = {"limit": locking.BATCH}
        return (
            self._recover("requeue_expired_claims", **limit),
            self._recover("end_expired_runs", reason=reason, **limit),
        )

    def replace_error(self, task: TaskRow, error: str) -> bool:
        """Replace the error of a task that ended; returns whether the task was still as read."""
        rows = self.using(self.write_db).filter(pk=task.id, attempt=task.attempt)
        return bool(rows.filter(status=task.status, error=task.error).update(error=error))

    def recover_from(self, worker_id: str, reason: str) -> tuple[list[TaskRow], list[TaskRow]]:
        """Recover up to `BATCH` claimed and `BATCH` running tasks of a worker that leaves.

        As `recover_expired`, but it waits for rows that other transactions have locked.
        """
        limit = {"limit": locking.BATCH, "worker_id": worker_id}
        return (
            self._recover("requeue_claims_of_worker", **limit),
            self._recover("end_runs_of_worker", reason=reason, **limit),
        )

    def _recover(self, statement: str, **parameters: Any) -> list[TaskRow]:
        using = self.write_db
        tasks = task_rows(using, statements.run(using, statement, **parameters))
        self._announce([task for task in tasks if task.is_terminal], signals.task_finished)
        self._announce([task for task in tasks if not task.is_terminal], signals.task_requeued)
        return tasks

    def renew(
        self,
        worker_id: str,
        lease: timedelta,
        grants: Iterable[tuple[UUID, int]] | None = None,
    ) -> set[tuple[UUID, int]]:
        """Make leases of a worker's tasks end `lease` from now; returns the renewed grants.

        `grants` are pairs of id and attempt, as in the result; None renews all of the worker's.
        """
        using = self.write_db
        parameters: dict[str, Any] = {
            "worker_id": worker_id,
            "lease_seconds": lease.total_seconds(),
        }
        if grants is None:
            renewed = statements.run(using, "renew_all_leases", **parameters)
        else:
            listed = [{"id": task_id, "attempt": attempt} for task_id, attempt in grants]
            parameters["grants"] = statements.records(using, listed)
            renewed = statements.run(using, "renew_leases", **parameters)
        return {(parsed_id(task_id), attempt) for task_id, attempt in renewed.rows}

    def read(self, ids: Iterable[UUID]) -> dict[UUID, TaskRow]:
        """The tasks with these ids that exist, by id, with their queue positions."""
        using = self.write_db
        match list(ids):
            case []:
                return {}
            case [task_id]:
                parameters: dict[str, Any] = {"id": task_id}
                statement = "read_task"
            case wanted:
                parameters = {"ids": wanted}
                statement = "read_tasks"
        found = statements.run(using, statement, most_ahead=_MOST_AHEAD, **parameters)
        return {task.id: task for task in task_rows(using, found)}

    def listed(self, ids: Sequence[UUID]) -> list[TaskRow]:
        """The tasks with these ids that exist, in the order of the ids."""
        tasks = self.read(ids)
        return [tasks[task_id] for task_id in ids if task_id in tasks]

    def newest(
        self, room_id: str, limit: int, before: tuple[datetime, UUID] | None = None
    ) -> list[UUID]:
        """Ids of up to `limit` tasks of a room, newest first; `before` is a time and id."""
        before_time, before_id = before or (None, None)
        found = statements.run(
            self.write_db,
            "newest_tasks",
            statuses=[status.value for status in TaskStatus],
            room_id=nfc(room_id),
            before_time=before_time,
            before_id=before_id,
            limit=limit,
        )
        return [parsed_id(task_id) for (task_id,) in found.rows]

    def _announce(self, tasks: list[TaskRow], *changes: Signal) -> list[TaskRow]:
        """Send these signals about the tasks after the commit; returns the tasks."""
        using = self.write_db

        def send() -> None:
            for signal in changes:
                if signal.has_listeners(self.model):
                    for task in tasks:
                        signal.send_robust(self.model, task=self._instance(task, using))
                signals.tasks_changed.send_robust(self.model, change=signal, tasks=tasks)

        if tasks:
            transaction.on_commit(send, using=using, robust=True)
        return tasks

    def _instance(self, task: TaskRow, using: str) -> Any:
        """The model instance of a row, because the host's receivers expect one."""
        names = [field.attname for field in self.model._meta.concrete_fields]
        instance = self.model.from_db(using, names, [getattr(task, name) for name in names])
        # Set here, because the cached property would read the job from the database.
        instance.job_name = task.job_name
        return instance


#: The statement of each move, the statuses that it moves to, and the signal that it sends.
_MOVES = (
    ("start_tasks", {TaskStatus.RUNNING}, signals.task_started),
    ("finish_tasks", TERMINAL_STATUSES, signals.task_finished),
    ("requeue_tasks", {TaskStatus.PENDING}, signals.task_requeued),
)


def _legal_from(status: TaskStatus, *, held_only: bool) -> list[str]:
    """The statuses from which a task may move; `held_only` leaves out pending."""
    legal = sources(status) & LEASED_STATUSES if held_only else sources(status)
    return sorted(legal)
