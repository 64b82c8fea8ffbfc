"""Latency of single requests against the number of pending tasks."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from benchmarks.bench import Bench, rounds, target
from benchmarks.driver.meter import percentile
from benchmarks.parts.cycles import RECOMMENDED
from benchmarks.report import Goal, Section, ms, table, times
from benchmarks.stack.ours import started

JOBS = (1, 10, 100)
VERBS = ("submit", "claim", "GET pending task", "GET claimed task", "heartbeat")
GOALS = {
    "submit": ("submit",),
    "claim": ("claim",),
    "GET task": ("GET pending task", "GET claimed task"),
    "heartbeat": ("heartbeat",),
}
LIMIT = 1.2
#: Seconds that one worker's requests take at most in a round.
PATIENCE = 15.0

ORIGINAL = "original"


@dataclass(frozen=True)
class Latency:
    """The median of the rounds' medians and the 99th percentile of all, in seconds."""

    p50: float
    p99: float
    samples: int


#: By backlog, number of jobs (or `ORIGINAL`) and verb.
Found = dict[tuple[int, int | str, str], Latency]


def measure(bench: Bench) -> tuple[Section, Found]:
    """One server for each backlog, all up at once, so that each round visits them all."""
    scale = bench.scale
    sites = {n: bench.site(f"backlog-{n}", f"backlog-{n}") for n in scale.backlogs}
    others = {
        n: bench.original_site(f"backlog-{n}", f"original-{n}") for n in scale.backlogs
    }
    with ExitStack() as stack:
        servers = stack.enter_context(started(*(site.granian() for site in sites.values())))
        slow = stack.enter_context(started(*(site.uvicorn() for site in others.values())))
        contenders: dict[tuple[int, int | str], Any] = {}
        for (backlog, site), server in zip(sites.items(), servers, strict=True):
            whom = target(server, site)
            workers = bench.drive("enlist", target=whom, jobs=JOBS)
            for jobs, worker in zip(JOBS, workers, strict=True):
                contenders[backlog, jobs] = partial(
                    bench.drive,
                    "backlog",
                    target=whom,
                    worker=worker,
                    jobs=jobs,
                    samples=scale.samples,
                    seconds=PATIENCE,
                )
        for (backlog, other), server in zip(others.items(), slow, strict=True):
            whom = target(server, other)
            (worker,) = bench.drive("enlist", target=whom, jobs=JOBS[:1])
            contenders[backlog, ORIGINAL] = partial(
                bench.drive,
                "backlog",
                target=whom,
                worker=worker,
                jobs=1,
                samples=scale.slow_samples,
                seconds=PATIENCE,
                reads=False,
            )
        found = _latencies(rounds(bench, contenders))
    return _section(scale.backlogs, found), found


def _latencies(results: dict[tuple[int, int | str], list[Any]]) -> Found:
    found: Found = {}
    for (backlog, jobs), gone in results.items():
        for verb in gone[0]["spans"]:
            spans = [result["spans"][verb] for result in gone]
            every = [span for these in spans for span in these]
            p50 = median(percentile(these, 0.5) for these in spans)
            found[backlog, jobs, verb] = Latency(p50, percentile(every, 0.99), len(every))
    return found


def _section(backlogs: tuple[int, ...], found: Found) -> Section:
    none, most = backlogs[0], backlogs[-1]
    section = Section("Latency against the backlog")
    for name, verbs in GOALS.items():
        ratios = {
            (verb, jobs): found[most, jobs, verb].p50 / found[none, jobs, verb].p50
            for verb in verbs
            for jobs in JOBS
        }
        (verb, jobs), worst = max(ratios.items(), key=lambda item: item[1])
        theirs, ratio = "", times(worst)
        if (most, ORIGINAL, verb) in found:
            first, last = (found[n, ORIGINAL, verb].p50 for n in (none, most))
            theirs = f"{ms(first)} → {ms(last)} ms, {times(last / first)}"
        first, last = found[none, jobs, verb].p50, found[most, jobs, verb].p50
        section.goals.append(
            Goal(
                f"{name} at {most:,} pending over at {none:,}, p50; the worst of "
                f"{' and '.join(verbs)} with {', '.join(map(str, JOBS))} jobs ({verb}, {jobs})",
                f"{LIMIT} or less",
                f"{ms(first)} → {ms(last)} ms",
                theirs,
                ratio,
                worst <= LIMIT,
            )
        )
    rows = []
    for verb in VERBS:
        for jobs in (*JOBS, ORIGINAL):
            cells = [found.get((backlog, jobs, verb)) for backlog in backlogs]
            present = [cell for cell in cells if cell]
            if present:
                rows.append(
                    [
                        verb,
                        jobs,
                        *(f"{ms(c.p50)} / {ms(c.p99)}" if c else "" for c in cells),
                        times(present[-1].p50 / present[0].p50),
                    ]
                )
    section.body += [
        f"Over HTTP on one connection, {RECOMMENDED}; p50 / p99 in ms. The worker registered 1, "
        "10 or 100 jobs; one job holds 90 % of the backlog, 47 share the rest unevenly, the others "
        "have none. At no backlog the table holds finished tasks. Each sample submits one task, "
        "claims one and finishes it, so that the backlog stays as long. A pending task's answer "
        "says its place in the queue.",
        "![Latency against backlog](performance.svg)",
        table(
            ["request", "jobs", *(f"{n:,} pending" for n in backlogs), "last over first"], rows
        ),
    ]
    return section
