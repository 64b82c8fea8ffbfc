"""The tasks that were granted to a worker and have not ended."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from zndraw_joblib.client.tasks import ClaimedTask

logger = logging.getLogger(__name__)


class Grants:
    """The tasks between their claim and their end; any thread may use it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: dict[str, ClaimedTask] = {}
        self._stopped: set[str] = set()
        # Tasks whose end is being reported.
        self._ending: set[str] = set()
        # The monotonic time of each held task's claim, and how late the heartbeats were since.
        self._granted_at: dict[str, float] = {}
        self._lateness: dict[str, str] = {}
        self._expected = 0

    def add(self, tasks: Iterable[ClaimedTask]) -> None:
        """Add tasks. A new attempt of a task replaces the earlier one."""
        with self._changed:
            for task in tasks:
                self._held[task.id] = task
                self._stopped.discard(task.id)
                self._granted_at[task.id] = time.monotonic()
                self._lateness.pop(task.id, None)
            self._changed.notify_all()

    def drop(self, task_id: str, attempt: int | None = None) -> None:
        """Remove a task; with `attempt`, only if the held attempt is the same."""
        with self._changed:
            held = self._held.get(task_id)
            if held is not None and attempt in {None, held.attempt}:
                del self._held[task_id]
                self._stopped.discard(task_id)
                self._granted_at.pop(task_id, None)
                self._lateness.pop(task_id, None)
                self._changed.notify_all()

    def held(self) -> list[ClaimedTask]:
        """Held tasks, in the order of their claims."""
        with self._changed:
            return list(self._held.values())

    def holds(self, task: ClaimedTask) -> bool:
        """Whether this attempt of a task is held."""
        with self._changed:
            held = self._held.get(task.id)
            return held is not None and held.attempt == task.attempt

    def held_for(self, seconds: float) -> list[tuple[ClaimedTask, float]]:
        """Tasks held for so long, each with its seconds since the claim, oldest first."""
        now = time.monotonic()
        with self._changed:
            ages = [(task, now - self._granted_at[task.id]) for task in self._held.values()]
        return [(task, age) for task, age in ages if age >= seconds]

    def stop(
        self, tasks: Iterable[ClaimedTask], lost: Iterable[str], cancelled: Iterable[str]
    ) -> None:
        """Mark held tasks among these as cancelled or lost, by the answer to a heartbeat."""
        lost, stopped = set(lost), {*lost, *cancelled}
        taken = []
        with self._changed:
            stopped -= self._ending
            for task in tasks:
                held = self._held.get(task.id)
                if task.id in stopped and held is not None and held.attempt == task.attempt:
                    if task.id in lost and task.id not in self._stopped:
                        taken.append(task.id)
                    self._stopped.add(task.id)
        if taken:
            logger.warning(
                "the server took these tasks away: %s", ", ".join(taken), extra={"task_ids": taken}
            )

    def begin_ends(self, task_ids: Collection[str]) -> None:
        """Mark tasks whose end is being reported.

        `stop` leaves them out, because the answer to a heartbeat calls a task lost whose end the
        server has accepted, and may arrive before the answer to the report.
        """
        if task_ids:
            with self._changed:
                self._ending.update(task_ids)

    def finish_ends(self, task_ids: Collection[str]) -> None:
        """Remove these marks."""
        if task_ids:
            with self._changed:
                self._ending.difference_update(task_ids)

    def is_stopped(self, task: ClaimedTask) -> bool:
        """Whether a held task is marked as stopped, or was granted again as another attempt."""
        with self._changed:
            held = self._held.get(task.id)
            return held is not None and (task.id in self._stopped or held.attempt != task.attempt)

    def note_lateness(self, text: str, before: float) -> list[str]:
        """Note how late heartbeats are at the tasks granted before a monotonic time.

        Returns the ids of these tasks.
        """
        with self._changed:
            late = [task_id for task_id in self._held if self._granted_at[task_id] < before]
            self._lateness.update(dict.fromkeys(late, text))
            return late

    def lateness(self, task: ClaimedTask) -> str | None:
        """The latest note at a held task about late heartbeats."""
        with self._changed:
            held = self._held.get(task.id)
            is_held = held is not None and held.attempt == task.attempt
            return self._lateness.get(task.id) if is_held else None

    @contextmanager
    def expected(self) -> Iterator[None]:
        """Mark a claim that starts its tasks as under way, because these may be running already."""
        with self._changed:
            self._expected += 1
        try:
            yield
        finally:
            with self._changed:
                self._expected -= 1
                self._changed.notify_all()

    def wait_until_none_expected(self) -> None:
        """Wait until no claim that starts its tasks is under way."""
        with self._changed:
            self._changed.wait_for(lambda: not self._expected)

    def wait_until_some(self, timeout: float) -> bool:
        """Wait until a task is held, up to `timeout` seconds; whether one is."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self._held), timeout)

    def wait_until_none(self) -> None:
        """Wait until no task is held or expected."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held and not self._expected)
