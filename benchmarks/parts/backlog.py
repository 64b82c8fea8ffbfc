"""Latency of single requests against the number of pending tasks."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from benchmarks.bench import Bench, rounds, target_of
from benchmarks.driver.meter import percentile
from benchmarks.parts.cycles import RECOMMENDED
from benchmarks.report import Goal, Section, median_of, ms, table, times
from benchmarks.scale import Scale
from benchmarks.stack.ours import Site, started

JOBS = (1, 10, 100)
VERBS = ("submit", "claim", "GET pending task", "GET claimed task", "heartbeat")
GOALS = {
    "submit": ("submit",),
    "claim": ("claim",),
    "GET task": ("GET pending task", "GET claimed task"),
    "heartbeat": ("heartbeat",),
}
LIMIT = 1.2
#: Seconds that a round takes at most, for this project and for the original each.
PATIENCE = 60.0

ORIGINAL = "original"
#: In place of a number of pending tasks: the greatest of them, and as many that are due later.
SCHEDULED = "scheduled"


@dataclass(frozen=True)
class Latency:
    """Seconds: `p50` is the median of the rounds' medians, `p99` that of all samples together."""

    p50: float
    p99: float
    samples: int


#: Latencies by backlog (or `SCHEDULED`), number of jobs (or `ORIGINAL`) and kind of request.
Found = dict[tuple[int | str, int | str, str], Latency]


def measure(bench: Bench) -> tuple[Section, Found]:
    """Start one server for each backlog; all run at once, so that each round visits all of them."""
    sites: dict[int | str, Site] = {
        n: bench.site(f"backlog-{n}", f"backlog-{n}") for n in bench.scale.backlogs
    }
    sites[SCHEDULED] = bench.site(SCHEDULED, SCHEDULED)
    others = {n: bench.original_site(f"backlog-{n}", f"original-{n}") for n in bench.scale.backlogs}
    with ExitStack() as stack:
        servers = stack.enter_context(started(*(site.granian() for site in sites.values())))
        slow = stack.enter_context(started(*(site.uvicorn() for site in others.values())))
        ours = {}
        for (backlog, site), server in zip(sites.items(), servers, strict=True):
            target = target_of(server, site)
            workers = bench.drive("register", target=target, jobs=JOBS)
            for jobs, worker in zip(JOBS, workers, strict=True):
                ours[backlog, jobs] = {"target": target, "worker": worker, "jobs": jobs}
        originals = {}
        for (backlog, other), server in zip(others.items(), slow, strict=True):
            target = target_of(server, other)
            (worker,) = bench.drive("register", target=target, jobs=JOBS[:1])
            originals[backlog, ORIGINAL] = {"target": target, "worker": worker, "jobs": 1}
        visit = partial(bench.drive, "backlog", seconds=PATIENCE)
        samples, slow_samples = bench.scale.samples, bench.scale.slow_samples
        results = rounds(
            bench,
            {
                "ours": partial(visit, places=[*ours.values()], samples=samples, warm_up=5),
                ORIGINAL: partial(
                    visit, places=[*originals.values()], samples=slow_samples, warm_up=1
                ),
            },
        )
    found = {**_latencies([*ours], results["ours"]), **_latencies([*originals], results[ORIGINAL])}
    return _section(bench.scale, found), found


def _latencies(places: list[tuple[int | str, int | str]], results: list[Any]) -> Found:
    found: Found = {}
    for number, (backlog, jobs) in enumerate(places):
        per_round = [result["spans"][number] for result in results]
        for verb in per_round[0]:
            every = [span for spans in per_round for span in spans[verb]]
            p50 = median(percentile(spans[verb], 0.5) for spans in per_round)
            found[backlog, jobs, verb] = Latency(p50, percentile(every, 0.99), len(every))
    return found


def _section(scale: Scale, found: Found) -> Section:
    backlogs, rounds = scale.backlogs, scale.rounds
    none, most = backlogs[0], backlogs[-1]
    section = Section("Latency against the backlog")
    for name, verbs in GOALS.items():
        ratios = {
            (verb, jobs): found[most, jobs, verb].p50 / found[none, jobs, verb].p50
            for verb in verbs
            for jobs in JOBS
        }
        (verb, jobs), worst = max(ratios.items(), key=lambda item: item[1])
        originals, ratio = "", times(worst)
        if (most, ORIGINAL, verb) in found:
            first, last = (found[n, ORIGINAL, verb].p50 for n in (none, most))
            originals = f"{ms(first)} → {ms(last)} ms, {times(last / first)}"
        first, last = found[none, jobs, verb].p50, found[most, jobs, verb].p50
        section.goals.append(
            Goal(
                f"{name}: p50 at {most:,} pending over p50 at {none:,}; the worst of "
                f"{' and '.join(verbs)} with {', '.join(map(str, JOBS))} jobs ({verb}, {jobs})",
                f"{LIMIT} or less",
                f"{ms(first)} → {ms(last)} ms",
                originals,
                ratio,
                worst <= LIMIT,
                f"{median_of(rounds)}, the p50 of each",
            )
        )
    first, last = found[none, JOBS[-1], "claim"].p50, found[SCHEDULED, JOBS[-1], "claim"].p50
    section.goals.append(
        Goal(
            f"claim with {JOBS[-1]} jobs: p50 at {most:,} pending and {most:,} scheduled tasks "
            f"over p50 at {none:,}",
            f"{LIMIT} or less",
            f"{ms(first)} → {ms(last)} ms",
            "",
            times(last / first),
            last <= LIMIT * first,
            f"{median_of(rounds)}, the p50 of each",
        )
    )
    rows = []
    for verb in VERBS:
        for jobs in (*JOBS, ORIGINAL):
            cells = [found.get((place, jobs, verb)) for place in (*backlogs, SCHEDULED)]
            present = [cell for cell in cells[:-1] if cell]
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
        f"Over HTTP on one connection, {RECOMMENDED}; p50 / p99 in ms: the {median_of(rounds)} "
        "and the percentile of all their samples. The worker registered 1, 10 or 100 jobs; one "
        "job has 90 % of the backlog, 47 share the rest unevenly, the others have none. Without a "
        "backlog the table has finished tasks. Each sample submits one task, claims one and "
        "finishes it, so that the length of the backlog stays the same. The answer about a pending "
        "task includes its queue position.",
        "![Latency against backlog](performance.svg)",
        table(
            [
                "request",
                "jobs",
                *(f"{n:,} pending" for n in backlogs),
                f"{most:,} scheduled too",
                f"{most:,} over {none:,}",
            ],
            rows,
        ),
    ]
    return section
