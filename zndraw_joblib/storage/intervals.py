"""Counts of tasks by job and interval of time, which are added to the rows of `JobInterval`."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.apps import apps

from zndraw_joblib.lifecycle import TERMINAL_STATUSES
from zndraw_joblib.storage.histograms import Histogram, add_histogram

#: The lengths of intervals in seconds; each is a multiple of the one before. Every task counts in
#: one interval of each length, because adding up short intervals of a week would be slow.
LENGTHS = (300, 3_600, 21_600)
#: In place of the id of a job: the sums over all jobs.
ALL_JOBS = UUID(int=0)

#: The columns with the numbers of ends, named like the statuses.
ENDS = tuple(sorted(status.value for status in TERMINAL_STATUSES))
NUMBERS = ("submitted", *ENDS, "attempts")
HISTOGRAMS = ("delays", "run_times")
PEAKS = ("pending", "running")


@dataclass(slots=True)
class Counts:
    """Numbers of an interval; the peaks are None where no pass counted unfinished tasks."""

    submitted: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    attempts: int = 0
    delays: Histogram = field(default_factory=dict)
    run_times: Histogram = field(default_factory=dict)
    pending: int | None = None
    running: int | None = None

    @property
    def ended(self) -> int:
        """The number of tasks that ended."""
        return sum(getattr(self, name) for name in ENDS)

    def add(self, other: Any) -> None:
        """Add the numbers of other counts, or of a row."""
        for name in NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in HISTOGRAMS:
            add_histogram(getattr(self, name), getattr(other, name))
        for name in PEAKS:
            found = [n for n in (getattr(self, name), getattr(other, name)) if n is not None]
            setattr(self, name, max(found, default=None))


def floor_time(moment: datetime, seconds: int) -> datetime:
    """The beginning of the interval of this length that contains a moment, in UTC."""
    return datetime.fromtimestamp(moment.timestamp() // seconds * seconds, UTC)


class Tally:
    """Collects counts in the shortest intervals, and adds them to rows of all lengths."""

    def __init__(self) -> None:
        self._counts: dict[tuple[UUID, int], Counts] = {}

    def counts(self, job_id: UUID, moment: datetime) -> Counts:
        """The counts of a job in the interval of a moment, to be changed."""
        key = job_id, int(moment.timestamp()) // LENGTHS[0]
        found = self._counts.get(key)
        if found is None:
            found = self._counts[key] = Counts()
        return found

    def save(self, using: str, *, with_sums: bool = True) -> None:
        """Add the counts to the rows; with `with_sums` also to those of all jobs together.

        Call it under the lock of `StatisticsState`, because rows are read and written.
        """
        sums: dict[tuple[int, datetime, UUID], Counts] = {}
        for (job_id, number), counts in self._counts.items():
            moment = datetime.fromtimestamp(number * LENGTHS[0], UTC)
            for seconds in LENGTHS:
                begins_at = floor_time(moment, seconds)
                for key in {job_id, ALL_JOBS} if with_sums else {job_id}:
                    sums.setdefault((seconds, begins_at, key), Counts()).add(counts)
        rows = apps.get_model("zndraw_joblib", "JobInterval")._base_manager.using(using)
        for seconds in LENGTHS:
            keys = [key for key in sums if key[0] == seconds]
            known = rows.filter(seconds=seconds, begins_at__in={key[1] for key in keys})
            for row in known:
                if (seconds, row.begins_at, row.job_id) in sums:
                    sums[seconds, row.begins_at, row.job_id].add(row)
        rows.bulk_create(
            (
                rows.model(
                    job_id=job_id,
                    seconds=seconds,
                    begins_at=begins_at,
                    **{name: getattr(counts, name) for name in (*NUMBERS, *HISTOGRAMS, *PEAKS)},
                )
                for (seconds, begins_at, job_id), counts in sums.items()
            ),
            batch_size=500,
            update_conflicts=True,
            unique_fields=["seconds", "begins_at", "job_id"],
            update_fields=[*NUMBERS, *HISTOGRAMS, *PEAKS],
        )
