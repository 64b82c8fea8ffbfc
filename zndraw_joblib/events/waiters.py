"""Counts the requests and WebSockets that wait in this process, by what they wait for."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from zndraw_joblib.signals import waits_changed

P = ParamSpec("P")
R = TypeVar("R")

#: What is waited for: the end, work, a change, log text, or a cancel (of a heartbeat); and the
#: WebSockets of rooms.
KINDS = ("end", "work", "change", "log", "heartbeat", "room")

_numbers: Counter[str] = Counter()
# Several event loops may run in one process.
_lock = threading.Lock()


def counted(
    kind: str,
) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Callable[P, Coroutine[Any, Any, R]]]:
    """Decorate a coroutine function: its calls count as waiters while they run."""

    def decorate(
        wait: Callable[P, Coroutine[Any, Any, R]],
    ) -> Callable[P, Coroutine[Any, Any, R]]:
        @wraps(wait)
        async def counting(*args: P.args, **kwargs: P.kwargs) -> R:
            _change(kind, 1)
            try:
                return await wait(*args, **kwargs)
            finally:
                _change(kind, -1)

        return counting

    return decorate


def _change(kind: str, by: int) -> None:
    with _lock:
        _numbers[kind] += by
        # Under the lock, because of two numbers the later one must be received last.
        waits_changed.send_robust(None, kind=kind, number=_numbers[kind])


def _reset() -> None:
    """Forget the parent's waiters after a fork."""
    global _lock
    _lock = threading.Lock()
    _numbers.clear()


os.register_at_fork(after_in_child=_reset)
