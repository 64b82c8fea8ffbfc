"""A thousand watchers of one room in one process."""

from __future__ import annotations

from typing import Any

from benchmarks.bench import Bench, rounds, target_of
from benchmarks.report import Goal, Section, median_of, ms, table
from benchmarks.stack.ours import started

WATCHERS = 1_000
P50, BYTES = 0.100, 60 * 1024
KINDS = {
    "sse": "Server-Sent Events",
    "arrays": "WebSockets with `?batch=true`",
    "ws": "WebSockets",
}


def measure(bench: Bench) -> Section:
    """Let progress be reported 50 times a second in a room that a uvicorn process streams."""
    site = bench.site("history", "events")

    def watch(kind: str) -> Any:
        with started(site.uvicorn(), site.granian(workers=1)) as (watched, reported):
            return bench.drive(
                "events",
                target=target_of(watched, site),
                reports_to=target_of(reported, site),
                kind=kind,
                watchers=WATCHERS,
                pid=watched.process.pid,
                seconds=bench.scale.watch_seconds * 2,
                database=bench.postgres.url("postgres"),
                application=site.name,
            )

    found = rounds(bench, {kind: lambda kind=kind: watch(kind) for kind in KINDS})  # type: ignore[misc]
    section = Section("Watchers of a room")
    rows = []
    for kind, label in KINDS.items():
        results = found[kind]
        middle = sorted(results, key=lambda result: result["p50"])[len(results) // 2]
        all_stay = all(result["alive"] == WATCHERS for result in results)
        busy = sorted(sight["busy"] for sight in middle["connections"])
        name = f"{WATCHERS:,} watchers of one room in one process, {label}"
        basis = median_of(len(results))
        section.goals += [
            Goal(
                f"{name}: from a change to its arrival, p50",
                f"under {ms(P50)} ms",
                f"{ms(middle['p50'])} ms",
                met=all_stay and middle["p50"] < P50,
                basis=basis,
            ),
            Goal(
                f"{name}: memory each",
                f"{BYTES // 1024} KB or less",
                f"{middle['bytes_each'] / 1024:.1f} KB",
                met=all_stay and middle["bytes_each"] <= BYTES,
                basis=basis,
            ),
            Goal(
                f"{name}: database connections in use (median over time)",
                "0",
                str(busy[len(busy) // 2]),
                met=all_stay and busy[len(busy) // 2] == 0,
                basis=basis,
            ),
        ]
        rows.append(
            [
                label,
                f"{middle['alive']:,}",
                f"{middle['changes']:.0f}",
                f"{middle['delays']:,}",
                " / ".join(ms(middle[name]) for name in ("p50", "p95", "p99")),
                f"{middle['bytes_each'] / 1024:.1f}",
                middle["threads"],
                f"{middle['server_cpu']:.2f}",
                f"{middle['server_seconds'] * 1e6 / middle['delays']:.1f}",
            ]
        )
    section.body += [
        "Ten tasks report progress five times a second each, to a granian process; a uvicorn "
        "process streams the room to all watchers, so each gets up to 50 messages a second. The "
        "time is from the reply to the report, after its commit. Messages that a later state "
        "replaced are not counted.",
        table(
            [
                "",
                "watchers at the end",
                "changes a second",
                "messages",
                "p50 / p95 / p99, ms",
                "memory each, KB",
                "threads",
                "CPU, cores",
                "CPU of a message, us",
            ],
            rows,
        ),
    ]
    return section
