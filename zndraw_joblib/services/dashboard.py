"""The numbers of the operators' dashboard.

They are read from the statistics and by bounded index lookups. Nothing here counts or scans tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import reduce
from operator import add
from uuid import UUID

from django.db import router
from django.db.models import Exists, F, OuterRef, Sum

from zndraw_joblib.models import (
    FailureGroup,
    Job,
    JobGauge,
    JobInterval,
    StatisticsState,
    SweeperPass,
    Task,
    Worker,
    WorkerJobLink,
)
from zndraw_joblib.services.held import Held, held_tasks
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage.clock import database_time
from zndraw_joblib.storage.intervals import ALL_JOBS, ENDS, LENGTHS, Counts, floor_time

#: The spans that a dashboard shows, and the length of their intervals in seconds.
SPANS = {
    "hour": (timedelta(hours=1), LENGTHS[0]),
    "day": (timedelta(days=1), LENGTHS[1]),
    "week": (timedelta(days=7), LENGTHS[2]),
}
#: Most jobs, workers and groups of failures that a dashboard lists.
MAX_LISTED = 50
#: Most workers that are counted, and most jobs with work whose workers are looked for.
MAX_COUNTED = 10_000
#: A pass of the sweeper is late when the last one ended this many intervals ago, and a while more,
#: because a pass takes some seconds itself.
LATE_INTERVALS, LATE_SECONDS = 3, 30


@dataclass
class JobNumbers:
    """The numbers of a job: its unfinished tasks, and what happened in the span."""

    job: Job
    gauge: JobGauge | None = None
    counts: Counts = field(default_factory=Counts)
    is_served: bool = True


@dataclass
class WorkerNumbers:
    """A worker and what it holds; None if it holds nothing."""

    worker: Worker
    held: Held | None


@dataclass
class Dashboard:
    """All numbers of a dashboard, as of `now`.

    `points` are the intervals of the span in the order of time. `jobs`, `workers` and `failures`
    are the first `MAX_LISTED` of each. `unserved` jobs have due tasks and no live worker.
    """

    now: datetime
    span: timedelta
    job: Job | None
    last_pass: SweeperPass | None
    state: StatisticsState | None
    points: list[tuple[datetime, Counts]]
    total: Counts
    gauge: JobGauge
    jobs: list[JobNumbers]
    other_jobs: int
    unserved: list[JobNumbers]
    workers: list[WorkerNumbers]
    worker_count: int
    failures: list[tuple[FailureGroup, Job | None]]

    @property
    def is_late(self) -> bool:
        """Whether the sweeper never ended a pass, or not for longer than it should."""
        interval = get_settings().sweeper_interval_seconds
        allowed = timedelta(seconds=LATE_INTERVALS * interval + LATE_SECONDS)
        return self.last_pass is None or self.now - self.last_pass.ended_at > allowed

    def is_counted(self, begins_at: datetime) -> bool:
        """Whether an interval was counted; one that was not has no numbers, rather than zeros."""
        state = self.state
        return bool(
            state and state.since and state.ended_until and state.since <= begins_at
            < state.ended_until
        )  # fmt: skip

    @property
    def ended_per_minute(self) -> float:
        """The throughput over the part of the span that was counted."""
        state = self.state
        if state is None or state.since is None or state.ended_until is None:
            return 0.0
        begun = max(self.points[0][0], state.since)
        return self.total.ended / max((state.ended_until - begun).total_seconds() / 60, 1.0)


def read_dashboard(span: str, job_id: UUID | None = None) -> Dashboard:
    """The numbers of a span of `SPANS`, of one job or of all.

    Raises
    ------
    Job.DoesNotExist
        There is no such job.
    """
    length, seconds = SPANS[span]
    now = database_time(router.db_for_read(Task))
    since = floor_time(now - length, seconds) + timedelta(seconds=seconds)
    job = None if job_id is None else Job.objects.get(pk=job_id)
    points = _points(since, now, seconds, job_id or ALL_JOBS)
    total = Counts()
    for _, counts in points:
        total.add(counts)
    gauges = {gauge.job_id: gauge for gauge in JobGauge.objects.all()}
    sums = _sums(since, seconds)
    unserved = _unserved(gauges, now)
    ranked = sorted(gauges.keys() | sums.keys(), key=lambda key: _rank(key, gauges, sums))
    listed = [job_id] if job_id is not None else ranked[:MAX_LISTED]
    lines = _job_lines(listed, gauges, unserved, since, seconds)
    failed = FailureGroup.objects.filter(last_at__gte=now - length)
    if job_id is not None:
        failed = failed.filter(job_id=job_id)
    groups = list(failed.order_by("-last_at")[:MAX_LISTED])
    workers, worker_count = _workers()
    names = _jobs({group.job_id for group in groups} | set(unserved[:MAX_LISTED]))
    return Dashboard(
        now=now,
        span=length,
        job=job,
        last_pass=SweeperPass.objects.first(),
        state=StatisticsState.objects.first(),
        points=points,
        total=total,
        gauge=_sum_of_gauges(
            gauge for key, gauge in gauges.items() if job_id is None or key == job_id
        ),
        jobs=lines,
        other_jobs=max(0, len(ranked) - MAX_LISTED) if job_id is None else 0,
        unserved=[
            JobNumbers(names[key], gauges[key]) for key in unserved[:MAX_LISTED] if key in names
        ],
        workers=workers,
        worker_count=worker_count,
        failures=[(group, names.get(group.job_id)) for group in groups],
    )


def _points(
    since: datetime, now: datetime, seconds: int, job_id: UUID
) -> list[tuple[datetime, Counts]]:
    """The counts of each interval, also of those without a row."""
    points = {}
    while since <= now:
        points[since] = Counts()
        since += timedelta(seconds=seconds)
    first = next(iter(points), now)
    for row in JobInterval.objects.filter(seconds=seconds, begins_at__gte=first, job_id=job_id):
        if row.begins_at in points:
            points[row.begins_at].add(row)
    return list(points.items())


def _sums(since: datetime, seconds: int) -> dict[UUID, int]:
    """The number of tasks that ended, by job."""
    rows = JobInterval.objects.filter(seconds=seconds, begins_at__gte=since)
    sums = rows.exclude(job_id=ALL_JOBS).values_list("job_id")
    return dict(sums.annotate(ended=Sum(reduce(add, map(F, ENDS)))))


def _rank(
    job_id: UUID, gauges: Mapping[UUID, JobGauge], sums: Mapping[UUID, int]
) -> tuple[int, int, UUID]:
    """Jobs with the longest backlogs first, then those with the most ends."""
    gauge = gauges.get(job_id)
    return -(gauge.pending if gauge else 0), -sums.get(job_id, 0), job_id


def _unserved(gauges: Mapping[UUID, JobGauge], now: datetime) -> list[UUID]:
    """The jobs with due tasks and without a live worker, those with the longest backlogs first."""
    waiting = sorted(
        (gauge for gauge in gauges.values() if gauge.pending), key=lambda gauge: -gauge.pending
    )
    ids = [gauge.job_id for gauge in waiting[:MAX_COUNTED]]
    live = WorkerJobLink.objects.filter(
        job=OuterRef("pk"), worker__last_heartbeat__gte=now - get_settings().lease
    )
    served = set(Job.objects.filter(Exists(live), pk__in=ids).values_list("pk", flat=True))
    return [job_id for job_id in ids if job_id not in served]


def _job_lines(
    listed: list[UUID],
    gauges: Mapping[UUID, JobGauge],
    unserved: list[UUID],
    since: datetime,
    seconds: int,
) -> list[JobNumbers]:
    """The numbers of these jobs, in this order."""
    jobs = _jobs(listed)
    lines = {
        key: JobNumbers(jobs[key], gauges.get(key), is_served=key not in unserved)
        for key in listed
        if key in jobs
    }
    rows = JobInterval.objects.filter(seconds=seconds, begins_at__gte=since, job_id__in=listed)
    for row in rows:
        if row.job_id in lines:
            lines[row.job_id].counts.add(row)
    return list(lines.values())


def _jobs(ids: Iterable[UUID]) -> dict[UUID, Job]:
    return {job.pk: job for job in Job.objects.defer("schema").filter(pk__in=ids)}


def _workers() -> tuple[list[WorkerNumbers], int]:
    """The workers with the oldest heartbeats and what they run, and the number of all workers."""
    ids = list(Worker.objects.order_by("last_heartbeat").values_list("pk", flat=True)[:MAX_COUNTED])
    found = list(Worker.objects.filter(pk__in=ids[:MAX_LISTED]).order_by("last_heartbeat"))
    held = held_tasks(found)
    return [WorkerNumbers(worker, held.get(worker.pk)) for worker in found], len(ids)


def _sum_of_gauges(gauges: Iterable[JobGauge]) -> JobGauge:
    total = JobGauge(job_id=ALL_JOBS, pending=0, scheduled=0, claimed=0, running=0)
    oldest = []
    for gauge in gauges:
        for name in ("pending", "scheduled", "claimed", "running"):
            setattr(total, name, getattr(total, name) + getattr(gauge, name))
        if gauge.oldest_due_at is not None:
            oldest.append(gauge.oldest_due_at)
    total.oldest_due_at = min(oldest, default=None)
    return total
