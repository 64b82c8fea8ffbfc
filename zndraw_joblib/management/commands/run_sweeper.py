"""``manage.py run_sweeper``: sweeps at an interval until SIGTERM or SIGINT."""

from __future__ import annotations

import logging
import queue
import signal
import threading
import time
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, InterfaceError, close_old_connections

from zndraw_joblib.events.publisher import flush
from zndraw_joblib.services.sweep import sweep_tenants
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage.outages import Outage, outage_of

logger = logging.getLogger(__name__)

#: Seconds between two checks for a signal. A signal does not end a wait of the main thread if it
#: comes just before the wait or to another thread, because Python runs handlers between bytecodes.
SIGNAL_LATENCY = 0.5


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return seconds


def _is_stopped_within(seconds: float, signals: queue.SimpleQueue[int]) -> bool:
    """Wait up to `seconds` for a signal; returns whether one came."""
    end = time.monotonic() + seconds
    while True:
        left = end - time.monotonic()
        with suppress(queue.Empty):
            signals.get(timeout=max(0.0, min(left, SIGNAL_LATENCY)))
            return True
        if left <= SIGNAL_LATENCY:
            return False


@contextmanager
def _stop_signals() -> Iterator[queue.SimpleQueue[int]]:
    """Queue SIGTERM and SIGINT, and then give them the handlers of before back."""
    # A reentrant queue, because a signal handler may interrupt a thread that holds a lock.
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda number, _: signals.put(number)) for number in numbers]
    try:
        yield signals
    finally:
        for number, handler in zip(numbers, before, strict=True):
            # None stands for a handler that C code installed and that Python cannot install again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def _logging_to(stream: Any) -> Iterator[None]:
    """Make the line of each sweep appear where the host's logging leaves its level or handler open.

    A handler beside one of the host's would write each line twice.
    """
    handler = None if logger.hasHandlers() else logging.StreamHandler(stream)
    level = logger.level
    if handler is not None:
        logger.addHandler(handler)
    if not _has_level(logger):
        # Otherwise the level of the root logger counts, which is WARNING by default.
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        if handler is not None:
            logger.removeHandler(handler)


def _has_level(logger: logging.Logger) -> bool:
    """Whether the host set a level for the logger, or for one above it other than the root."""
    while logger.parent is not None:
        if logger.level != logging.NOTSET:
            return True
        logger = logger.parent
    return False


def _refuse_unmigrated(outage: Outage | None, error: Exception) -> None:
    """End the command if the database is not migrated, because no later sweep could succeed."""
    if outage is Outage.UNMIGRATED:
        raise CommandError(
            f"The database lacks a table or column: {str(error).strip()}\nRun `manage.py migrate`."
        ) from error


def _serve_metrics(port: int) -> None:
    if not apps.is_installed("zndraw_joblib.contrib.metrics"):
        raise CommandError("--metrics-port needs zndraw_joblib.contrib.metrics in INSTALLED_APPS.")
    # Imported here, because prometheus-client is an extra.
    from prometheus_client import start_http_server  # noqa: PLC0415

    from zndraw_joblib.contrib.metrics.registry import process_registry  # noqa: PLC0415

    start_http_server(port, registry=process_registry())


class Command(BaseCommand):
    """Ends or requeues tasks of dead workers, removes those workers and retires their jobs."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add ``--once``, ``--interval`` and ``--metrics-port``."""
        parser.add_argument("--once", action="store_true", help="Sweep once and exit.")
        parser.add_argument(
            "--interval",
            type=_seconds,
            help="Seconds between two sweeps; default: the setting sweeper_interval_seconds.",
        )
        parser.add_argument(
            "--metrics-port",
            type=int,
            help="Port at which Prometheus finds the metrics of this process, such as the tasks "
            "that it ended; needs zndraw_joblib.contrib.metrics.",
        )

    def handle(
        self, *, once: bool, interval: float | None, metrics_port: int | None, **options: Any
    ) -> None:
        """Sweep once, or until a signal stops the command."""
        if metrics_port is not None:
            _serve_metrics(metrics_port)
        with _logging_to(self.stderr):
            try:
                if once:
                    self._sweep_once()
                else:
                    with _stop_signals() as signals:
                        self._sweep_until_stopped(interval, signals)
            finally:
                flush()

    def _sweep_once(self) -> None:
        try:
            logger.info("sweep %s", sweep_tenants())
        except (DatabaseError, InterfaceError) as error:
            _refuse_unmigrated(outage_of(error), error)
            raise CommandError(f"The sweep failed: {error}") from error

    def _sweep_until_stopped(self, interval: float | None, signals: queue.SimpleQueue[int]) -> None:
        pause = 0.0
        while not _is_stopped_within(pause, signals):
            try:
                logger.info("sweep %s", sweep_tenants())
            except (DatabaseError, InterfaceError) as error:
                outage = outage_of(error)
                _refuse_unmigrated(outage, error)
                # Without a traceback if the database is away, because the code has no fault then.
                logger.error(
                    "sweep failed; trying again at the next sweep: %s",
                    str(error).strip(),
                    exc_info=error if outage is None else None,
                )
            # Closes a connection that the database dropped, so that the next sweep makes a new one.
            close_old_connections()
            pause = interval or get_settings().sweeper_interval_seconds
