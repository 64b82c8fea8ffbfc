"""`TaskStream`: an iterator over claimed tasks that another thread can end at once."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from zndraw_joblib.client.claiming import Claimer, Claims
from zndraw_joblib.client.retry import UNREPEATABLE
from zndraw_joblib.client.tasks import ClaimedTask


class TaskStream:
    """Iterates over the tasks granted to a worker.

    A task is only claimed while a thread waits for one. A task that is granted after `stop` is
    dropped; the server grants it to another worker, because it was not started.
    """

    def __init__(self, claims: Claims, *, wait: int, interval: float) -> None:
        # None ends the iteration.
        self._outcomes: queue.SimpleQueue[ClaimedTask | Exception | None] = queue.SimpleQueue()
        self._claimer = Claimer(claims, self, retry=UNREPEATABLE, wait=wait, interval=interval)
        self._claimer.start()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._claimer.stopped

    def stop(self) -> None:
        """End the iteration within milliseconds, from any thread."""
        self._claimer.stop()
        self._outcomes.put(None)

    def receive(self, tasks: Sequence[ClaimedTask]) -> None:
        """Pass granted tasks to the threads that wait for them; the claimer calls this."""
        for task in tasks:
            self._outcomes.put(task)

    def fail(self, error: Exception) -> None:
        """Pass an error to a thread that waits for a task; the claimer calls this."""
        self._outcomes.put(error)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ClaimedTask:
        """The next task.

        Raises
        ------
        StopIteration
            The stream was stopped.
        ApiError, httpx.TransportError
            A claim failed; the next call claims again.
        """
        if self.stopped:
            raise StopIteration
        self._claimer.free()
        outcome = self._outcomes.get()
        if outcome is None:
            # Put back for other threads that iterate.
            self._outcomes.put(None)
            raise StopIteration
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
