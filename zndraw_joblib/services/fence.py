"""Refuses writes to a task by others than the worker of its latest attempt."""

from __future__ import annotations

from zndraw_joblib.access import Caller
from zndraw_joblib.exceptions import Forbidden, LeaseLost
from zndraw_joblib.storage.rows import TaskRow
from zndraw_joblib.text import Message


def check_writer(caller: Caller, task: TaskRow, attempt: int) -> None:
    """Raise unless the caller may write for this attempt, whatever the task's status.

    Raises
    ------
    Forbidden
        The caller is no administrator, and owns no worker that was granted the latest attempt.
    LeaseLost
        The attempt is not the task's latest one.
    """
    if not caller.is_admin and not caller.runs(task):
        raise Forbidden(Message("Only the owner of the task's worker may report on it."))
    check_attempt(task, attempt)


def check_attempt(task: TaskRow, attempt: int | None) -> None:
    """Raise LeaseLost unless the attempt is the task's latest one, or not given."""
    if attempt not in {None, task.attempt}:
        raise LeaseLost(
            Message(
                "Attempt {attempt} is not the current one, {current}; drop the result.",
                attempt=attempt,
                current=task.attempt,
            )
        )
