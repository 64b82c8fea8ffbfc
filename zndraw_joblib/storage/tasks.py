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
from zndraw_joblib.lifecycle import TERMINAL_STATUSES, AttemptOutcome, TaskStatus
from zndraw_joblib.names import nfc
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage import attempts, locking, statements
from zndraw_joblib.storage.clock import Now
from zndraw_joblib.storage.managers import WriteManager
from zndraw_joblib.storage.rows import (
    NewTask,
    Report,
    TaskRow,
    column_values,
    parsed_id,
    pending_row,
    task_rows,
)

#: Largest `queue_position`; places beyond it are not counted, because a count takes time.
MAX_QUEUE_POSITION = 1000
_MOST_AHEAD = MAX_QUEUE_POSITION - 1


#: Reason of `TaskManager.recover_expired` for a sweep.
TIMED_OUT = "timed out"


#: A task as it is now, and the outcome of the attempt that was recovered.
Recovered = tuple[TaskRow, AttemptOutcome]


def sweep_errors(task: TaskRow) -> set[str]:
    """The errors with which a sweep may have ended the task."""
    errors = {attempts.lost_error(task.worker_id, TIMED_OUT)}
    if task.timeout_seconds:
        errors.add(attempts.too_long_error(task.timeout_seconds))
    return errors


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
        lost_retries: int,
        new: Mapping[UUID, NewTask],
    ) -> list[TaskRow]:
        """Insert tasks of a job; returns them as pending tasks, in the order of their ids.

        `lost_retries` are those of tasks for which neither the submit nor the job has retries.

        Inserts none, and returns an empty list, if the job was retired or its schema changed since
        `job` was read.
        """
        using = self.write_db
        tasks = [task.record(task_id) for task_id, task in new.items()]
        inserted = statements.run(
            using,
            "insert_tasks",
            job_id=job.pk,
            revision=job.revision,
            room_id=nfc(room_id),
            created_by=created_by,
            lost_retries=lost_retries,
            tasks=statements.records(using, tasks),
            most_ahead=_MOST_AHEAD,
        )
        pending = pending_row(job, nfc(room_id), created_by)
        found = sorted(column_values(using, inserted), key=lambda values: values["id"].int)
        ahead = found[0]["tasks_ahead"] if found else 0
        placed = []
        for values in found:
            del values["tasks_ahead"]
            if values["due_at"] <= values["created_at"]:
                ahead += 1
                values["queue_position"] = min(ahead, MAX_QUEUE_POSITION)
            task = new[values["id"]]
            values |= {
                "payload": task.payload,
                "timeout_seconds": task.timeout_seconds,
                "changed_at": values["created_at"],
            }
            placed.append(pending._replace(**values))
        return self.announce(placed, signals.task_submitted)

    def grant(
        self,
        worker_id: str,
        identity: str,
        lease: timedelta,
        limit: int = 1,
        *,
        start: bool = False,
    ) -> list[TaskRow]:
        """Grant the worker up to `limit` of the longest due tasks of its jobs, in that order.

        The attempt goes up by one and the lease ends `lease` from now. With `start` the tasks are
        running at once. The result is empty only if the jobs have no due task, or other claims
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
        granted.sort(key=lambda task: (task.due_at, task.id))
        started = [signals.task_started] if start else []
        return self.announce(granted, signals.task_claimed, *started)

    def move(self, reports: Sequence[Report], identity: str | None = None) -> list[TaskRow]:
        """Carry out reports, at most one for each task; returns the tasks that moved.

        A task moves if its status allows it and its attempt is that of the report. With an
        `identity` only claimed and running tasks of its workers move. A failed task that has
        retries left is pending again.
        """
        by_status: dict[TaskStatus, list[Report]] = {}
        for report in reports:
            by_status.setdefault(report.status, []).append(report)
        running = by_status.get(TaskStatus.RUNNING, [])
        ended = [report for report in reports if report.status in TERMINAL_STATUSES]
        requeued = by_status.get(TaskStatus.PENDING, [])
        moved: list[TaskRow] = []
        if running:
            moved += self._run(running, identity)
        if ended:
            finished = self._run_reports("finish_tasks", ended, identity)
            moved += self.announce(finished, signals.task_finished)
            if len(finished) < len(ended) and TaskStatus.FAILED in by_status:
                known = {task.id for task in finished}
                left = [
                    report
                    for report in by_status[TaskStatus.FAILED]
                    if report.retry and report.task_id not in known
                ]
                moved += self._end_reported(left, attempts.failed(left), identity)
        if requeued:
            moved += self._end_reported(requeued, attempts.requeued, identity)
        return moved

    def _run(self, reports: Sequence[Report], identity: str | None) -> list[TaskRow]:
        """Carry out reports that tasks are running, with or without progress."""
        progress = [report for report in reports if report.has_progress]
        # Progress first, because most of its reports are about tasks that run already.
        recorded = self._record_progress(progress, identity)
        known = {task.id for task in recorded}
        starts = [report for report in reports if report.task_id not in known]
        if not starts:
            return recorded
        started = self._run_reports("start_tasks", starts, identity)
        self.announce(started, signals.task_started)
        of_progress = {report.task_id for report in progress}
        begun = {task.id for task in started} & of_progress
        rest = [report for report in progress if report.task_id in begun]
        return [
            *recorded,
            *self._record_progress(rest, identity),
            *(task for task in started if task.id not in begun),
        ]

    def _record_progress(self, reports: Sequence[Report], identity: str | None) -> list[TaskRow]:
        if not reports:
            return []
        using = self.write_db
        tasks = self._run_reports("record_progress", reports, identity)
        workers = sorted({task.worker_id for task in tasks if task.worker_id})
        if workers:
            statements.run(using, "touch_workers", worker_ids=workers)
        return self.announce(tasks, signals.task_progressed)

    def _run_reports(
        self, statement: str, reports: Sequence[Report], identity: str | None
    ) -> list[TaskRow]:
        using = self.write_db
        held_only = identity is not None
        listed = [report.record(statement == "record_progress", held_only) for report in reports]
        parameters: dict[str, Any] = {"identity": identity}
        if statement == "record_progress":
            parameters["lease_seconds"] = get_settings().worker_timeout_seconds
        moved = statements.run(
            using, statement, reports=statements.records(using, listed), **parameters
        )
        return task_rows(using, moved)

    def _end_reported(
        self, reports: Sequence[Report], decide: attempts.Decide, identity: str | None
    ) -> list[TaskRow]:
        if not reports:
            return []
        using = self.write_db
        listed = [report.record(False, identity is not None) for report in reports]
        ended = attempts.end_attempts(
            using,
            "lock_reported",
            decide,
            reports=statements.records(using, listed),
            identity=identity,
        )
        lost = any(outcome != AttemptOutcome.FAILED for _, outcome in ended)
        return self.announce([task for task, _ in ended], signals.task_requeued, lost=lost)

    def recover_expired(self, reason: str) -> list[Recovered]:
        """Recover up to `BATCH` claimed and running tasks whose lease is over.

        Returns the tasks as they are now, each with the outcome of its attempt.

        Claimed tasks are pending again. Running ones are, too, while retries are left, else failed
        with ``Worker '<id>' <reason>``. Rows that other transactions have locked are skipped.
        """
        return self._recover("lock_expired", reason, limit=locking.BATCH)

    def replace_error(self, task: TaskRow, error: str) -> bool:
        """Replace the error of a task that ended; returns whether the task was still as read."""
        rows = self.using(self.write_db).filter(pk=task.id, attempt=task.attempt)
        rows = rows.filter(status=task.status, error=task.error)
        return bool(rows.update(error=error, revision=models.F("revision") + 1, changed_at=Now()))

    def recover_from(self, worker_id: str, reason: str) -> list[Recovered]:
        """Recover up to `BATCH` claimed and running tasks of a worker that leaves.

        As `recover_expired`, but it waits for rows that other transactions have locked.
        """
        return self._recover("lock_of_worker", reason, limit=locking.BATCH, worker_id=worker_id)

    def _recover(self, lock: str, reason: str, **parameters: Any) -> list[Recovered]:
        using = self.write_db
        ended = attempts.end_attempts(using, lock, attempts.lost(reason), **parameters)
        tasks = [task for task, _ in ended]
        failed = [task for task in tasks if task.is_terminal]
        requeued = [task for task in tasks if not task.is_terminal]
        self.announce(failed, signals.task_finished, lost=True)
        self.announce(requeued, signals.task_requeued, lost=True)
        return ended

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

    def read(
        self, ids: Iterable[UUID], *, include_result: bool = True, include_payload: bool = True
    ) -> dict[UUID, TaskRow]:
        """The tasks with these ids that exist, by id, with their queue positions.

        The payload is None without `include_payload`. A single task may have its result anyway.
        """
        using = self.write_db
        match list(ids):
            case []:
                return {}
            case [task_id] if include_payload:
                parameters: dict[str, Any] = {"id": task_id}
                statement = "read_task"
            case wanted:
                parameters = {
                    "ids": wanted,
                    "include_result": include_result,
                    "include_payload": include_payload,
                }
                statement = "read_tasks"
        found = statements.run(using, statement, most_ahead=_MOST_AHEAD, **parameters)
        return {task.id: task for task in task_rows(using, found)}

    def listed(self, ids: Sequence[UUID], *, include_result: bool = False) -> list[TaskRow]:
        """The tasks with these ids that exist, in the order of the ids."""
        tasks = self.read(ids, include_result=include_result)
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

    def announce(self, tasks: list[TaskRow], *changes: Signal, lost: bool = False) -> list[TaskRow]:
        """Send these signals about the tasks after the commit; returns the tasks.

        `lost` if workers held the tasks and did not end them by reports of their own.
        """
        using = self.write_db
        manager = self.db_manager(using)

        def send() -> None:
            for signal in changes:
                if signal.has_listeners(self.model):
                    for task in tasks:
                        signal.send_robust(self.model, task=manager.instance(task))
                signals.tasks_changed.send_robust(self.model, change=signal, tasks=tasks, lost=lost)

        if tasks:
            transaction.on_commit(send, using=using, robust=True)
        return tasks

    def instance(self, task: TaskRow) -> Any:
        """The model instance of a row, which the host's code expects."""
        using = self.write_db
        names = [field.attname for field in self.model._meta.concrete_fields]
        instance = self.model.from_db(using, names, [getattr(task, name) for name in names])
        # Set here, because the cached property would read the job from the database.
        instance.job_name = task.job_name
        return instance
