"""The time that a client may take for a part of a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self


class SendTimer:
    """Calls `expire` once, if a send within the `with` block takes longer than `seconds`.

    It has one timer of the loop for many sends, because one for each of them costs a tenth of the
    send.
    """

    def __init__(self, seconds: float, expire: Callable[[], object]) -> None:
        self._seconds = seconds
        self._expire = expire
        self._loop = asyncio.get_running_loop()
        self._began: float | None = None

    def __enter__(self) -> Self:
        """Start the timer."""
        self._look()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop the timer."""
        self._timer.cancel()

    def begin(self) -> None:
        """Note that a send begins."""
        self._began = self._loop.time()

    def end(self) -> None:
        """Note that the client has taken what was sent."""
        self._began = None

    def _look(self) -> None:
        now = self._loop.time()
        due = (now if self._began is None else self._began) + self._seconds
        if due <= now:
            self._expire()
        else:
            self._timer = self._loop.call_at(due, self._look)
