"""An iterator over claimed tasks that another thread can end at once."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from zndraw_joblib.client.schemas import ClaimedTask

#: What the claiming thread hands over: a task, an error, or that nothing came.
Outcome = ClaimedTask | Exception | None


class TaskStream:
    """Iterates over the tasks granted to a worker.

    A daemon thread makes the claims, and only while somebody asks for a task, so that `stop`
    need not wait for a long poll to end. What is granted after that is given up: it was never
    started, so the server gives it to another worker.
    """

    def __init__(
        self,
        poll: Callable[[int], tuple[ClaimedTask | None, bool]],
        abandon: Callable[[ClaimedTask], None],
        *,
        wait: int,
        interval: float,
    ) -> None:
        self._poll = poll
        self._abandon = abandon
        self._wait = wait
        self._interval = interval
        self._stop = threading.Event()
        self._asked: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        # Taken to hand a task over or to stop, so that exactly one of the two happens.
        self._handing = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stop.is_set()

    def stop(self) -> None:
        """End the iteration within milliseconds, from any thread."""
        with self._handing:
            if not self._stop.is_set():
                self._stop.set()
                self._answers.put(None)
                self._asked.put(False)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ClaimedTask:
        """The next task.

        Raises
        ------
        StopIteration
            The stream was stopped.
        ApiError, httpx.TransportError
            A claim failed; the stream goes on when asked again.
        """
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._claim_when_asked, name="joblib-claim", daemon=True
            )
            self._thread.start()
        if self.stopped:
            raise StopIteration
        self._asked.put(True)
        outcome = self._answers.get()
        if outcome is None:
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

    def _claim_when_asked(self) -> None:
        while self._asked.get() and not self.stopped:
            outcome = self._claim()
            if outcome is None:
                return
            with self._handing:
                if not self.stopped:
                    self._answers.put(outcome)
                    continue
            if isinstance(outcome, ClaimedTask):
                self._abandon(outcome)

    def _claim(self) -> Outcome:
        while not self.stopped:
            try:
                task, waited = self._poll(self._wait)
            except Exception as error:
                return error
            if task is not None:
                return task
            if not waited:
                self._stop.wait(self._interval)
        return None
