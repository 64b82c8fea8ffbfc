"""Ends attempts that leave their task pending again, or whose worker was lost.

An attempt ends by three statements in one transaction: the first locks the rows of the tasks, a
`Decide` function decides on each, and two statements insert the attempts and update the tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import uniform
from typing import Any, NamedTuple
from uuid import UUID

from django.db import transaction

from zndraw_joblib.lifecycle import AttemptOutcome, RetryPolicy, TaskStatus
from zndraw_joblib.storage import statements
from zndraw_joblib.storage.rows import Report, TaskRow, parsed_id, task_rows

#: Fraction by which a backoff is made longer or shorter at random, because tasks that failed
#: together would otherwise be retried together.
JITTER = 0.1


def lost_error(worker_id: str | None, reason: str) -> str:
    """The error of a task whose worker was lost."""
    return f"Worker '{worker_id}' {reason}"


def too_long_error(timeout_seconds: float) -> str:
    """The error of a task that ran longer than its timeout."""
    # 15 digits, because six would show a million as 1e+06.
    return f"Timed out after {timeout_seconds:.15g} s"


class LockedAttempt(NamedTuple):
    """The latest attempt of a claimed or running task whose row is locked."""

    task_id: UUID | str
    attempt: int
    status: str
    worker_id: str
    retries: int | None
    retries_left: int
    timeout_seconds: float | None
    is_timed_out: bool
    backoff_seconds: float
    backoff_factor: float
    max_backoff_seconds: float

    def backoff(self) -> float:
        """Seconds until the next retry, with jitter."""
        policy = RetryPolicy(
            self.retries or 0, self.backoff_seconds, self.backoff_factor, self.max_backoff_seconds
        )
        used = max(0, (self.retries or 0) - self.retries_left)
        return policy.backoff(used + 1) * uniform(1 - JITTER, 1 + JITTER)


class AttemptEnd(NamedTuple):
    """The end of an attempt, and the state in which it leaves its task.

    `error` is the task's error, None to keep it; `attempt_error` is kept with the attempt. `delay`
    is the number of seconds until the task is due again, None for at once.
    """

    outcome: AttemptOutcome
    status: TaskStatus
    retries_left: int
    error: str | None = None
    attempt_error: str | None = None
    delay: float | None = None

    def record(self, task_id: UUID) -> dict[str, Any]:
        """The end as a record of a statement."""
        given = {name: value for name, value in self._asdict().items() if value is not None}
        return {"id": task_id, **given}


#: Returns the end of a locked attempt; None leaves the attempt as it is.
Decide = Callable[[LockedAttempt], AttemptEnd | None]


def requeued(attempt: LockedAttempt) -> AttemptEnd:
    """The end of an attempt whose task is pending again at once, and keeps its retries."""
    return AttemptEnd(AttemptOutcome.REQUEUED, TaskStatus.PENDING, attempt.retries_left)


def lost(reason: str) -> Decide:
    """For workers that are gone or too slow; the error is ``Worker '<id>' <reason>``.

    A task that was claimed and never started is requeued. A running one uses up a retry; without
    retries it has failed.
    """

    def decide(attempt: LockedAttempt) -> AttemptEnd:
        if attempt.status == TaskStatus.CLAIMED:
            return requeued(attempt)
        error = (
            too_long_error(attempt.timeout_seconds)
            if attempt.is_timed_out and attempt.timeout_seconds
            else lost_error(attempt.worker_id, reason)
        )
        if not attempt.retries_left:
            return AttemptEnd(AttemptOutcome.LOST, TaskStatus.FAILED, 0, error, error)
        left = attempt.retries_left - 1
        if attempt.retries is None:
            # By the setting `task_max_retries`: at once, and without an error.
            return AttemptEnd(AttemptOutcome.LOST, TaskStatus.PENDING, left, None, error)
        return AttemptEnd(
            AttemptOutcome.LOST, TaskStatus.PENDING, left, error, error, attempt.backoff()
        )

    return decide


def failed(reports: Sequence[Report]) -> Decide:
    """For reported failures: a task is tried again while it has retries left.

    An attempt whose task has none is left as it is, because `finish_tasks` ends the task.
    """
    by_id = {report.task_id: report for report in reports}

    def decide(attempt: LockedAttempt) -> AttemptEnd | None:
        # Looked at again, because another report may have used up the last one.
        if attempt.retries is None or not attempt.retries_left:
            return None
        report = by_id[parsed_id(attempt.task_id)]
        error = report.error_text
        delay = attempt.backoff() if report.retry_after is None else report.retry_after
        return AttemptEnd(
            AttemptOutcome.FAILED,
            TaskStatus.PENDING,
            attempt.retries_left - 1,
            error,
            error,
            delay,
        )

    return decide


def end_attempts(
    using: str, lock: str, decide: Decide, **parameters: Any
) -> list[tuple[TaskRow, AttemptOutcome]]:
    """Lock attempts by the statement `lock`, and end each as `decide` returns.

    Returns the tasks that were changed, each with the outcome of its attempt.
    """
    with transaction.atomic(using=using):
        found = statements.run(using, lock, **parameters)
        decided = {}
        for row in found.rows:
            attempt = LockedAttempt(*row)
            if end := decide(attempt):
                decided[parsed_id(attempt.task_id)] = end
        if not decided:
            return []
        ends = statements.records(using, [end.record(task_id) for task_id, end in decided.items()])
        statements.run(using, "archive_attempts", ends=ends)
        changed = task_rows(using, statements.run(using, "end_attempts", ends=ends))
        return [(task, decided[task.id].outcome) for task in changed]
