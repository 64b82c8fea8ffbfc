"""How much is measured: the full run and the quick one differ in these numbers alone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Sizes and lengths of one run; times are in seconds."""

    name: str
    #: Each figure is the median of so many rounds.
    rounds: int
    #: Connections that run cycles at once, on PostgreSQL.
    connections: tuple[int, ...]
    #: Length of one round of requests at full speed.
    seconds: float
    #: Rows of finished tasks that a database has before anything is measured.
    history: int
    #: Pending tasks.
    backlogs: tuple[int, ...]
    #: Requests of each kind in a round at one backlog.
    samples: int
    #: Requests of each kind in a round to the original, which takes 0.4 s for one at 1M.
    slow_samples: int
    #: Tasks whose start, or whose end, is waited for in a round.
    wakes: int
    #: Workers that wait at once for one job.
    idle_workers: int
    #: Tasks that each of the original's workers runs; there are eight.
    original_wakes: int
    #: Requests that wait at once, and for how long heartbeats are watched meanwhile.
    waiters: int
    watch_seconds: float
    #: All tasks of the big table; a tenth of them is held by dead workers.
    big: int
    dead_workers: int
    #: Requests to each kind of page.
    pages: int


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
    pages=40,
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
    pages=15,
)
