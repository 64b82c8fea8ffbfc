"""Carries out reports on tasks, by the worker that holds one, its submitter or an administrator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

from django.db.models import QuerySet

from zndraw_joblib import tracing
from zndraw_joblib.access import Caller
from zndraw_joblib.exceptions import (
    Forbidden,
    InvalidTaskTransition,
    ProblemException,
    ResultTooLarge,
    TaskNotFound,
)
from zndraw_joblib.lifecycle import REPORTABLE_STATUSES, AttemptOutcome, TaskStatus
from zndraw_joblib.models import Task, TaskAttempt, Worker
from zndraw_joblib.services.fence import check_attempt
from zndraw_joblib.services.spans import record_spans
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage.rows import Report, TaskRow
from zndraw_joblib.storage.tasks import sweep_errors
from zndraw_joblib.text import Message, truncate_utf8


def report(caller: Caller, given: Report) -> TaskRow:
    """Carry out a report, or answer a repeated one; returns the task as it is now.

    Raises
    ------
    TaskNotFound
        The task does not exist, or the caller may not read it.
    Forbidden
        The caller may not make this report.
    LeaseLost
        The report's attempt is not the task's latest one.
    InvalidTaskTransition
        The status of the task does not allow it, or the server alone sets this status.
    ResultTooLarge
        The result has more than `max_result_bytes`; the task stays as it is.
    """
    check_result(given)
    # Without a read of the task, because nearly every report is the worker's own.
    for task in _move([given], caller.identity):
        return task
    return _report_without_lease(caller, given, _read(given.task_id))


def report_each(caller: Caller, given: Sequence[Report]) -> list[TaskRow | ProblemException]:
    """Carry out several reports; the result of each is the task, or the problem of `report`.

    Reports on the same task are carried out in their order.
    """
    return [outcome for wave in _waves(given) for outcome in _report_wave(caller, wave)]


def check_result(given: Report) -> None:
    """Raise ResultTooLarge if the report's result has more than `max_result_bytes` of JSON."""
    limit = get_settings().max_result_bytes
    if given.result is not None and (size := len(given.result.encode())) > limit:
        raise ResultTooLarge(
            Message(
                "The result has {size} bytes of JSON, more than the {limit} that are accepted; "
                "upload it as a file of the task.",
                size=size,
                limit=limit,
            )
        )


def _report_wave(caller: Caller, wave: Sequence[Report]) -> Iterator[TaskRow | ProblemException]:
    refused: dict[UUID, ProblemException] = {}
    for given in wave:
        try:
            check_result(given)
        except ProblemException as problem:
            refused[given.task_id] = problem
    accepted = [report for report in wave if report.task_id not in refused]
    moved = {task.id: task for task in _move(accepted, caller.identity)}
    others = Task.objects.read(report.task_id for report in wave if report.task_id not in moved)
    for given in wave:
        try:
            if given.task_id in refused:
                raise refused[given.task_id]
            yield moved.get(given.task_id) or _report_without_lease(
                caller, given, others.get(given.task_id)
            )
        except ProblemException as problem:
            yield problem


def _report_without_lease(caller: Caller, given: Report, task: TaskRow | None) -> TaskRow:
    """Carry out a report on a task that the caller's workers do not hold; raises as `report` does.

    `task` was read after the statement found that the caller's workers do not hold it.
    """
    if task is None or not caller.may_read(task):
        raise TaskNotFound
    if _may_move_without_lease(caller, given, task):
        for moved in _move([given]):
            return moved
        # Read again, because another report has changed the task meanwhile.
        task = _read(given.task_id)
        if task is None:
            raise TaskNotFound
    if _repeats_a_failure(caller, given, task):
        return task
    _check_permission(caller, given, task)
    if given.status not in REPORTABLE_STATUSES:
        raise InvalidTaskTransition(
            Message("The server alone makes a task {status}.", status=str(given.status))
        )
    if task.status == given.status:
        # Accepted, because the report may be a retry whose first answer was lost.
        return _with_late_error(given, task)
    raise InvalidTaskTransition(
        Message(
            "A task that is {status} cannot become {wanted}.",
            status=str(task.status),
            wanted=str(given.status),
        )
    )


def _repeats_a_failure(caller: Caller, given: Report, task: TaskRow) -> bool:
    """Whether the attempt ended by an earlier report of the caller that it failed, and is retried.

    A report without an attempt is about the latest one.
    """
    if given.status != TaskStatus.FAILED:
        return False
    number = task.attempt if given.attempt is None else given.attempt
    attempt = _attempt(task, number).filter(outcome=AttemptOutcome.FAILED).first()
    if attempt is None:
        return False
    if caller.is_admin or (caller.runs(task) and number == task.attempt):
        return True
    # The task names the owner of its latest attempt only.
    owned = Worker.objects.using(Task.objects.write_db).filter(identity=caller.identity)
    return bool(owned.filter(pk=attempt.worker_id).exists())


def _attempt(task: TaskRow, number: int) -> QuerySet[TaskAttempt]:
    """The row of an attempt, if it has one."""
    return TaskAttempt.objects.using(Task.objects.write_db).filter(task=task.id, attempt=number)


def _with_late_error(given: Report, task: TaskRow) -> TaskRow:
    """The task; if a sweep ended the report's attempt, with the report's error in addition.

    A worker that lost its task by late heartbeats knows the cause, and the sweep does not.
    """
    if given.attempt is None or not given.error:
        return task
    if task.error not in sweep_errors(task):
        return task
    error = truncate_utf8(f"{task.error}\n\n{given.error}", get_settings().max_error_bytes)
    if not Task.objects.replace_error(task, error):
        return task
    _attempt(task, task.attempt).update(error=error)
    return task._replace(error=error)


def _move(given: Sequence[Report], identity: str | None = None) -> list[TaskRow]:
    """Carry out the reports of statuses that a report may set; as `TaskManager.move`."""
    reportable = [report for report in given if report.status in REPORTABLE_STATUSES]
    began = tracing.now()
    moved: list[TaskRow] = Task.objects.move(reportable, identity)
    # Progress has no spans, because a task may report it many times a second.
    progressed = {report.task_id for report in reportable if report.has_progress}
    record_spans("joblib report", (task for task in moved if task.id not in progressed), began)
    return moved


def _may_move_without_lease(caller: Caller, given: Report, task: TaskRow) -> bool:
    """Whether the caller may report on a task that another caller's worker, or none, holds."""
    if caller.is_admin:
        return True
    return given.status == TaskStatus.CANCELLED and task.created_by == caller.identity


def _check_permission(caller: Caller, given: Report, task: TaskRow) -> None:
    """Raise if the caller may not make this report on the task, whatever the task's status.

    Raises
    ------
    LeaseLost
        The report's attempt is not the task's latest one.
    Forbidden
        The caller may not report on the task, or not cancel it.
    """
    may_override = _may_move_without_lease(caller, given, task)
    cancels = given.status == TaskStatus.CANCELLED
    refusal = (
        Message("Only its submitter, or the worker that holds it, may cancel it.")
        if cancels
        else Message("Only the owner of the task's worker may report on it.")
    )
    if not may_override and not caller.runs(task):
        raise Forbidden(refusal)
    check_attempt(task, given.attempt)
    if not may_override and cancels and task.status == TaskStatus.PENDING:
        # The task was requeued, so the caller's worker has no more right to cancel it.
        raise Forbidden(refusal)


def _waves(given: Sequence[Report]) -> Iterator[list[Report]]:
    """Split reports where a task comes again, because one statement moves a task only once."""
    wave: list[Report] = []
    seen: set[UUID] = set()
    for report in given:
        if report.task_id in seen:
            yield wave
            wave, seen = [], set()
        wave.append(report)
        seen.add(report.task_id)
    yield wave


def _read(task_id: UUID) -> TaskRow | None:
    return Task.objects.read([task_id]).get(task_id)
