"""Signal handlers, and what a process that was forked from a worker must not inherit.

A forked child has a copy of the worker's memory, but of its threads only the one that forked.
Without care its SIGTERM handler would stop nothing, so that `multiprocessing.Pool` and
`Process.terminate` would wait for ever, and it would send its requests through the connections of
its parent.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol
from weakref import WeakValueDictionary

#: The handlers of `signals_call`, and the handlers that they replaced, by signal.
_replaced: dict[int, tuple[Any, Any]] = {}
#: Seconds after which a child gets an interrupt again that came while it was forked.
RESEND_SECONDS = 0.05
#: The signal mask of each thread that forks, from before the fork.
_forking = threading.local()


class Forkable(Protocol):
    """An object with state that belongs to one process."""

    def after_fork(self) -> None:
        """Replace this state, in the child."""


#: By `id`, because a `JobManager` has no hash.
_forkables: WeakValueDictionary[int, Forkable] = WeakValueDictionary()


def reset_after_fork(forkable: Forkable) -> None:
    """Call `forkable.after_fork` in every process that is forked from now on."""
    _forkables[id(forkable)] = forkable


@contextmanager
def signals_call(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` at SIGINT and SIGTERM; a second SIGINT interrupts as usual."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()

    def handle(number: int, _frame: Any) -> None:
        if os.getpid() != process:
            # C code has forked, for which Python does not call `_after_fork`.
            _restore_handlers()
            signal.raise_signal(number)
            return
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # In another thread, because the interrupted one may hold a lock that `stop` needs.
        threading.Thread(target=stop, name="joblib-stop").start()

    for number in (signal.SIGINT, signal.SIGTERM):
        _replaced[number] = (handle, signal.getsignal(number))
        signal.signal(number, handle)
    try:
        yield
    finally:
        for replaced, (_, before) in _replaced.items():
            _set_handler(replaced, before)
        _replaced.clear()


def _restore_handlers() -> None:
    """Give the child the handlers that the process had before, except where these were changed."""
    for number, (ours, before) in _replaced.items():
        if signal.getsignal(number) is ours:
            _set_handler(number, before)
    _replaced.clear()


def _set_handler(number: int, handler: Any) -> None:
    # None stands for a handler that C code installed and that Python cannot install again.
    signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _block_signals() -> None:
    """Keep signals to the child pending until it has its handlers.

    A signal between the fork and Python's own work in the child would be lost, because Python
    discards the signals that its handlers caught there, so that `terminate` would wait for ever.
    """
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _replaced.keys())


def _unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _after_fork() -> None:
    _restore_handlers()
    for forkable in list(_forkables.values()):
        forkable.after_fork()
    try:
        _unblock_signals()
    except KeyboardInterrupt:
        # Sent again in a moment, because Python only prints the exceptions of this function. To the
        # main thread, because a signal to the timer's own thread would not end a sleep there.
        main = threading.main_thread().ident
        again = threading.Timer(RESEND_SECONDS, signal.pthread_kill, [main, signal.SIGINT])
        again.daemon = True
        again.start()


# Windows does not fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_block_signals, after_in_parent=_unblock_signals, after_in_child=_after_fork
    )
