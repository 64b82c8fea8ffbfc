"""Reports on tasks: by the worker that holds one, its submitter, or an administrator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

from zndraw_joblib.access import Caller
from zndraw_joblib.exceptions import (
    Forbidden,
    InvalidTaskTransition,
    LeaseLost,
    ProblemException,
    TaskNotFound,
)
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.models import Task
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage.rows import Report, TaskRow
from zndraw_joblib.text import truncate_utf8


def report(caller: Caller, given: Report) -> TaskRow:
    """Carry a report out, or answer a repeated one; the task as it is now.

    Raises
    ------
    TaskNotFound
        There is no such task for the caller.
    Forbidden
        The caller may not report this.
    LeaseLost
        The report is of another attempt than the task's latest.
    InvalidTaskTransition
        The state of the task does not allow it.
    """
    given = _with_short_error(given)
    # Nearly every report is the worker's own and needs no look at the task first.
    for task in Task.objects.move([given], caller.identity):
        return task
    return _report_without_lease(caller, given, _read(given.task_id))


def report_each(caller: Caller, given: Sequence[Report]) -> list[TaskRow | ProblemException]:
    """Carry several reports out, each on its own: the task, or the problem that `report` raises.

    Reports on one task are carried out in their order.
    """
    return [
        outcome
        for wave in _waves([_with_short_error(report) for report in given])
        for outcome in _report_wave(caller, wave)
    ]


def _report_wave(caller: Caller, wave: Sequence[Report]) -> Iterator[TaskRow | ProblemException]:
    moved = {task.id: task for task in Task.objects.move(wave, caller.identity)}
    others = Task.objects.read(report.task_id for report in wave if report.task_id not in moved)
    for given in wave:
        try:
            yield moved.get(given.task_id) or _report_without_lease(
                caller, given, others.get(given.task_id)
            )
        except ProblemException as problem:
            yield problem


def _report_without_lease(caller: Caller, given: Report, task: TaskRow | None) -> TaskRow:
    """Carry out a report on a task that the caller's workers do not hold; errors as in `report`.

    `task` is as it was read after the caller's workers were found not to hold it.
    """
    if task is None or not caller.may_read(task):
        raise TaskNotFound
    if _may_move_without_lease(caller, given, task):
        for moved in Task.objects.move([given]):
            return moved
        # Another report was first: what it left decides.
        task = _read(given.task_id)
        if task is None:
            raise TaskNotFound
    _check_right(caller, given, task)
    if task.status == given.status:
        # A retry whose first answer was lost.
        return task
    raise InvalidTaskTransition(f"A task that is {task.status} cannot become {given.status}.")


def _may_move_without_lease(caller: Caller, given: Report, task: TaskRow) -> bool:
    """Whether the caller may report on a task that another worker, or none, holds."""
    if caller.is_admin:
        return True
    return given.status == TaskStatus.CANCELLED and task.created_by == caller.identity


def _check_right(caller: Caller, given: Report, task: TaskRow) -> None:
    """See to it that a report was the caller's to make, whether it could be carried out or not.

    Raises
    ------
    LeaseLost
        It is of another attempt than the task's latest.
    Forbidden
        The task is not the caller's to report on or to cancel.
    """
    may_override = _may_move_without_lease(caller, given, task)
    cancels = given.status == TaskStatus.CANCELLED
    refusal = (
        "Only its submitter, or the worker that holds it, may cancel it."
        if cancels
        else "Only the owner of the task's worker may report on it."
    )
    if not may_override and not caller.runs(task):
        raise Forbidden(refusal)
    if given.attempt not in {None, task.attempt}:
        raise LeaseLost(
            f"Attempt {given.attempt} is not the current one, {task.attempt}; drop the result."
        )
    if not may_override and cancels and task.status == TaskStatus.PENDING:
        # The task was taken from the caller's worker.
        raise Forbidden(refusal)


def _with_short_error(given: Report) -> Report:
    """Cut the error text at the limit instead of refusing a report for its length."""
    if not given.error:
        return given
    return given._replace(error=truncate_utf8(given.error, get_settings().max_error_bytes))


def _waves(given: Sequence[Report]) -> Iterator[list[Report]]:
    """Reports in order, cut where a task comes again, because a statement moves a task once."""
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
