"""Deletion of old tasks beside claims."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

from benchmarks.bench import Bench, target_of
from benchmarks.driver.meter import percentile
from benchmarks.report import Goal, Section, ms, per_second, table, times
from benchmarks.stack.ours import Site, started
from benchmarks.stack.processes import ROOT, BenchError, stop

#: Seconds for which claims are measured without a prune, and the most that a prune may take.
QUIET, PATIENCE = 20.0, 1_800.0
LIMIT = 2.0
JOBS = 10


def measure(bench: Bench) -> Section:
    """Time claims without a prune and while `prune_tasks` deletes a table of ended tasks."""
    site = bench.site("ended", "prune")
    with started(site.granian()) as (server,):
        target = target_of(server, site)
        (worker,) = bench.drive("register", target=target, jobs=[JOBS])
        place = {"target": target, "worker": worker, "jobs": JOBS}
        quiet = _claims(bench, place, QUIET)
        command = [sys.executable, "manage.py", "prune_tasks", "--older-than", "1d"]
        begun = time.perf_counter()
        pruner = subprocess.Popen(
            command, env=site.env, cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        busy: list[float] = []
        try:
            while pruner.poll() is None and time.perf_counter() - begun < PATIENCE:
                busy += _claims(bench, place, 5.0)
            seconds = time.perf_counter() - begun
        finally:
            stop(pruner)  # type: ignore[arg-type]
        output = pruner.stdout.read() if pruner.stdout else ""
    left = _left(bench, site)
    return _section(bench, quiet, busy, seconds, output.strip(), left)


def _claims(bench: Bench, place: dict[str, Any], seconds: float) -> list[float]:
    """Times of claims for some seconds; each sample also submits and finishes a task."""
    found = bench.drive("backlog", places=[place], samples=1_000_000, warm_up=5, seconds=seconds)
    return list(found["spans"][0]["claim"])


def _left(bench: Bench, site: Site) -> int:
    with bench.postgres.connect(site.name) as connection:
        row = connection.execute(
            b"SELECT count(*) FROM zndraw_joblib_task WHERE completed_at < now() - interval '1 day'"
        ).fetchone()
    if row is None:
        raise BenchError("no count")
    return int(row[0])


def _section(
    bench: Bench, quiet: list[float], busy: list[float], seconds: float, output: str, left: int
) -> Section:
    p99 = {name: percentile(spans, 0.99) for name, spans in (("quiet", quiet), ("busy", busy))}
    ratio = p99["busy"] / p99["quiet"]
    section = Section("Prune")
    section.goals.append(
        Goal(
            f"p99 of a claim while {bench.scale.big:,} ended tasks are deleted",
            f"{LIMIT:.0f} times that without, or less",
            f"{times(ratio)} times" + (f", but {left:,} tasks were left" if left else ""),
            met=ratio <= LIMIT and not left,
            basis="1 run",
        )
    )
    section.body += [
        f"`manage.py prune_tasks --older-than 1d` took {seconds:.0f} s, "
        f"{per_second(bench.scale.big / seconds)} tasks a second, and ended with `{output}`. "
        "Each task had a line of its log, every tenth an earlier attempt. One client sends its "
        "requests one after the other.",
        table(
            ["", "claims", "p50 ms", "p99 ms"],
            [
                [name, len(spans), ms(percentile(spans, 0.5)), ms(percentile(spans, 0.99))]
                for name, spans in (("without a prune", quiet), ("during it", busy))
            ],
        ),
    ]
    return section
