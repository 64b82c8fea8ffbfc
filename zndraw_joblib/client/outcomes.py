"""The exceptions of the ends of tasks.

The code of a task raises `Cancelled`, `GiveUp` and `RetryLater`; a wait for its result raises
`TaskFailed` and `TaskCancelled`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from zndraw_joblib.lifecycle import MAX_RETRY_AFTER

if TYPE_CHECKING:  # At run time `schemas` imports the tasks, which raise `Cancelled`.
    from zndraw_joblib.client.schemas import TaskInfo

E = TypeVar("E", bound=BaseException)

#: First line of a traceback.
TRACEBACK = "Traceback (most recent call last):"


class Cancelled(BaseException):
    """Ends a task that was cancelled or lost; raised by `ClaimedTask.checkpoint`.

    Not an `Exception`, like `asyncio.CancelledError`, because a task's own ``except Exception``
    must not swallow a cancel.
    """


class GiveUp(Exception):
    """Fails the task for good: it is not tried again, although it has retries left."""


class RetryLater(Exception):
    """Fails the attempt; if the task has retries left, it is tried again after `seconds`.

    Parameters
    ----------
    seconds
        Seconds before the next attempt, in place of the job's backoff; at least 0, at most a day.
    why
        The reason, for the error of the task.

    Raises
    ------
    ValueError
        `seconds` is NaN.
    """

    def __init__(self, seconds: float, why: str = "") -> None:
        if math.isnan(seconds):
            raise ValueError("RetryLater needs a number of seconds, not NaN")
        self.seconds = min(max(float(seconds), 0.0), float(MAX_RETRY_AFTER))
        super().__init__(why or f"try again in {self.seconds:g} s")

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickling would else call the class with the text, for instance in a pool of processes.
        return type(self), (self.seconds, str(self))


def raised(error: BaseException, kind: type[E]) -> list[E]:
    """The exceptions of a kind: `error` itself, or those in the group that it is.

    A group comes from `asyncio.TaskGroup`, for instance.
    """
    return [leaf for leaf in _leaves(error) if isinstance(leaf, kind)]


def all_raised(error: BaseException, kind: type[BaseException]) -> bool:
    """Whether `error` is of a kind, or a group of such exceptions alone."""
    return all(isinstance(leaf, kind) for leaf in _leaves(error))


def _leaves(error: BaseException) -> list[BaseException]:
    # Without recursion, because groups may be nested as deeply as the code of a task likes.
    leaves, left = [], [error]
    while left:
        one = left.pop()
        if isinstance(one, BaseExceptionGroup):
            left += one.exceptions
        else:
            leaves.append(one)
    return leaves


class UnsuccessfulTask(Exception):
    """A task ended without a result.

    Attributes
    ----------
    task : TaskInfo
        The task at its end.
    error : str
        The text that its worker, or the server, reported; empty if there is none.
    """

    _ended: ClassVar[str]

    def __init__(self, task: TaskInfo) -> None:
        self.task = task
        self.error = task.error or ""
        text = f"task {task.id} of {task.job_name} {self._ended}"
        super().__init__(f"{text}: {self.error}" if self.error else text)

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickling would else call the class with the text.
        return type(self), (self.task,)


class TaskFailed(UnsuccessfulTask):
    """A task failed. Its text contains the traceback of the worker."""

    _ended = "failed"

    @property
    def remote_traceback(self) -> str:
        """The traceback of the worker; empty if the task failed without an exception."""
        start = self.error.find(TRACEBACK)
        return self.error[start:] if start >= 0 else ""


class TaskCancelled(UnsuccessfulTask):
    """A task was cancelled."""

    _ended = "was cancelled"
