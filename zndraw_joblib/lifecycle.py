"""The life of a task: its states and the moves between them.

Standard library only: the server and the SDK share this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class TaskStatus(StrEnum):
    """State of a task. Completed, failed and cancelled are terminal."""

    PENDING = "pending"
    CLAIMED = "claimed"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class AttemptOutcome(StrEnum):
    """How an attempt ended. `lost` ones ended by their lease, `requeued` ones never started."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    REQUEUED = "requeued"


@dataclass(frozen=True)
class RetryPolicy:
    """How often, and after how many seconds, a failed or lost task is tried again."""

    max_retries: int = 0
    backoff_seconds: float = 5.0
    backoff_factor: float = 2.0
    max_backoff_seconds: float = 600.0

    def backoff(self, retry: int) -> float:
        """Seconds before a retry, counted from 1, without jitter."""
        if not self.backoff_seconds:
            return 0.0
        try:
            seconds = self.backoff_seconds * self.backoff_factor ** (retry - 1)
        except OverflowError:
            return self.max_backoff_seconds
        return min(seconds, self.max_backoff_seconds)


#: Most characters of the message beside the progress of a task.
MAX_MESSAGE_LENGTH = 1_000
#: Most seconds after which a worker may ask for a retry: a day.
MAX_RETRY_AFTER = 86_400

TERMINAL_STATUSES = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED})
LEASED_STATUSES = frozenset({TaskStatus.CLAIMED, TaskStatus.RUNNING})

#: The legal moves, by the status that they start from. Only the server itself makes
#: ``claimed -> pending`` and ``running -> pending``.
TRANSITIONS: dict[TaskStatus, frozenset[TaskStatus]] = {
    TaskStatus.PENDING: frozenset({TaskStatus.CLAIMED, TaskStatus.CANCELLED}),
    TaskStatus.CLAIMED: frozenset({TaskStatus.RUNNING, TaskStatus.CANCELLED, TaskStatus.PENDING}),
    TaskStatus.RUNNING: frozenset(
        {TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.PENDING}
    ),
    TaskStatus.COMPLETED: frozenset(),
    TaskStatus.FAILED: frozenset(),
    TaskStatus.CANCELLED: frozenset(),
}

#: Statuses that a report over HTTP may ask for.
REPORTABLE_STATUSES = frozenset({TaskStatus.RUNNING}) | TERMINAL_STATUSES


def sources(target: TaskStatus) -> frozenset[TaskStatus]:
    """The statuses from which a task may move to `target`."""
    return frozenset(status for status, targets in TRANSITIONS.items() if target in targets)
