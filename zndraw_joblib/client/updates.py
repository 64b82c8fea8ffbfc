"""Sends the progress and the logs of running tasks, from a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

import httpx

from zndraw_joblib.client.api import ApiManager, path, send
from zndraw_joblib.client.batches import array, batch_slices, encode
from zndraw_joblib.client.exceptions import ApiError, TaskNotFoundError, error_of
from zndraw_joblib.client.forks import reset_after_fork
from zndraw_joblib.client.grants import Grants
from zndraw_joblib.client.logs import THREAD_PREFIX
from zndraw_joblib.client.pending_updates import PendingUpdates, Taken
from zndraw_joblib.client.reports import LOST, REPORT_BYTES
from zndraw_joblib.client.retry import LASTING, OutageLog, backoff
from zndraw_joblib.client.schemas import Accepted, read_accepted, read_list, read_nothing, read_task
from zndraw_joblib.client.tasks import ClaimedTask

logger = logging.getLogger(__name__)

#: Seconds between two requests for the progress, and for the log, of one task.
INTERVAL = 1.0
#: Most seconds for which the report of a task's end waits for its last progress and log.
FLUSH_SECONDS = 5.0
#: Seconds without updates after which the thread ends.
IDLE_SECONDS = 10.0


class UpdateSender:
    """Sends progress and logs at most once a second, all tasks of the process together.

    The callers, which are the tasks, only leave their updates. While the server is away these wait;
    those that it refuses are dropped.
    """

    def __init__(self, api: ApiManager, grants: Grants, batch_size: int) -> None:
        self._api = api
        self._grants = grants
        self._batch_size = batch_size
        self._outage = OutageLog("send progress and logs")
        self._reset()
        reset_after_fork(self)

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._updates: dict[tuple[str, int], PendingUpdates] = {}
        self._thread: threading.Thread | None = None
        # Before these monotonic times nothing is sent: the second is the end of a pause.
        self._next_at = self._paused_until = 0.0
        self._failures = 0
        self._refusals: set[str] = set()

    def after_fork(self) -> None:
        """Leave the parent's updates to its thread, which the child does not have."""
        self._reset()

    def progress(self, task: ClaimedTask, fraction: float | None, message: str | None) -> None:
        """Leave the progress of a task; it replaces one that was not sent yet."""
        if (updates := self._of(task)) is None:
            return
        if fraction is not None:
            updates.fraction = fraction
        if message is not None:
            updates.message = message
        # Without the lock in a loop that reports each step.
        if not updates.has_progress and updates.takes_progress:
            with self._changed:
                updates.has_progress = True
                self._wake()

    def log(self, task: ClaimedTask, line: str) -> None:
        """Leave a line of a task's log."""
        if (updates := self._of(task)) is None:
            return
        with self._changed:
            if updates.takes_log:
                updates.add(line)
                self._wake()

    def finish(self, task_id: str, attempt: int | None) -> None:
        """Send the last updates of a task; returns after `FLUSH_SECONDS` at the latest.

        Without `attempt`, those of the attempt that this process knows.
        """
        if not self._updates:
            return
        with self._changed:
            for key in [key for key in self._updates if key[0] == task_id]:
                if attempt in {None, key[1]}:
                    self._finish(key)

    def _finish(self, key: tuple[str, int]) -> None:
        updates = self._updates[key]
        updates.ending = True
        if updates.pending:
            self._wake()
        ended = self._changed.wait_for(
            lambda: not updates.in_flight and not updates.pending, FLUSH_SECONDS
        )
        self._updates.pop(key, None)
        if not ended:
            logger.warning(
                "the last progress or log of task %s could not be sent",
                key[0],
                extra=updates.task.log_fields(),
            )

    def _of(self, task: ClaimedTask) -> PendingUpdates | None:
        """The updates of a task; None if it is not held, because the server would refuse them."""
        key = (task.id, task.attempt)
        updates = self._updates.get(key)
        if updates is None and self._grants.holds(task):
            with self._changed:
                updates = self._updates.setdefault(key, PendingUpdates(task))
        return updates

    def _wake(self) -> None:
        """Wake the thread, or start it; called with the lock."""
        self._changed.notify_all()
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=self._run, name=f"{THREAD_PREFIX}updates", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return  # The process ends, or has no more threads.
            self._thread = thread

    def _run(self) -> None:
        while batch := self._take_batch():
            try:
                self._send_progress([taken for taken in batch if taken.progress is not None])
                for taken in batch:
                    if taken.text:
                        self._send_text(taken)
            finally:
                with self._changed:
                    for taken in batch:
                        taken.updates.in_flight = False
                    self._changed.notify_all()

    def _take_batch(self) -> list[Taken]:
        """Wait for updates that are due; empty when none came for `IDLE_SECONDS`."""
        is_idle = False
        with self._changed:
            while True:
                pending = [updates for updates in self._updates.values() if updates.pending]
                now = time.monotonic()
                if not pending:
                    if is_idle:
                        self._thread = None
                        return []
                    # Updates that come just after the wait are seen by another turn.
                    is_idle = not self._changed.wait(IDLE_SECONDS)
                    continue
                is_idle = False
                if now >= max(self._next_at, self._paused_until):
                    self._next_at = now + INTERVAL
                    return [self._take(updates) for updates in pending]
                ending = [updates for updates in pending if updates.ending]
                if ending and now >= self._paused_until:
                    return [self._take(updates) for updates in ending]
                until = self._paused_until if ending else max(self._next_at, self._paused_until)
                self._changed.wait(until - now)

    def _take(self, updates: PendingUpdates) -> Taken:
        updates.in_flight = True
        progress = updates.take_progress() if updates.has_progress else None
        return Taken(updates, progress, updates.take_text())

    def _send_progress(self, batch: Sequence[Taken]) -> None:
        entries = [
            encode({"id": taken.updates.task.id})[:-1] + b"," + (taken.progress or b"")[1:]
            for taken in batch
        ]
        for cut in batch_slices(entries, self._batch_size, REPORT_BYTES):
            part = batch[cut]
            try:
                results = self._patch(part, entries[cut])
            except Exception as error:
                for taken in part:
                    self._failed(taken._replace(text=""), error)
                continue
            self._succeeded()
            for taken, result in zip(part, results, strict=True):
                if result.status >= 400:
                    answer = httpx.Response(result.status, json=result.problem)
                    self._failed(taken._replace(text=""), error_of(answer, result.problem))

    def _patch(self, batch: Sequence[Taken], entries: Sequence[bytes]) -> list[Accepted]:
        if len(batch) > 1:
            read = read_list(read_accepted, len(batch))
            body = array(entries)
            return send(self._api, "PATCH", path("tasks"), read=read, body=body, retry=None)
        (taken,) = batch
        url = path("tasks", taken.updates.task.id)
        send(self._api, "PATCH", url, read=read_task, body=taken.progress, retry=None)
        return [Accepted(status=200)]

    def _send_text(self, taken: Taken) -> None:
        task = taken.updates.task
        url = path("tasks", task.id, "log")
        body = {"attempt": task.attempt, "text": taken.text}
        try:
            send(self._api, "POST", url, read=read_nothing, body=body, retry=None)
        except Exception as error:
            self._failed(taken._replace(progress=None), error)
        else:
            self._succeeded()

    def _succeeded(self) -> None:
        self._failures = 0
        self._outage.ended()

    def _failed(self, taken: Taken, error: Exception) -> None:
        """Let updates wait for the end of an outage; drop them after a refusal."""
        updates = taken.updates
        pause = self._pause(error)
        with self._changed:
            if pause is not None:
                updates.put_back(taken)
                self._paused_until = time.monotonic() + pause
            elif isinstance(error, (*LOST, TaskNotFoundError)):
                updates.refuse_progress()
                updates.refuse_log()
                # As cancelled, because the refusal is logged below, and need not mean a lost task.
                self._grants.stop([updates.task], lost=(), cancelled=[updates.task.id])
            elif taken.text:
                updates.refuse_log()
            else:
                updates.refuse_progress()
        if pause is not None:
            self._outage.failed(error, pause)
        elif isinstance(error, (*LOST, TaskNotFoundError)):
            logger.info(
                "task %s takes no more progress: %s",
                updates.task.id,
                error,
                extra=updates.task.log_fields(),
            )
        else:
            kind = "log" if taken.text else "progress"
            level = logging.DEBUG if kind in self._refusals else logging.WARNING
            self._refusals.add(kind)
            logger.log(
                level,
                "the server refused the %s of a task: %s",
                kind,
                error,
                extra=updates.task.log_fields(),
            )

    def _pause(self, error: Exception) -> float | None:
        """Seconds until the next attempt; None if the server refused for good."""
        self._failures += 1
        if isinstance(error, ApiError | httpx.TransportError):
            # A 401 is repeated, because the token may be restored.
            return LASTING.pause(error, self._failures, patience=1.0)
        # Code of the host, such as an `httpx.Auth`.
        return backoff(self._failures)
