"""Heartbeats that wait, by which a worker learns of a cancel within milliseconds."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

import httpx

from zndraw_joblib.client.api import ApiManager, path, send
from zndraw_joblib.client.grants import Grants
from zndraw_joblib.client.registration import Registration
from zndraw_joblib.client.retry import retry_after
from zndraw_joblib.client.schemas import HeartbeatReply, read_heartbeat
from zndraw_joblib.client.tasks import ClaimedTask

logger = logging.getLogger(__name__)

#: Seconds after its claim from which a task is watched, because many end sooner.
SETTLE_SECONDS = 0.1
#: Least seconds between the beginnings of two watches, because short tasks follow each other.
LEAST_PAUSE = 1.0
#: Most watches at once, and most tasks of one, the oldest first.
MAX_WATCHES = 4
MAX_TASKS = 100
#: Seconds without a watch after one that failed, or that the server did not let wait.
FAILED_PAUSE, REFUSED_PAUSE = 5.0, 60.0


class CancelWatches:
    """Watches the held tasks of a worker, each request in a thread of its own.

    A watch is a heartbeat with ``Prefer: wait``, which the server answers at once when one of its
    tasks is cancelled or lost. Watches are sent beside the usual heartbeats, because those renew
    tasks that are claimed during a wait, and tell how late the worker is. A task that is claimed
    during a watch gets another one. Threads are daemons, and `stop` does not wait for them, because
    a watch may take a third of the lease.
    """

    def __init__(self, api: ApiManager, registration: Registration, grants: Grants) -> None:
        self._api = api
        self._registration = registration
        self._grants = grants
        self._ended = threading.Event()
        self._lock = threading.Lock()
        # The tasks of the watches under way, by id and attempt.
        self._watched: set[tuple[str, int]] = set()
        self._number = 0
        # The monotonic time before which no watch begins.
        self._not_before = 0.0

    def start(self) -> None:
        """Watch the tasks that are held from now on."""
        self._ended = threading.Event()
        threading.Thread(
            target=self._run, args=(self._ended,), name="joblib-watch", daemon=True
        ).start()

    def stop(self) -> None:
        """Begin no more watches."""
        self._ended.set()

    def _run(self, ended: threading.Event) -> None:
        while not ended.wait(SETTLE_SECONDS):
            if not self._grants.wait_until_some(1.0):
                continue
            worker_id, wait = self._registration.worker_id, self._longest_wait()
            if worker_id is None or not wait or time.monotonic() < self._not_before:
                continue
            tasks, age = self._unwatched()
            if not tasks or self._number >= MAX_WATCHES:
                continue
            # Longer for older tasks, because a watch of tasks that ended occupies a connection.
            wait = min(wait, max(1, int(2 * age)))
            keys = {(task.id, task.attempt) for task in tasks}
            with self._lock:
                self._watched |= keys
                self._number += 1
                self._not_before = time.monotonic() + LEAST_PAUSE
            threading.Thread(
                target=self._watch,
                args=(worker_id, tasks, wait),
                name="joblib-watch-request",
                daemon=True,
            ).start()

    def _longest_wait(self) -> int:
        return int(self._registration.lease / 3)

    def _unwatched(self) -> tuple[list[ClaimedTask], float]:
        """The tasks to watch, and the seconds since the latest of them was claimed."""
        held = self._grants.held_for(SETTLE_SECONDS)[:MAX_TASKS]
        with self._lock:
            tasks = [
                (task, age)
                for task, age in held
                if (task.id, task.attempt) not in self._watched
                and not self._grants.is_stopped(task)
            ]
        return [task for task, _ in tasks], min((age for _, age in tasks), default=0.0)

    def _watch(self, worker_id: str, tasks: Sequence[ClaimedTask], wait: int) -> None:
        pause = LEAST_PAUSE
        try:
            reply, waited = send(
                self._api,
                "PATCH",
                path("workers", worker_id),
                read=_read_watch,
                body={"tasks": [{"id": task.id, "attempt": task.attempt} for task in tasks]},
                wait=wait,
                retry=None,
            )
            self._grants.stop(tasks, reply.lost, reply.cancelled)
            pause = 0.0 if reply.lost or reply.cancelled else LEAST_PAUSE
            if not waited:
                pause = REFUSED_PAUSE
        except Exception as error:
            # The usual heartbeats handle and log errors; code of the host may raise any.
            logger.debug("could not wait for cancels: %r", error, extra={"worker_id": worker_id})
            pause = retry_after(error) or FAILED_PAUSE
        finally:
            with self._lock:
                self._watched -= {(task.id, task.attempt) for task in tasks}
                self._number -= 1
                if pause != LEAST_PAUSE:
                    self._not_before = time.monotonic() + pause


def _read_watch(answer: httpx.Response) -> tuple[HeartbeatReply, bool]:
    """The reply, and whether the server honoured the wait."""
    applied = answer.headers.get("Preference-Applied", "wait=0")
    return read_heartbeat(answer), applied != "wait=0"
