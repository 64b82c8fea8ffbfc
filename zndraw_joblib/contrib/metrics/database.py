"""The metrics that are read from the database when Prometheus asks."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator

from django.db import DatabaseError, InterfaceError
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from zndraw_joblib.contrib.metrics.counts import PREFIX
from zndraw_joblib.contrib.metrics.labels import LABELS, labels_of
from zndraw_joblib.services import observation
from zndraw_joblib.storage.connections import release_connections
from zndraw_joblib.tenancy import all_tenants, in_tenant

logger = logging.getLogger(__name__)

#: Seconds for which the numbers are kept, because several Prometheus servers may ask.
KEPT_SECONDS = 5.0


class DatabaseCollector(Collector):
    """Gauges of the queues, the workers and the sweeper, summed over the tenants of the site.

    While the database cannot be read, only `up` is there, with 0.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._kept: list[GaugeMetricFamily] = []

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The gauges, at most `KEPT_SECONDS` old."""
        # One thread reads, the others wait for its numbers.
        with self._lock:
            if time.monotonic() - self._read_at > KEPT_SECONDS:
                self._kept = list(_gauges())
                self._read_at = time.monotonic()
            return self._kept


def _gauges() -> Iterator[GaugeMetricFamily]:
    try:
        found = list(_read())
        up = 1
    except (DatabaseError, InterfaceError) as error:
        logger.warning("could not read the database for metrics: %s", str(error).strip())
        found, up = [], 0
    finally:
        release_connections()
    yield GaugeMetricFamily(
        f"{PREFIX}_database_up", "Whether the database could be read for these metrics.", up
    )
    yield from found


def _read() -> Iterator[GaugeMetricFamily]:
    pending: defaultdict[tuple[str, str], int] = defaultdict(int)
    oldest: defaultdict[tuple[str, str], float] = defaultdict(float)
    claimed = running = workers = 0
    overdue = 0.0
    sweep_ages = []
    for tenant in all_tenants():
        with in_tenant(tenant):
            for queue in observation.queues():
                labels = labels_of(queue.room_id, queue.category, queue.name)
                pending[labels] += queue.pending
                oldest[labels] = max(oldest[labels], queue.oldest_seconds)
            held = observation.held()
            claimed, running = claimed + held.claimed, running + held.running
            overdue = max(overdue, held.overdue_seconds)
            workers += observation.live_workers()
            sweep_ages.append(observation.seconds_since_sweep())
    gauge = GaugeMetricFamily(
        f"{PREFIX}_pending_tasks_capped",
        f"Due tasks, of each job counted up to {observation.MAX_PENDING:,}.",
        labels=LABELS,
    )
    for labels, number in pending.items():
        gauge.add_metric(labels, number)
    yield gauge
    gauge = GaugeMetricFamily(
        f"{PREFIX}_oldest_unclaimed_seconds",
        "Time for which the oldest task has been due that no worker has claimed.",
        labels=LABELS,
    )
    for labels, seconds in oldest.items():
        gauge.add_metric(labels, seconds)
    yield gauge
    gauge = GaugeMetricFamily(
        f"{PREFIX}_held_tasks_capped",
        f"Tasks that workers hold, counted up to {observation.MAX_COUNTED:,}.",
        labels=("status",),
    )
    gauge.add_metric(("claimed",), claimed)
    gauge.add_metric(("running",), running)
    yield gauge
    yield GaugeMetricFamily(
        f"{PREFIX}_live_workers_capped",
        f"Workers with a heartbeat in time, counted up to {observation.MAX_COUNTED:,}.",
        workers,
    )
    yield GaugeMetricFamily(
        f"{PREFIX}_overdue_lease_seconds",
        "Time since the oldest lease ended that no sweeper has recovered; 0 without one.",
        overdue,
    )
    yield GaugeMetricFamily(
        f"{PREFIX}_sweep_age_seconds",
        "Time since the sweeper's last pass; infinite if none ever was.",
        max(sweep_ages, default=0.0),
    )
