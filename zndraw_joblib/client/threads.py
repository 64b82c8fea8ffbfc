"""The threads that run the tasks of a worker."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any


class WorkThreads:
    """Threads that make calls, in the order in which these were submitted.

    A `ThreadPoolExecutor` does not serve: at the end of a process Python joins the threads of all
    executors, so that a `multiprocessing.Process` that a task forked would join itself, which
    raises `RuntimeError`, and exit with 1.
    """

    def __init__(self, number: int, name: str) -> None:
        # None ends a thread.
        self._calls: queue.SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]] | None] = (
            queue.SimpleQueue()
        )
        # Daemons, because an interrupted process must end although a task does not.
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{index}", daemon=True)
            for index in range(number)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def submit(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function, which must not raise, in the next free thread."""
        self._calls.put((function, arguments))

    def end(self) -> None:
        """End the threads after the calls that were submitted, without waiting for them."""
        for _ in self._threads:
            self._calls.put(None)

    def join(self) -> None:
        """Wait until the threads have ended."""
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            function, arguments = call
            function(*arguments)


def as_exception(error: BaseException) -> Exception:
    """An error that ended a thread, as an `Exception`.

    `SystemExit` and the like are wrapped, because they would end the main thread in silence.
    """
    if isinstance(error, Exception):
        return error
    wrapped = RuntimeError(f"a thread of the worker ended with {type(error).__name__}")
    wrapped.__cause__ = error
    return wrapped
