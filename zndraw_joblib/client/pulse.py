"""Measures how late a worker's heartbeats are, and explains the loss of tasks by it."""

from __future__ import annotations

import logging
import threading
import time

from zndraw_joblib.client.grants import Grants
from zndraw_joblib.client.registration import Registration
from zndraw_joblib.client.tasks import ClaimedTask

logger = logging.getLogger(__name__)


class Pulse:
    """The time since the server last answered a heartbeat; any thread may use it.

    The server takes tasks away when no heartbeat came for a lease. Usually the server or the
    network was away. But a thread does not run either while an extension module holds the GIL; then
    it wakes later than it asked for, which shows this cause.
    """

    def __init__(self, registration: Registration, grants: Grants) -> None:
        self._registration = registration
        self._grants = grants
        self._lock = threading.Lock()
        self._is_late = False
        self.begin()

    def begin(self) -> None:
        """Begin to measure."""
        self._answered_at = time.monotonic()
        # When the thread should wake for the next heartbeat; None while it is awake.
        self._wakes_at: float | None = None
        # Seconds for which the thread last meant to sleep.
        self._pause = 0.0
        # The longest time by which it woke too late since the last answer.
        self._overslept = 0.0
        self._error: Exception | None = None

    @property
    def lease_left(self) -> float:
        """Seconds until the leases end that the last answered heartbeat renewed."""
        return self._answered_at + self._registration.lease - time.monotonic()

    def sleeps(self, seconds: float) -> None:
        """Note that the thread sleeps until the next heartbeat is due."""
        self._wakes_at, self._pause = time.monotonic() + seconds, seconds

    def woke(self) -> None:
        """Note that the thread woke, and check whether it woke too late."""
        self.check()
        with self._lock:
            self._overslept = max(self._overslept, self._time_overslept())
            self._wakes_at = None

    def answered(self, sent_at: float) -> None:
        """Note that the server answered a heartbeat that was sent at this monotonic time."""
        self.check(sent_at)
        with self._lock:
            self._answered_at = sent_at
            self._overslept, self._error, self._is_late = 0.0, None, False

    def failed(self, error: Exception) -> None:
        """Note that a heartbeat failed."""
        self._error = error
        self.check()

    def check(self, now: float | None = None) -> None:
        """Note at the held tasks, and log once, that no heartbeat was answered for a lease."""
        with self._lock:
            now = time.monotonic() if now is None else now
            lease, silence = self._registration.lease, now - self._answered_at
            if silence <= lease:
                return
            text = (
                f"No heartbeat of the worker was answered for {silence:.1f} s, longer than the "
                f"lease of {lease:g} s, because {self._cause(silence)}"
            )
            late = self._grants.note_lateness(text, now - lease)
            if not self._is_late:
                ids = ", ".join(late) or "none"
                logger.error(
                    "%s Tasks that the server may have taken away: %s.",
                    text,
                    ids,
                    extra={"task_ids": late, "worker_id": self._registration.worker_id},
                )
            self._is_late = True

    def explanation(self, task: ClaimedTask) -> str | None:
        """Why the server may have taken a held task away; None if its heartbeats came in time."""
        self.check()
        return self._grants.lateness(task)

    def _time_overslept(self) -> float:
        return 0.0 if self._wakes_at is None else max(0.0, time.monotonic() - self._wakes_at)

    def _cause(self, silence: float) -> str:
        overslept = max(self._overslept, self._time_overslept())
        if overslept > silence / 2:
            return (
                f"the thread that sends them could not run for {overslept:.1f} s: an extension "
                "module held the GIL, or the machine was paused or overloaded. Run such work in a "
                "subprocess, or raise worker_timeout_seconds of the server."
            )
        if self._error is None and self._pause >= self._registration.lease:
            return (
                f"they are sent every {self._pause:g} s only. Lower heartbeat_interval of the "
                "JobManager, or heartbeat_interval_seconds of the server."
            )
        return (
            f"the server did not take them ({self._error or 'a request is under way'}). Raise "
            "worker_timeout_seconds of the server if this is to be expected."
        )
