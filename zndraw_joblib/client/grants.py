"""The tasks that a worker holds, and those of them that it is to let go."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from zndraw_joblib.client.schemas import ClaimedTask


class Grants:
    """Tasks between their claim and their end; any thread may use it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: dict[str, ClaimedTask] = {}
        self._stopped: set[str] = set()
        self._expected = 0

    def add(self, tasks: Iterable[ClaimedTask]) -> None:
        """Hold tasks. Of a task that was granted anew the new attempt counts."""
        with self._changed:
            for task in tasks:
                self._held[task.id] = task
                self._stopped.discard(task.id)

    def drop(self, task_id: str, attempt: int | None = None) -> None:
        """Hold a task no longer, or not by this attempt."""
        with self._changed:
            held = self._held.get(task_id)
            if held is not None and attempt in {None, held.attempt}:
                del self._held[task_id]
                self._stopped.discard(task_id)
                self._changed.notify_all()

    def held(self) -> list[ClaimedTask]:
        """Those that are held now, in the order of their claims."""
        with self._changed:
            return list(self._held.values())

    def stop(self, tasks: Iterable[ClaimedTask]) -> None:
        """Note that somebody cancelled or got these, as far as they are held."""
        with self._changed:
            for task in tasks:
                held = self._held.get(task.id)
                if held is not None and held.attempt == task.attempt:
                    self._stopped.add(task.id)

    def stopped(self, task: ClaimedTask) -> bool:
        """Whether this was noted of the task, or it was granted anew meanwhile."""
        with self._changed:
            held = self._held.get(task.id)
            return held is not None and (task.id in self._stopped or held.attempt != task.attempt)

    @contextmanager
    def expected(self) -> Iterator[None]:
        """While tasks may be granted that run at once."""
        with self._changed:
            self._expected += 1
        try:
            yield
        finally:
            with self._changed:
                self._expected -= 1
                self._changed.notify_all()

    def wait_until_none(self) -> None:
        """Wait until nothing is held or expected."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held and not self._expected)
