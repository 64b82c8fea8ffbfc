"""Time from a submit to an idle worker, and from a task's end to its waiter."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from benchmarks.bench import Bench, median_figure, rounds, target_of
from benchmarks.driver.meter import percentile
from benchmarks.report import Goal, Section, median_of, ms, table, times
from benchmarks.stack.ours import Site, started

WANTED = 0.010
TRIED = 1.5
COUNTING = "benchmarks.counting:application"
SWEEPER = [sys.executable, "-m", "benchmarks.child.sweeper"]


def measure(bench: Bench) -> Section:
    """Measure this project in two server processes, and the original's own worker and long poll."""
    site = bench.site("history", "waits")
    other = bench.original_site("history", "waits-original")
    with started(site.uvicorn(1, COUNTING), site.uvicorn(1, COUNTING), other.uvicorn()) as servers:
        first, second, original = servers
        address = f"http://127.0.0.1:{original.port}"
        originals = other.run("original_waits.py", address, str(bench.scale.original_wakes))
        here, there = target_of(first, site), target_of(second, site)
        # Several users, because a site's workers belong to several.
        all_targets = [
            target_of(server, site, user)
            for user in range(len(site.tokens))
            for server in (first, second)
        ]
        found = rounds(bench, _contenders(bench, site, here, there, all_targets))
    section = Section("Submit to start, end to waiter")
    _goals(section, found, originals)
    _body(section, found, originals)
    return section


def _contenders(
    bench: Bench, site: Site, here: Any, there: Any, all_targets: list[Any]
) -> dict[str, Any]:
    idle, first_port = bench.scale.idle_workers, here["port"]
    starts = partial(bench.drive, "starts", samples=bench.scale.wakes, submit_to=here)
    ends = partial(bench.drive, "ends", samples=bench.scale.wakes, worker_at=here)
    swept = partial(ends.func, "ends_swept", *ends.args[1:], **ends.keywords)
    return {
        "start, one idle worker, same process": partial(starts, claim_from=[here], idle=1),
        "start, one idle worker, other process": partial(starts, claim_from=[there], idle=1),
        f"start, {idle} idle workers, same process": partial(
            starts, claim_from=[one for one in all_targets if one["port"] == first_port], idle=idle
        ),
        f"start, {idle} idle workers, 2 processes": partial(
            starts, claim_from=all_targets, idle=idle
        ),
        "end, same process": partial(ends, waiter_at=here),
        "end, other process": partial(ends, waiter_at=there),
        "end, by the sweeper": partial(swept, waiter_at=here, sweeper=SWEEPER, env=site.env),
    }


def _goals(
    section: Section, found: dict[str, list[Any]], originals: dict[str, list[float]]
) -> None:
    tasks = len(originals["starts"])
    for name, results in found.items():
        basis = median_of(len(results))
        p50 = median_figure(results, "p50")
        original = percentile(originals["starts" if name.startswith("start") else "ends"], 0.5)
        section.goals.append(
            Goal(
                f"{name}, p50",
                f"{ms(WANTED)} ms or less",
                f"{ms(p50)} ms",
                f"{ms(original)} ms",
                times(original / p50),
                p50 <= WANTED and not sum(result.get("lost", 0) for result in results),
                f"{basis}; the original's: {tasks} tasks in 1 run",
            )
        )
        if "woken" in results[0]:
            woken, claims = median_figure(results, "woken"), median_figure(results, "claims")
            section.goals.append(
                Goal(
                    f"{name}: woken claims tried per task and process",
                    f"{TRIED} or fewer",
                    f"{woken:.2f} ({claims:.2f} with first claims)" if woken else "not counted",
                    met=woken <= TRIED if woken else None,
                    basis=basis,
                )
            )


def _body(section: Section, found: dict[str, list[Any]], originals: dict[str, list[float]]) -> None:
    rows = []
    for name, results in found.items():
        every = [span for result in results for span in result["spans"]]
        counts = (
            [f"{median_figure(results, kind):.2f}" for kind in ("woken", "claims")]
            if "woken" in results[0]
            else ["", ""]
        )
        rows.append([name, ms(median_figure(results, "p50")), ms(percentile(every, 0.99)), *counts])
    for name, key in (("original, start", "starts"), ("original, end", "ends")):
        rows.append(
            [name, *(ms(percentile(originals[key], share)) for share in (0.5, 0.99)), "", ""]
        )
    section.body += [
        "On uvicorn, in two processes with a Valkey between them. A start is the time from just "
        "before the submit is sent until the answer of a claim that waits (`Prefer: wait`). An end "
        "is the time from just before `completed` is sent until the answer of a waiting `GET`. "
        "Ends by the sweeper count from `completed_at`, which the database writes before the "
        "commit.",
        "Claims are counted as statements, in each server process that has idle workers. A *woken "
        "claim* is tried because a waiting worker was woken; waking all waiting workers would cost "
        "one claim for each of them. The goal is about woken claims. A request that waits also "
        "tries one claim when it arrives: each worker that has finished a task sends a new "
        "request, so the last column has one such first claim more for each task, in one of the "
        "processes. It has no goal, because a claim that does not wait costs as much.",
        "The original's workers are its own `JobManager`, which polls every 2 s, without "
        "Socket.IO, which its host would have to add. Its waiters use its long poll. They were "
        f"measured on {len(originals['starts'])} tasks in 1 run. Each p50 and count of this "
        f"project is the {median_of(len(next(iter(found.values()))))}, each p99 is over all tasks.",
        table(
            [
                *("", "p50 ms", "p99 ms", "woken claims tried per task and process"),
                "all claims tried per task and process",
            ],
            rows,
        ),
    ]
    troubles = set()
    for name, results in found.items():
        for result in results:
            troubles |= {f"- {name}: {failure}" for failure in result.get("failures", ())}
            if lost := result.get("lost"):
                troubles.add(f"- {name}: {lost} tasks were not started within 10 s")
    if troubles:
        section.body.append("\n".join(sorted(troubles)))
