"""Counts the requests and WebSockets that wait in this process, by what they wait for."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from zndraw_joblib.signals import waits_changed

P = ParamSpec("P")
R = TypeVar("R")

#: Waits for the end, work, a change, log text, or a cancel (of a heartbeat); WebSockets for the
#: ends in a room; and watchers of a room's events, by WebSocket or Server-Sent Events.
KINDS = ("end", "work", "change", "log", "heartbeat", "room", "events")

_numbers: Counter[str] = Counter()
# Several event loops may run in one process.
_lock = threading.Lock()


@contextmanager
def counting(kind: str) -> Iterator[None]:
    """Count a waiter within a `with` block."""
    _change(kind, 1)
    try:
        yield
    finally:
        _change(kind, -1)


def counted(
    kind: str,
) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Callable[P, Coroutine[Any, Any, R]]]:
    """Decorate a coroutine function: its calls count as waiters while they run."""

    def decorate(
        wait: Callable[P, Coroutine[Any, Any, R]],
    ) -> Callable[P, Coroutine[Any, Any, R]]:
        @wraps(wait)
        async def counted_wait(*args: P.args, **kwargs: P.kwargs) -> R:
            with counting(kind):
                return await wait(*args, **kwargs)

        return counted_wait

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
