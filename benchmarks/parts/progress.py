"""A task's life beside its status: progress, results, cancels and heartbeats that wait."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.bench import Bench, median_figure, rounds, target_of
from benchmarks.driver.meter import percentile
from benchmarks.report import Goal, Section, figures_are, median_of, ms, per_second, table
from benchmarks.stack.ours import started

WORKERS, RATE = 100, 1_000
RESULT_BYTES = 200_000
CANCEL, BYTES = 0.050, 60 * 1024
#: Running tasks of one worker, which are cancelled one after another.
BUSY = 10
TOGETHER = "a worker's reports of a second in one request, as the SDK sends them"
ALONE = "a request for each report"


def measure(bench: Bench) -> Section:
    """Measure on one uvicorn process."""
    site = bench.site("history", "progress")
    with started(site.uvicorn()) as (server,):
        target = target_of(server, site)
        targets = [target_of(server, site, user) for user in range(len(site.tokens))]
        report = partial(
            bench.drive,
            "progress",
            targets=targets,
            watch_at=target,
            workers=WORKERS,
            rate=RATE,
            seconds=2 * bench.scale.seconds,
            servers=[server.process.pid],
        )
        ends = partial(bench.drive, "ends", worker_at=target, waiter_at=target)
        found = rounds(
            bench,
            {
                TOGETHER: partial(report, together=True),
                ALONE: partial(report, together=False),
                "result": partial(ends, samples=bench.scale.wakes, result_bytes=RESULT_BYTES),
                "end": partial(ends, samples=bench.scale.wakes),
            },
        )
        url = f"http://127.0.0.1:{server.port}"
        cancels = site.run_child("cancels", str(BUSY), url, site.tokens[0])["spans"]
    beats = _heartbeats(bench)
    section = Section("Progress, results and cancels")
    _goals(section, found, cancels, beats)
    _body(section, found, cancels, beats)
    return section


def _heartbeats(bench: Bench) -> dict[str, Any]:
    """Let one heartbeat wait for each of many claimed tasks."""
    count = bench.scale.waiters
    # Twice as many tasks, because one in ten is of another job than the worker's. A long lease,
    # because a heartbeat waits for a third of it at most.
    plain = bench.site(f"backlog-{2 * count}", "heartbeats")
    site = replace(plain, extra={"ZNDRAW_JOBLIB_WORKER_TIMEOUT_SECONDS": "3600"})
    with started(site.uvicorn()) as (server,):
        found: dict[str, Any] = bench.drive(
            "waiters",
            target=target_of(server, site),
            pid=server.process.pid,
            tasks=[""] * count,
            seconds=bench.scale.watch_seconds,
            database=bench.postgres.url("postgres"),
            application=site.name,
            beats=True,
        )
    return found


def _goals(
    section: Section, found: dict[str, list[Any]], cancels: list[float], beats: dict[str, Any]
) -> None:
    basis = median_of(len(found[ALONE]))
    cancel = percentile(cancels, 0.5)
    all_wait = beats["waiting"] == beats["wanted"]
    together = found[TOGETHER]
    section.goals += [
        Goal(
            f"{RATE:,} progress reports a second of {WORKERS} workers, with {WORKERS} watchers",
            "",
            f"{median_figure(together, 'cores'):.2f} cores; "
            f"delay p50 {ms(median_figure(together, 'p50'))} ms",
            basis=basis,
        ),
        Goal(
            f"a result of {RESULT_BYTES // 1000} kB to its waiter, p50",
            "",
            f"{ms(median_figure(found['result'], 'p50'))} ms "
            f"({ms(median_figure(found['end'], 'p50'))} ms without a result)",
            basis=basis,
        ),
        Goal(
            "cancel to `task.cancelled` in a busy worker, p50",
            f"{ms(CANCEL)} ms or less",
            f"{ms(cancel)} ms",
            met=cancel <= CANCEL,
            basis=f"{len(cancels)} tasks",
        ),
        Goal(
            f"{beats['wanted']:,} waiting heartbeats in one process: memory each",
            f"{BYTES // 1024} KB or less",
            f"{beats['bytes_each'] / 1024:.1f} KB",
            met=all_wait and beats["bytes_each"] <= BYTES,
            basis="1 run",
        ),
    ]


def _body(
    section: Section, found: dict[str, list[Any]], cancels: list[float], beats: dict[str, Any]
) -> None:
    section.body += [
        f"One uvicorn process. {WORKERS} workers report the progress of their tasks, {RATE:,} "
        "reports a second in all, and a watcher follows one task of each worker (`If-None-Match` "
        "with `Prefer: wait`). CPU is that of the server, in cores. The delay is the time from "
        "just before a report is sent until the watcher has its message; a watch that has just "
        "begun lasts 0.2 s before progress ends it, and several reports may be seen as one. "
        f"{figures_are(len(found[ALONE]))}.",
        table(
            ["", "reports/s", "cores", "CPU of a report, us", "changes seen/s", "p50 ms", "p99 ms"],
            (
                [
                    name,
                    per_second(median_figure(found[name], "rate")),
                    f"{median_figure(found[name], 'cores'):.2f}",
                    round(1e6 * median_figure(found[name], "cpu_each")),
                    per_second(median_figure(found[name], "seen")),
                    ms(median_figure(found[name], "p50")),
                    ms(median_figure(found[name], "p99")),
                ]
                for name in (TOGETHER, ALONE)
            ),
        ),
        f"A worker of the SDK runs {len(cancels)} tasks, which are cancelled one after another: "
        f"at most {ms(max(cancels))} ms. The heartbeats of one worker list a task each; "
        f"{beats['waiting']:,} of {beats['wanted']:,} waited to the end.",
    ]
