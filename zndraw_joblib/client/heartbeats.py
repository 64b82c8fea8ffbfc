"""Heartbeats, which keep a worker alive and renew the leases of its tasks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from zndraw_joblib.client.api import ApiManager, path, send
from zndraw_joblib.client.cancel_watches import CancelWatches
from zndraw_joblib.client.exceptions import WorkerNotFoundError
from zndraw_joblib.client.grants import Grants
from zndraw_joblib.client.pulse import Pulse
from zndraw_joblib.client.registration import Registration
from zndraw_joblib.client.retry import (
    LASTING,
    LONGEST_PAUSE,
    REPEATABLE,
    OutageLog,
    Retry,
    retry_after,
)
from zndraw_joblib.client.schemas import HeartbeatReply, read_heartbeat
from zndraw_joblib.client.tasks import ClaimedTask
from zndraw_joblib.client.threads import as_exception

logger = logging.getLogger(__name__)

#: Most tasks of one heartbeat; the server refuses more.
HEARTBEAT_TASKS = 500
#: Seconds between two checks for a worker, while there is none.
CHECK_INTERVAL = 1.0


class Heartbeats:
    """Sends heartbeats, once or from a thread, beside which `CancelWatches` wait for cancels.

    `interval` is in seconds; None leaves it to the server. `fail` receives the error of a thread
    that ended unexpectedly.
    """

    def __init__(
        self,
        api: ApiManager,
        registration: Registration,
        grants: Grants,
        pulse: Pulse,
        interval: float | None,
        fail: Callable[[Exception], None],
    ) -> None:
        self._api = api
        self._registration = registration
        self._grants = grants
        self._pulse = pulse
        self._interval = interval
        self._fail = fail
        self._watches = CancelWatches(api, registration, grants)
        self._outage = OutageLog("send a heartbeat")
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether the thread sends heartbeats."""
        return self._thread is not None

    def start(self) -> None:
        """Send heartbeats from a thread."""
        self._ended = threading.Event()
        self._pulse.begin()
        self._thread = threading.Thread(target=self._run, name="joblib-heartbeat", daemon=True)
        self._thread.start()
        self._watches.start()

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        self._watches.stop()
        if self._thread is not None:
            self._thread.join()
        self._thread = None

    def send(self, retry: Retry | None = REPEATABLE) -> HeartbeatReply:
        """Renew the leases of all held tasks and mark those that were cancelled or lost."""
        sent_at = time.monotonic()
        held = self._grants.held()
        reply = self._send_batch(held[:HEARTBEAT_TASKS], retry)
        for start in range(HEARTBEAT_TASKS, len(held), HEARTBEAT_TASKS):
            further = self._send_batch(held[start : start + HEARTBEAT_TASKS], retry)
            reply.lost += further.lost
            reply.cancelled += further.cancelled
        self._pulse.answered(sent_at)
        return reply

    def _send_batch(self, tasks: Sequence[ClaimedTask], retry: Retry | None) -> HeartbeatReply:
        worker_id = self._registration.ensure_worker()
        body = {"tasks": [{"id": task.id, "attempt": task.attempt} for task in tasks]}
        try:
            reply = send(
                self._api,
                "PATCH",
                path("workers", worker_id),
                read=read_heartbeat,
                body=body,
                retry=retry,
                outage=self._outage,
            )
        except WorkerNotFoundError:
            self._registration.replace_worker(worker_id)
            return self._send_batch(tasks, retry)
        self._grants.stop(tasks, reply.lost, reply.cancelled)
        return reply

    def _run(self) -> None:
        try:
            self._send_until_ended()
        except BaseException as error:
            logger.exception(
                "the heartbeats ended; the leases of this worker's tasks will end too",
                extra={"worker_id": self._registration.worker_id},
            )
            self._fail(as_exception(error))

    def _send_until_ended(self) -> None:
        pause, failures = self._pause(), 0
        while not self._sleep(pause):
            pause = self._pause()
            if self._registration.worker_id is None:
                self._pulse.begin()
                continue
            try:
                # Sent once, because a stop must be able to end the pause before another attempt.
                self.send(retry=None)
                failures = 0
            except Exception as error:
                # Code of the host, such as an `httpx.Auth`, may fail too, and work the next time.
                failures += 1
                pause = self._pause_after(error, failures, pause)

    def _sleep(self, seconds: float) -> bool:
        """Sleep; returns whether the thread has to end."""
        self._pulse.sleeps(seconds)
        ended = self._ended.wait(seconds)
        if not ended:
            self._pulse.woke()
        return ended

    def _pause_after(self, error: Exception, failures: int, usual: float) -> float:
        """Seconds until the next heartbeat after so many failed, in place of the usual time."""
        self._pulse.failed(error)
        if asked := retry_after(error):
            left = self._pulse.lease_left
            if asked >= left:
                logger.error(
                    "The server accepts no heartbeat for %.0f s, but the leases of the worker's "
                    "tasks end in %.0f s, so that it will take them away. Raise the server's "
                    "limit for heartbeats: the rate of the scope joblib_work, or a proxy's.",
                    asked,
                    max(0.0, left),
                    extra={"worker_id": self._registration.worker_id},
                )
            pause = asked
        else:
            # Soon again, because the leases may end before the usual time.
            pause = min(usual, LASTING.pause(error, failures) or LONGEST_PAUSE)
        self._outage.failed(error, pause)
        return pause

    def _pause(self) -> float:
        """Seconds until the next heartbeat."""
        interval = self._interval or self._registration.heartbeat_interval
        return interval if self._registration.worker_id else min(interval, CHECK_INTERVAL)
