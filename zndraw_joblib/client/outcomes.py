"""Exceptions by which the code of a task says how the task ends."""

from __future__ import annotations

import math

#: Most seconds before a retry; the server refuses more.
MAX_RETRY_AFTER = 86_400.0


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
        self.seconds = min(max(float(seconds), 0.0), MAX_RETRY_AFTER)
        super().__init__(why or f"try again in {self.seconds:g} s")
