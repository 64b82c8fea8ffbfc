"""``manage.py run_sweeper``: sweep at an interval until SIGTERM or SIGINT."""

from __future__ import annotations

import logging
import signal
import threading
from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, InterfaceError, close_old_connections

from zndraw_joblib import notifications
from zndraw_joblib.settings import get_settings
from zndraw_joblib.sweeper import sweep

logger = logging.getLogger(__name__)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise ArgumentTypeError(f"{text!r} is no positive number of seconds")
    return seconds


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
                notifications.flush()
            return
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        while not stop.is_set():
            try:
                logger.info("sweep %s", sweep())
            except (DatabaseError, InterfaceError):
                logger.exception("sweep failed; trying again at the next pass")
            # A connection that the database dropped is made anew at the next pass.
            close_old_connections()
            stop.wait(interval or get_settings().sweeper_interval_seconds)
        notifications.flush()
