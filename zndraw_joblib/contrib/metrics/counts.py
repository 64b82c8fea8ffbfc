"""The metrics of this process, counted by receivers of the app's signals."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.dispatch import Signal
from prometheus_client import Counter, Gauge, Histogram

from zndraw_joblib import signals
from zndraw_joblib.contrib.metrics.labels import LABELS, labels_of
from zndraw_joblib.events.waiters import KINDS
from zndraw_joblib.lifecycle import TERMINAL_STATUSES
from zndraw_joblib.storage.rows import TaskRow

PREFIX = "zndraw_joblib"
#: Bounds in seconds, from 10 ms to a day.
BUCKETS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3600, 10_800, 36_000, 86_400)

SUBMITS = Counter(f"{PREFIX}_submits", "Tasks that were accepted.", LABELS)
CLAIMS = Counter(f"{PREFIX}_claims", "Tasks that workers were granted.", LABELS)
ENDS = Counter(f"{PREFIX}_ends", "Tasks that ended.", (*LABELS, "status"))
REQUEUES = Counter(
    f"{PREFIX}_requeues",
    "Tasks that became pending again: failed with retries left, or lost with their worker, "
    "unstarted ones and those that an operator requeued among them.",
    (*LABELS, "reason"),
)
QUEUE_DELAY = Histogram(
    f"{PREFIX}_queue_delay_seconds",
    "Time from which a task is due until its first claim.",
    LABELS,
    buckets=BUCKETS,
)
RUN_TIME = Histogram(
    f"{PREFIX}_run_time_seconds",
    "Time from the start of a task's last attempt until the task ended.",
    LABELS,
    buckets=BUCKETS,
)
PUBLISH_FAILURES = Counter(
    f"{PREFIX}_publish_failures",
    "Messages that did not reach the channel layer; waiters then rely on reads of the database.",
    ("reason",),
)
WAITERS = Gauge(
    f"{PREFIX}_waiters",
    "Requests and WebSockets that wait.",
    ("kind",),
    multiprocess_mode="livesum",
)


class JobMetrics:
    """The metrics of one job, made at once, because `labels` takes longer than to count."""

    def __init__(self, job_name: str) -> None:
        labels = labels_of(*job_name.split(":", 2))
        self.submits = SUBMITS.labels(*labels)
        self.claims = CLAIMS.labels(*labels)
        self.ends = {
            status.value: ENDS.labels(*labels, status.value) for status in TERMINAL_STATUSES
        }
        self.failed = REQUEUES.labels(*labels, "failed")
        self.lost = REQUEUES.labels(*labels, "lost")
        self.queue_delay = QUEUE_DELAY.labels(*labels)
        self.run_time = RUN_TIME.labels(*labels)


#: Most jobs whose metrics are kept at hand.
MAX_KEPT = 1024
#: By the full names of the jobs.
_of_jobs: dict[str, JobMetrics] = {}


def _metrics_of(job_name: str) -> JobMetrics:
    # No LRU, because that changes at each read and would need a lock.
    metrics = _of_jobs.get(job_name)
    if metrics is None:
        if len(_of_jobs) >= MAX_KEPT:
            _of_jobs.clear()
        metrics = _of_jobs[job_name] = JobMetrics(job_name)
    return metrics


def count_changes(change: Signal, tasks: Sequence[TaskRow], lost: bool = False, **_: Any) -> None:
    """Receiver of `tasks_changed`."""
    for task in tasks:
        metrics = _metrics_of(task.job_name)
        if change is signals.task_submitted:
            metrics.submits.inc()
        elif change is signals.task_claimed:
            metrics.claims.inc()
            # Later attempts are left out, because the earlier ones took a part of their time.
            if task.attempt == 1:
                metrics.queue_delay.observe(_seconds(task.due_at, task.claimed_at))
        elif change is signals.task_requeued:
            (metrics.lost if lost else metrics.failed).inc()
        elif change is signals.task_finished:
            metrics.ends[task.status].inc()
            if task.started_at is not None:
                metrics.run_time.observe(_seconds(task.started_at, task.completed_at))


def _seconds(begin: datetime, end: datetime | None) -> float:
    """The seconds between two times; 0 where the database's clock went back between them."""
    return max(0.0, (end - begin).total_seconds()) if end else 0.0


def show_waiters(kind: str, number: int, **_: Any) -> None:
    """Receiver of `waits_changed`."""
    WAITERS.labels(kind).set(number)


def count_lost_message(reason: str, **_: Any) -> None:
    """Receiver of `message_lost`."""
    PUBLISH_FAILURES.labels(reason).inc()


def connect() -> None:
    """Connect the receivers; the app does so when it is ready."""
    # Set at once, because the file of an earlier process with this id may have other numbers.
    for kind in KINDS:
        WAITERS.labels(kind).set(0)
    for reason in ("full", "layer"):
        PUBLISH_FAILURES.labels(reason)
    signals.tasks_changed.connect(count_changes, dispatch_uid="zndraw_joblib.metrics.tasks")
    signals.waits_changed.connect(show_waiters, dispatch_uid="zndraw_joblib.metrics.waits")
    signals.message_lost.connect(count_lost_message, dispatch_uid="zndraw_joblib.metrics.lost")
