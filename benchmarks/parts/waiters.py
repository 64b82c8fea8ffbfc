"""Ten thousand idle waiters in one process."""

from __future__ import annotations

from benchmarks.bench import Bench, target_of
from benchmarks.report import Goal, Section, ms, table
from benchmarks.stack.ours import started

BYTES, P99 = 60 * 1024, 0.100


def measure(bench: Bench) -> Section:
    """Let one request wait for each of many pending tasks in one uvicorn process."""
    count = bench.scale.waiters
    kind = f"backlog-{count}"
    site = bench.site(kind, "waiters")
    with bench.postgres.connect("waiters") as connection:
        rows = connection.execute(
            "SELECT id::text FROM zndraw_joblib_task WHERE status = 'pending' ORDER BY id LIMIT %s",
            [count],
        ).fetchall()
    with started(site.uvicorn()) as (server,):
        found = bench.drive(
            "waiters",
            target=target_of(server, site),
            pid=server.process.pid,
            tasks=[row[0] for row in rows],
            seconds=bench.scale.watch_seconds,
            database=bench.postgres.url("postgres"),
            application=site.name,
        )
    section = Section("Idle waiters")
    all_wait = found["waiting"] == found["wanted"] == count
    busy = sorted(sight["busy"] for sight in found["connections"])
    held = busy[len(busy) // 2]
    label = f"{count:,} idle waiters in one process"
    section.goals += [
        Goal(
            f"{label}: memory each",
            f"{BYTES // 1024} KB or less",
            f"{found['bytes_each'] / 1024:.1f} KB",
            met=all_wait and found["bytes_each"] <= BYTES,
            basis="1 run",
        ),
        Goal(
            f"{label}: database connections in use (median over time)",
            "0",
            str(held),
            met=all_wait and held == 0,
            basis="1 run",
        ),
        Goal(
            f"{label}: heartbeat p99 meanwhile",
            f"under {ms(P99)} ms",
            f"{ms(found['p99'])} ms",
            met=all_wait and found["p99"] < P99,
            basis="1 run",
        ),
    ]
    pooled = [sight["all"] for sight in found["connections"]]
    section.body += [
        "Measured once. Each waiter waits for its own task (`GET` with `Prefer: wait=120`) on its "
        "own connection. Memory is the growth of the server's resident set from the 300th waiter "
        "to its largest size, divided by the number of further waiters. Unused database "
        "connections rest in the pool.",
        table(
            ["", ""],
            [
                ["waiters that still waited at the end", f"{found['waiting']:,} of {count:,}"],
                ["waiters that were answered before the end", found["answered"] or "none"],
                ["time until all waited, s", f"{found['arrival_seconds']:.1f}"],
                ["memory each, KB", f"{found['bytes_each'] / 1024:.1f}"],
                ["threads of the server", found["threads"]],
                ["database connections before", found["connections_before"]["all"]],
                ["database connections meanwhile, in the pool or in use", max(pooled)],
                ["in use at once: median, most", f"{held}, {busy[-1]}"],
                ["heartbeats", found["heartbeats"]],
                ["heartbeat p50 / p99, ms", f"{ms(found['p50'])} / {ms(found['p99'])}"],
            ],
        ),
    ]
    return section
