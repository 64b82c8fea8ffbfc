"""Claims: the request, and the thread that sends it while there are free places for tasks."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import httpx

from zndraw_joblib.client.api import ApiManager, path, send
from zndraw_joblib.client.exceptions import (
    ApiError,
    NotAuthenticatedError,
    WorkerNotFoundError,
)
from zndraw_joblib.client.grants import Grants
from zndraw_joblib.client.registration import Registration
from zndraw_joblib.client.retry import UNREPEATABLE, OutageLog, Retry
from zndraw_joblib.client.schemas import read_grant
from zndraw_joblib.client.tasks import ClaimedTask, TaskActions
from zndraw_joblib.client.threads import as_exception

#: Seconds between two claims if the server does not honour waits, as under WSGI.
INTERVAL = 2.0


class Claimed(NamedTuple):
    """The answer to a claim; `waited` is whether the server honoured a wait for work."""

    tasks: list[ClaimedTask]
    waited: bool


class Claims:
    """Sends the claims of a worker and adds the granted tasks to `grants`."""

    def __init__(
        self,
        api: ApiManager,
        registration: Registration,
        grants: Grants,
        actions: TaskActions,
        batch_size: int,
    ) -> None:
        self._api = api
        self._registration = registration
        self.grants = grants
        self._actions = actions
        self._batch_size = batch_size

    @property
    def lease(self) -> float:
        """Seconds after which the server takes the tasks of a worker without heartbeats."""
        return self._registration.lease

    def send(
        self,
        limit: int,
        *,
        wait: int = 0,
        start: bool = False,
        retry: Retry | None = UNREPEATABLE,
    ) -> Claimed:
        """Claim up to `limit` tasks, oldest first; with `start` they are running at once.

        A caller sends a claim that starts tasks within `Grants.expected`. A worker that the server
        has removed is registered again, and nothing is claimed.
        """
        body: dict[str, Any] = {"limit": min(limit, self._batch_size)}
        if start:
            body["start"] = True
        worker_id = self._registration.ensure_worker()
        body["worker_id"] = worker_id
        try:
            claimed = send(
                self._api,
                "POST",
                path("tasks", "claim"),
                read=_read_claimed,
                body=body,
                wait=wait,
                retry=retry,
            )
        except WorkerNotFoundError:
            self._registration.replace_worker(worker_id)
            return Claimed([], True)
        for task in claimed.tasks:
            task.bind(self._actions)
        self.grants.add(claimed.tasks)
        return claimed


def _read_claimed(answer: httpx.Response) -> Claimed:
    tasks = read_grant(answer).tasks
    return Claimed(tasks, bool(tasks) or "Preference-Applied" in answer.headers)


class Receiver(Protocol):
    """Receives the tasks of a `Claimer`, in the claimer's thread."""

    def receive(self, tasks: Sequence[ClaimedTask]) -> None:
        """Accept granted tasks. Each occupies a place until the receiver frees it."""

    def fail(self, error: Exception) -> None:
        """Accept the error of a claim that is not repeated. It occupies one place."""


class Claimer:
    """Claims tasks in a thread of its own, as many as there are free places.

    The thread is a daemon and `stop` does not wait for it, because a long poll may take minutes.
    Tasks that are granted after the stop are dropped. The server grants them to another worker,
    because they were not started.

    Parameters
    ----------
    claims
        Sends the requests.
    receiver
        Receives the tasks.
    places
        Free places at the beginning.
    least
        Fewest free places for a claim.
    starts
        Send a claim that starts its tasks before each long poll. Such a claim does not wait. A long
        poll does not start its tasks, because its answer may be lost, or come after a stop, and
        the tasks would then be running without a worker.
    retry
        The policy for failed claims.
    wait
        Seconds of a long poll.
    interval
        Seconds between two claims if the server does not honour waits.
    """

    def __init__(
        self,
        claims: Claims,
        receiver: Receiver,
        *,
        places: int = 0,
        least: int = 1,
        starts: bool = False,
        retry: Retry,
        wait: int,
        interval: float | None = None,
    ) -> None:
        self._claims = claims
        self._receiver = receiver
        self._places = threading.Semaphore(places)
        self._least = least
        self._starts = starts
        self._retry = retry
        self._failures = 0
        self._outage = OutageLog("claim")
        self._has_claimed = False
        self._unauthenticated_since: float | None = None
        self._wait = wait
        self._interval = INTERVAL if interval is None else interval
        self._stopped = threading.Event()
        # Held while tasks are handed over and during a stop, because no task of a long poll may be
        # handed over after a stop.
        self._handing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="joblib-claim", daemon=True)

    def start(self) -> None:
        """Begin to claim."""
        self._thread.start()

    def free(self, places: int = 1) -> None:
        """Free places for further tasks."""
        if places:
            self._places.release(places)

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped.is_set()

    def wait_until_stopped(self, timeout: float) -> bool:
        """Wait for `stop`, up to `timeout` seconds; whether it was called."""
        return self._stopped.wait(timeout)

    def stop(self) -> None:
        """Stop claiming, from any thread and without waiting for a request.

        Tasks of a long poll under way are dropped; tasks that a claim started are handed over.
        """
        with self._handing:
            self._stopped.set()
        self.free(self._least)

    def _run(self) -> None:
        while not self.stopped:
            places = 0
            try:
                places = self._take_places()
                used = self._claim(places)
            except (ApiError, httpx.TransportError) as error:
                used = self._handle(error)
            except BaseException as error:
                used = self._fail(as_exception(error))
            self.free(max(0, places - used))

    def _take_places(self) -> int:
        """Wait for `least` free places, then take all free ones; returns their number."""
        for _ in range(self._least):
            self._places.acquire()
        places = self._least
        while self._places.acquire(blocking=False):
            places += 1
        return places

    def _claim(self, limit: int) -> int:
        """Claim until tasks are granted; returns the number of tasks."""
        if self._starts and (started := self._claim_started(limit)):
            return started
        while not self.stopped:
            tasks, waited = self._send(limit, wait=self._wait)
            if tasks:
                self._hand_over(tasks)
                return len(tasks)
            if not waited:
                self._stopped.wait(self._interval)
        return 0

    def _claim_started(self, limit: int) -> int:
        with self._claims.grants.expected():
            # Checked within `expected`, because a thread that stops the claimer and then waits for
            # expected tasks must not miss the tasks of this claim.
            if self.stopped:
                return 0
            tasks = self._send(limit, start=True).tasks
            self._receiver.receive(tasks)
        return len(tasks)

    def _send(self, limit: int, *, wait: int = 0, start: bool = False) -> Claimed:
        # Without `retry`, because `send` would sleep; a stop must end the pauses of `_handle`.
        claimed = self._claims.send(limit, wait=wait, start=start, retry=None)
        self._failures, self._unauthenticated_since = 0, None
        self._has_claimed = True
        self._outage.ended()
        return claimed

    def _hand_over(self, tasks: Sequence[ClaimedTask]) -> None:
        with self._handing:
            if not self.stopped:
                self._receiver.receive(tasks)
                return
        for task in tasks:
            self._claims.grants.drop(task.id, task.attempt)

    def _handle(self, error: ApiError | httpx.TransportError) -> int:
        """Pause after a failed claim, or hand the error over; returns the places it occupies."""
        self._failures += 1
        pause = self._retry.pause(error, self._failures, self._patience(error))
        if pause is None:
            return self._fail(error)
        self._outage.failed(error, pause)
        self._stopped.wait(pause)
        return 0

    def _fail(self, error: Exception) -> int:
        """Hand an error over, unless the claimer is stopped; returns the place that it occupies."""
        self._failures = 0
        if not self.stopped:
            self._receiver.fail(error)
        return 1

    def _patience(self, error: Exception) -> float:
        """Seconds for which claims go on after a 401; 0 before the first claim that succeeded."""
        if not self._has_claimed or not isinstance(error, NotAuthenticatedError):
            return 0.0
        now = time.monotonic()
        self._unauthenticated_since = self._unauthenticated_since or now
        return self._unauthenticated_since + self._claims.lease - now
