"""Collects the statistics that `dashboard.py` reads; each pass of the sweeper calls `collect`.

Claims, submits and reports write no statistics. The sweeper reads which tasks were submitted and
which ended since its last pass, in chunks. Each chunk is one transaction under one row lock, so
that a crash or a second sweeper repeats nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import router, transaction

from zndraw_joblib.lifecycle import TERMINAL_STATUSES, TaskStatus
from zndraw_joblib.models import (
    JobGauge,
    JobInterval,
    StatisticsState,
    SweeperPass,
    Task,
)
from zndraw_joblib.models.statistics import ONLY
from zndraw_joblib.services.failures import Failure, expire_failures, record_failures
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage import statements
from zndraw_joblib.storage.clock import TOLERANCE, database_time
from zndraw_joblib.storage.histograms import add_duration
from zndraw_joblib.storage.ids import first_id
from zndraw_joblib.storage.intervals import (
    ALL_JOBS,
    HISTOGRAMS,
    LENGTHS,
    NUMBERS,
    Counts,
    Tally,
    floor_time,
)
from zndraw_joblib.storage.locking import skip_locked
from zndraw_joblib.storage.rows import parsed_id, parsed_time

#: Most submits, and most ends of each status, that one transaction counts.
CHUNK = 2_000
#: Seconds after which a pass leaves the rest to the next one, because leases end in the meantime.
PASS_SECONDS = 2.0
#: How much of its history a site counts at the first pass.
FIRST_SPAN = timedelta(days=1)
#: How far back tasks are counted again after the database's clock went back.
RECOUNT_SPAN = timedelta(hours=1)
#: Seconds between the time of a statement that ends a task and its lock on the table.
MARGIN = 2.0
#: Ids begin with the time of a server's clock. Submits are counted this long after it, so that none
#: of a server whose clock is slow is passed by.
MAX_CLOCK_DIFFERENCE = timedelta(minutes=1)
#: Counting the backlogs takes at most this fraction of the time.
SAMPLE_SHARE = 0.02
#: How long intervals are kept, by their length; the longest ones for `statistics_days`.
KEPT = {300: timedelta(hours=3), 3_600: timedelta(days=3)}

_END_COLUMNS = ("pk", "job_id", "completed_at", "due_at", "claimed_at", "started_at", "attempt")


def collect(using: str | None = None, until: float | None = None) -> None:
    """Count the tasks that were submitted, ended or are unfinished since the last pass.

    At this monotonic time, by default after `PASS_SECONDS`, the rest is left to the next pass, but
    a chunk is counted at least. A sweeper that finds another one at work leaves the work to it.
    """
    using = using or router.db_for_write(Task)
    until = time.monotonic() + PASS_SECONDS if until is None else until
    StatisticsState.objects.using(using).get_or_create(pk=ONLY)
    while _count_chunk(using) and time.monotonic() < until:
        pass
    _sample(using)
    _expire(using)


def record_pass(numbers: dict[str, int], seconds: float, using: str | None = None) -> None:
    """Record that a pass of the sweeper succeeded, with its numbers and its duration."""
    using = using or router.db_for_write(Task)
    SweeperPass.objects.using(using).update_or_create(
        pk=ONLY,
        defaults={"ended_at": database_time(using), "seconds": seconds, "numbers": numbers},
    )


@dataclass(frozen=True)
class _Chunk:
    """The limits of a chunk: the tally, and the time before which everything is committed."""

    using: str
    tally: Tally
    since: datetime
    horizon: datetime


def _count_chunk(using: str) -> bool:
    """Count a chunk in a transaction; returns whether there is more to count."""
    # Before the transaction, because its snapshot has to be later than the horizon.
    ((now, horizon),) = statements.run(using, "read_horizon", margin=MARGIN).rows
    now, horizon = parsed_time(now, using), parsed_time(horizon, using)
    with transaction.atomic(using=using):
        state = _lock(using)
        if state is None:
            return False
        if state.ended_until is None:
            _begin(state, now - FIRST_SPAN)
        elif state.ended_until > now + TOLERANCE:
            # The clock went back, so the times of ends that were counted come again.
            _begin(state, now - RECOUNT_SPAN)
            _clear(using, state.since)
        chunk = _Chunk(using, Tally(), state.since, horizon)
        more_ends = _count_ends(chunk, state)
        more_submits = _count_submits(chunk, state)
        chunk.tally.save(using)
        state.save(using=using)
    return more_ends or more_submits


def _lock(using: str) -> Any:
    """The locked state; None while another sweeper has locked it."""
    return skip_locked(StatisticsState.objects.using(using).filter(pk=ONLY)).first()


def _begin(state: Any, moment: datetime) -> None:
    """Count from the beginning of the longest interval that contains a moment."""
    state.since = state.ended_until = floor_time(moment, LENGTHS[-1])
    state.submitted_after = first_id(state.since - MAX_CLOCK_DIFFERENCE)


def _clear(using: str, since: datetime) -> None:
    """Forget what was counted since a moment, except the peaks, which cannot be counted again."""
    JobInterval.objects.using(using).filter(begins_at__gte=since).update(
        **dict.fromkeys(NUMBERS, 0), **{name: {} for name in HISTOGRAMS}
    )


def _count_ends(chunk: _Chunk, state: Any) -> bool:
    """Count tasks that ended since `ended_until`; returns whether some are left."""
    size = CHUNK
    while True:
        rows, end = _ends(chunk, state.ended_until, size)
        if end > state.ended_until or end >= chunk.horizon:
            break
        # Larger, because this many tasks ended at the same moment, so that the chunk has no end.
        size *= 4
    failures = []
    for status, values in rows:
        if values["completed_at"] < end:
            _count_end(chunk.tally.counts(values["job_id"], values["completed_at"]), status, values)
            if status is TaskStatus.FAILED:
                failures.append(
                    Failure(values["pk"], values["job_id"], values["completed_at"], values["error"])
                )
    record_failures(chunk.using, failures)
    state.ended_until = max(state.ended_until, end)
    return end < chunk.horizon


def _ends(
    chunk: _Chunk, begin: datetime, size: int
) -> tuple[list[tuple[TaskStatus, dict[str, Any]]], datetime]:
    """Ends from `begin` on, and the moment before which none of them is left out."""
    found: list[tuple[TaskStatus, dict[str, Any]]] = []
    end = chunk.horizon
    for status in sorted(TERMINAL_STATUSES):
        columns = (*_END_COLUMNS, "error") if status is TaskStatus.FAILED else _END_COLUMNS
        # A query for each status, so that each reads one range of the index `joblib_task_ended`.
        rows = list(
            Task.objects.using(chunk.using)
            .filter(status=status, completed_at__gte=begin, completed_at__lt=chunk.horizon)
            .order_by("completed_at")
            .values(*columns)[: size + 1]
        )
        if len(rows) > size:
            end = min(end, rows[-1]["completed_at"])
        found += [(status, row) for row in rows]
    return found, end


def _count_end(counts: Counts, status: TaskStatus, task: dict[str, Any]) -> None:
    setattr(counts, status.value, getattr(counts, status.value) + 1)
    counts.attempts += task["attempt"]
    taken_at = task["claimed_at"] or task["started_at"]
    if taken_at is not None:
        add_duration(counts.delays, (taken_at - task["due_at"]).total_seconds())
    if task["started_at"] is not None:
        run_time = task["completed_at"] - task["started_at"]
        add_duration(counts.run_times, run_time.total_seconds())


def _count_submits(chunk: _Chunk, state: Any) -> bool:
    """Count tasks with ids after `submitted_after`; returns whether some are left.

    By their ids, because `created_at` has no index: each index is written at every submit.
    """
    last = first_id(chunk.horizon - MAX_CLOCK_DIFFERENCE)
    tasks = Task.objects.using(chunk.using).filter(pk__gt=state.submitted_after, pk__lt=last)
    rows = list(tasks.order_by("pk").values_list("pk", "job_id", "created_at")[:CHUNK])
    for _task_id, job_id, created_at in rows:
        if created_at >= chunk.since:
            chunk.tally.counts(job_id, created_at).submitted += 1
    if rows:
        state.submitted_after = rows[-1][0]
    return len(rows) == CHUNK


def _sample(using: str) -> None:
    """Count the unfinished tasks of each job, unless the last count took too much of the time."""
    now = database_time(using)
    state = StatisticsState.objects.using(using).get(pk=ONLY)
    rest = timedelta(seconds=state.sample_seconds / SAMPLE_SHARE)
    if state.sampled_at is not None and timedelta(0) <= now - state.sampled_at < rest:
        return
    begun = time.monotonic()
    gauges: dict[UUID, JobGauge] = {}
    for job_id, pending, scheduled, oldest in statements.run(using, "count_backlogs").rows:
        gauge = _gauge(gauges, parsed_id(job_id))
        gauge.pending, gauge.scheduled = pending, scheduled
        gauge.oldest_due_at = None if oldest is None else parsed_time(oldest, using)
    for job_id, claimed, running in statements.run(using, "count_leased").rows:
        gauge = _gauge(gauges, parsed_id(job_id))
        gauge.claimed, gauge.running = claimed, running
    seconds = time.monotonic() - begun
    tally = Tally()
    held = {job_id: gauge.claimed + gauge.running for job_id, gauge in gauges.items()}
    for job_id, gauge in gauges.items():
        counts = tally.counts(job_id, now)
        counts.pending, counts.running = gauge.pending, held[job_id]
    total = tally.counts(ALL_JOBS, now)
    total.pending = sum(gauge.pending for gauge in gauges.values())
    total.running = sum(held.values())
    with transaction.atomic(using=using):
        state = _lock(using)
        if state is None:
            return
        state.sampled_at, state.sample_seconds = now, seconds
        state.save(using=using, update_fields=["sampled_at", "sample_seconds"])
        JobGauge.objects.using(using).all().delete()
        JobGauge.objects.using(using).bulk_create(gauges.values(), batch_size=500)
        tally.save(using, with_sums=False)


def _gauge(gauges: dict[UUID, JobGauge], job_id: UUID) -> JobGauge:
    if job_id not in gauges:
        gauges[job_id] = JobGauge(job_id=job_id, pending=0, scheduled=0, claimed=0, running=0)
    return gauges[job_id]


def _expire(using: str) -> None:
    """Delete old intervals, and groups of failures whose last one is old."""
    now = database_time(using)
    longest = timedelta(days=get_settings().statistics_days)
    with transaction.atomic(using=using):
        if _lock(using) is None:
            return
        for seconds in LENGTHS:
            kept = min(KEPT.get(seconds, longest), longest)
            rows = JobInterval.objects.using(using).filter(seconds=seconds)
            rows.filter(begins_at__lt=now - kept - timedelta(seconds=seconds)).delete()
        expire_failures(using, now - longest)
