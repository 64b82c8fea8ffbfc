"""``manage.py run_sweeper``: sweep at an interval until SIGTERM or SIGINT."""

from __future__ import annotations

import logging
import queue
import signal
import threading
import time
from argparse import ArgumentParser, ArgumentTypeError
from contextlib import suppress
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, InterfaceError, close_old_connections

from zndraw_joblib.events.publisher import flush
from zndraw_joblib.services.sweep import sweep
from zndraw_joblib.settings import get_settings

logger = logging.getLogger(__name__)

#: Seconds by which a signal may be noticed late. One that arrives just before the main thread
#: begins to wait, or in another thread, does not wake it: Python runs handlers between bytecodes.
SIGNAL_LATENCY = 0.5


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise ArgumentTypeError(f"{text!r} is no positive number of seconds")
    return seconds


def _told_within(seconds: float, told: queue.SimpleQueue[int]) -> bool:
    """Wait to be told to end; whether that came."""
    end = time.monotonic() + seconds
    while True:
        left = end - time.monotonic()
        with suppress(queue.Empty):
            told.get(timeout=max(0.0, min(left, SIGNAL_LATENCY)))
            return True
        if left <= SIGNAL_LATENCY:
            return False


class Command(BaseCommand):
    """Take tasks from dead workers, remove those workers, retire the jobs nobody offers."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add ``--once`` and ``--interval``."""
        parser.add_argument("--once", action="store_true", help="Sweep once and end.")
        parser.add_argument(
            "--interval",
            type=_seconds,
            help="Seconds between two passes; default: the setting sweeper_interval_seconds.",
        )

    def handle(self, *, once: bool, interval: float | None, **options: Any) -> None:
        """Sweep, once or until told to end."""
        if not (logger.isEnabledFor(logging.INFO) and logger.hasHandlers()):
            # The host configured no logging for us: show the lines all the same.
            logger.addHandler(logging.StreamHandler(self.stderr))
            logger.setLevel(logging.INFO)
        if once:
            try:
                logger.info("sweep %s", sweep())
            except (DatabaseError, InterfaceError) as error:
                raise CommandError(f"The sweep failed: {error}") from error
            finally:
                flush()
            return
        # A handler may put into this whatever it interrupts; an Event has a lock that may be held.
        told: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: told.put(number))
        pause = 0.0
        while not _told_within(pause, told):
            try:
                logger.info("sweep %s", sweep())
            except (DatabaseError, InterfaceError):
                logger.exception("sweep failed; trying again at the next pass")
            # A connection that the database dropped is made anew at the next pass.
            close_old_connections()
            pause = interval or get_settings().sweeper_interval_seconds
        flush()
