"""Where the threads of a worker get their tasks from."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

import httpx
import stamina

from zndraw_joblib.client.api import FIRST_PAUSE, LONGEST_PAUSE, away
from zndraw_joblib.client.exceptions import ApiError
from zndraw_joblib.client.schemas import ClaimedTask

if TYPE_CHECKING:
    from zndraw_joblib.client.manager import JobManager

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds between two claims of a server that does not honour waits.
INTERVAL = 2.0


class Source(Protocol):
    """Tasks for a thread."""

    def take(self) -> ClaimedTask | None:
        """The next task; None once the worker is stopped."""

    def at_hand(self) -> ClaimedTask | None:
        """One that is held already, if any."""


class Direct:
    """Claims for one thread, one task at a time, when it asks.

    It asks for a task that is started at once, which answers at once. Only when there is none does
    it wait for work, and then for a claim that starts nothing: a long poll is what a stop
    leaves behind and what a network loses, and what it was granted must not be running then.
    """

    def __init__(self, manager: JobManager) -> None:
        self._manager = manager
        self._stream = manager.listen(INTERVAL)

    def take(self) -> ClaimedTask | None:
        """The next task, mostly running already; None once the worker is stopped.

        Raises
        ------
        ApiError
            The server refuses to grant tasks.
        """
        return retried(self._take, lambda: self._stream.stopped)

    def at_hand(self) -> None:
        """Nothing is held ahead."""

    def _take(self) -> ClaimedTask | None:
        with self._manager.expected():
            # Looked at again: whoever stops and then waits for what is expected must not miss this.
            if self._stream.stopped:
                return None
            # What this starts is run, also when a stop comes while it is under way.
            started = self._manager.claim_many(1, start=True)
        return started[0] if started else next(self._stream, None)


class Prefetched:
    """Claims several tasks in one request for all threads of a worker, and holds them claimed.

    A daemon thread claims whenever at most half of `ahead` is left, and by long polls, so that
    `stop` need not wait for it. What is held or granted then is given up: it never started.
    """

    def __init__(self, manager: JobManager, ahead: int) -> None:
        self._manager = manager
        self._ahead = ahead
        self._changed = threading.Condition()
        self._held: deque[ClaimedTask] = deque()
        self._asking = 0
        self._error: Exception | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Hand out no more; from any thread."""
        with self._changed:
            self._stop.set()
            self._give_up(self._held)
            self._held.clear()
            self._changed.notify_all()

    def take(self) -> ClaimedTask | None:
        """The next task that nobody cancelled or got meanwhile; None once the worker is stopped.

        Raises
        ------
        ApiError
            The server refuses to grant tasks.
        """
        with self._changed:
            if self._thread is None and not self.stopped:
                self._thread = threading.Thread(
                    target=self._claim, name="joblib-prefetch", daemon=True
                )
                self._thread.start()
            self._asking += 1
            self._changed.notify_all()
            try:
                while not self.stopped and self._error is None:
                    if (task := self.at_hand()) is not None:
                        return task
                    self._changed.wait()
            finally:
                self._asking -= 1
            if self._error is not None and not self.stopped:
                raise self._error
            return None

    def at_hand(self) -> ClaimedTask | None:
        """One that is held already and that nobody cancelled or got meanwhile, if any."""
        with self._changed:
            while self._held:
                task = self._held.popleft()
                # A thread may be needed to claim more.
                self._changed.notify_all()
                if not self._manager.should_stop(task):
                    return task
                logger.info("task %s attempt %d was dropped unstarted", task.id, task.attempt)
                self._manager.abandon(task)
            return None

    def _wanted(self) -> int:
        """How many tasks to claim now."""
        if self._asking == 0 and len(self._held) > self._ahead // 2:
            return 0
        return self._ahead + self._asking - len(self._held)

    def _claim(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self.stopped or self._wanted() > 0)
                wanted = self._wanted()
            try:
                claimed = retried(lambda: self._poll(wanted), lambda: self.stopped)  # noqa: B023
            except Exception as error:
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
            tasks, waited = claimed or ([], False)
            with self._changed:
                if self.stopped:
                    self._give_up(tasks)
                    return
                self._held.extend(tasks)
                self._changed.notify_all()
            if not tasks and not waited:
                self._stop.wait(INTERVAL)

    def _poll(self, wanted: int) -> tuple[list[ClaimedTask], bool]:
        return self._manager.poll_many(wanted, self._manager.long_poll)

    def _give_up(self, tasks: deque[ClaimedTask] | list[ClaimedTask]) -> None:
        for task in tasks:
            self._manager.abandon(task)


def retried(call: Callable[[], T], stopped: Callable[[], bool]) -> T | None:
    """Call until it answers or the worker is stopped: then None. A server away is asked again.

    Raises
    ------
    ApiError, httpx.TransportError
        It makes no sense to ask again.
    """

    def worth_it(error: Exception) -> bool:
        return not stopped() and away(error)

    if stopped():
        return None
    try:
        for attempt in stamina.retry_context(
            on=worth_it,
            attempts=None,
            timeout=None,
            wait_initial=FIRST_PAUSE,
            wait_max=LONGEST_PAUSE,
        ):
            with attempt:
                return call()
    except (ApiError, httpx.TransportError):
        if not stopped():
            raise
    return None
