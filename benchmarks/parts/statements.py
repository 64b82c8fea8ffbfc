"""SQL statements of each request, counted on both databases."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.report import Goal, Section, table

MOST = {
    "claim": 1,
    "start": 1,
    "finish": 1,
    "heartbeat": 1,
    "heartbeat with tasks": 2,
    "submit": 2,
    "submit with a key": 2,
}
NAMES = {"submit with a key": "submit with an `Idempotency-Key`"}


def measure(bench: Bench) -> Section:
    """Count the statements of each request in one process, once its caches are filled."""
    sites = {
        "PostgreSQL": bench.site("history", "statements"),
        "SQLite": bench.sqlite_site("statements-sqlite"),
    }
    found: dict[str, dict[str, list[int]]] = {
        database: site.run_child("statements", site.tokens[0]) for database, site in sites.items()
    }
    section = Section("SQL statements")
    for label, most in MOST.items():
        counts = {database: counted[label][0] for database, counted in found.items()}
        section.goals.append(
            Goal(
                f"SQL statements: {NAMES.get(label, label)}, without authentication",
                f"{most}" if most == 1 else f"{most} or fewer",
                ", ".join(f"{number} ({database})" for database, number in counts.items()),
                met=all(0 < number <= most for number in counts.values()),
                basis="counted once",
            )
        )
    section.body += [
        "Counted in one process by `CaptureQueriesContext`, for requests through the WSGI "
        "application of the example project. The process has the token (`token_cache_seconds`) "
        "and the job's schema in its caches. `BEGIN`, `COMMIT` and savepoints have a column of "
        "their own, because they are round trips too where a request is a transaction of several "
        "statements. A claim that finds nothing also reads the worker's jobs.",
        table(
            [
                "request",
                *(
                    f"{database}: {kind}"
                    for database in found
                    for kind in ("statements", "BEGIN …")
                ),
            ],
            [
                [NAMES.get(label, label), *(n for counts in found.values() for n in counts[label])]
                for label in found["PostgreSQL"]
            ],
        ),
    ]
    return section
