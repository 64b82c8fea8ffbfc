"""Sizes and durations of the full run and of the quick run, which differ in nothing else."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Sizes and durations of one run; times are in seconds."""

    name: str
    #: Number of rounds; each figure is their median.
    rounds: int
    #: Numbers of connections that run cycles at once, on PostgreSQL.
    connections: tuple[int, ...]
    #: Duration of one round of requests at full speed.
    seconds: float
    #: Finished tasks in a database before the measurement.
    history: int
    #: Numbers of pending tasks.
    backlogs: tuple[int, ...]
    #: Requests of each kind in a round at one backlog.
    samples: int
    #: Requests of each kind in a round to the original, fewer because one takes 0.4 s at 1M.
    slow_samples: int
    #: Tasks in a round whose start, or whose end, a request waits for.
    wakes: int
    #: Workers that wait at once for one job.
    idle_workers: int
    #: Tasks that each of the original's eight workers runs.
    original_wakes: int
    #: Requests that wait at once.
    waiters: int
    #: Time for which heartbeats are measured while they wait.
    watch_seconds: float
    #: Tasks of the big table; dead workers hold a tenth of them.
    big: int
    dead_workers: int
    #: Ended tasks of the site that the dashboard shows, over a week.
    ended: int
    #: Requests to each kind of page.
    pages: int
    #: Tasks that do nothing, of one round from their submit to the last result.
    sdk_tasks: int


FULL = Scale(
    name="full",
    rounds=5,
    connections=(8, 32),
    seconds=2.0,
    history=10_000,
    backlogs=(0, 10_000, 100_000, 1_000_000),
    samples=40,
    slow_samples=8,
    wakes=40,
    idle_workers=100,
    original_wakes=2,
    waiters=10_000,
    watch_seconds=10.0,
    big=1_000_000,
    dead_workers=10_000,
    ended=10_000_000,
    pages=40,
    sdk_tasks=5_000,
)

QUICK = Scale(
    name="quick",
    rounds=1,
    connections=(8,),
    seconds=0.8,
    history=2_000,
    backlogs=(0, 5_000, 50_000),
    samples=12,
    slow_samples=5,
    wakes=15,
    idle_workers=30,
    original_wakes=1,
    waiters=1_000,
    watch_seconds=3.0,
    big=50_000,
    dead_workers=500,
    ended=100_000,
    pages=15,
    sdk_tasks=1_000,
)
