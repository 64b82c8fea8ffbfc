"""Exceptions by which the code of a task says how the task ends."""

from __future__ import annotations


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
        Seconds before the next attempt, in place of the job's backoff; a day at most.
    why
        The reason, for the error of the task.
    """

    def __init__(self, seconds: float, why: str = "") -> None:
        super().__init__(why or f"try again in {seconds:g} s")
        self.seconds = float(seconds)
