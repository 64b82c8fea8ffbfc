"""Full task cycles a second over HTTP, on PostgreSQL and on SQLite."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

from benchmarks.bench import Bench, median_figure, rounds, target_of
from benchmarks.report import Goal, Section, figures_are, median_of, ms, per_second, table, times
from benchmarks.stack.front import behind_nginx
from benchmarks.stack.ours import THREADS, started

SQLITE_CONNECTIONS = (1, 8)
#: Bytes of the results of the cycles with results.
RESULT_BYTES = 1_000
#: The kinds of cycles, as the tables name them.
PLAIN, START, RESULT = "", "claim with `start`", "with results of 1 kB"
KINDS = (PLAIN, START, RESULT)
RECOMMENDED = f"granian WSGI, 2 workers of {THREADS} threads"
#: The deployment that docs/how-to/deploy.md recommends.
RECOMMENDED_WITH_NGINX = f"nginx, {RECOMMENDED}"


def on_postgres(bench: Bench) -> Section:
    """Both deployments of this project, and the original with 1 and with 2 processes."""
    names = ("cycles-uvicorn-1", "cycles-uvicorn-2", "cycles-granian")
    one, two, many = (bench.site("history", name) for name in names)
    first, second = (bench.original_site("history", f"cycles-original-{n}") for n in (1, 2))
    with (
        started(
            one.uvicorn(1), two.uvicorn(2), many.granian(), first.uvicorn(1), second.uvicorn(2)
        ) as servers,
        behind_nginx(servers[2]) as front,
    ):
        ours = {
            "uvicorn ASGI, 1 worker": target_of(servers[0], one),
            "uvicorn ASGI, 2 workers": target_of(servers[1], two),
            RECOMMENDED: target_of(servers[2], many),
        }
        if front:
            ours[RECOMMENDED_WITH_NGINX] = target_of(front, many)
        originals = {
            "original, 1 process": target_of(servers[3], first),
            "original, 2 processes": target_of(servers[4], second),
        }
        found = _measure(bench, ours, originals, bench.scale.connections)
    section = Section("Full cycles over HTTP, PostgreSQL")
    for connections in bench.scale.connections:
        best = max(found[name, connections, PLAIN]["rate"] for name in originals)
        server = RECOMMENDED_WITH_NGINX if front else RECOMMENDED
        rate = found[server, connections, False]["rate"]
        section.goals.append(
            Goal(
                f"full cycles/s, PostgreSQL, {connections} connections ({server})",
                "4 times the original or more",
                per_second(rate),
                per_second(best),
                times(rate / best),
                rate >= 4 * best,
                median_of(bench.scale.rounds),
            )
        )
    section.body += [
        "A cycle is submit, claim, running, completed: four requests, or three when the claim "
        "has `start`. All workers serve one job, and the table begins with "
        f"{bench.scale.history:,} finished tasks. The goal is compared with the better of the "
        "original's two figures. "
        f"{figures_are(bench.scale.rounds)}.",
        *_tables(found, ours, originals, bench.scale.connections),
    ]
    return section


def on_sqlite(bench: Bench) -> Section:
    """One process of each project on a SQLite file, with the settings that the project ships."""
    asgi, wsgi = bench.sqlite_site("sqlite-uvicorn"), bench.sqlite_site("sqlite-granian")
    bare = bench.original_sqlite_site("sqlite-original", lock=False)
    locked = bench.original_sqlite_site("sqlite-original-lock", lock=True)
    with started(asgi.uvicorn(1), wsgi.granian(1), bare.uvicorn(1), locked.uvicorn(1)) as servers:
        ours = {
            "uvicorn ASGI, 1 worker": target_of(servers[0], asgi),
            f"granian WSGI, 1 worker of {THREADS} threads": target_of(servers[1], wsgi),
        }
        originals = {
            "original, 1 process": target_of(servers[2], bare),
            "original, 1 process, sessions serialized": target_of(servers[3], locked),
        }
        found = _measure(bench, ours, originals, SQLITE_CONNECTIONS)
    section = Section("Full cycles over HTTP, SQLite")
    for name in ours:
        rate = found[name, 8, PLAIN]["rate"]
        best = max(found[other, 8, PLAIN]["rate"] for other in originals)
        section.goals.append(
            Goal(
                f"full cycles/s, SQLite, 1 process, 8 connections ({name})",
                "3 times the original or more",
                per_second(rate),
                per_second(best),
                times(rate / best),
                rate >= 3 * best,
                median_of(bench.scale.rounds),
            )
        )
    section.body += [
        "The original runs with its own engine and, as its README asks of a site on SQLite, with "
        "sessions that take turns by a lock; the goal is compared with the better figure. "
        f"{figures_are(bench.scale.rounds)}.",
        *_tables(found, ours, originals, SQLITE_CONNECTIONS),
    ]
    return section


def _measure(
    bench: Bench,
    ours: dict[str, Any],
    originals: dict[str, Any],
    counts: tuple[int, ...],
) -> dict[tuple[str, int, str], dict[str, Any]]:
    contenders = {}
    for name, target in {**ours, **originals}.items():
        for connections in counts:
            for kind in KINDS if name in ours else (PLAIN,):
                contenders[name, connections, kind] = partial(
                    bench.drive,
                    "cycles",
                    target=target,
                    connections=connections,
                    seconds=bench.scale.seconds,
                    start=kind == START,
                    result_bytes=RESULT_BYTES if kind == RESULT else 0,
                )
    found: dict[tuple[str, int, str], dict[str, Any]] = {}
    for key, results in rounds(bench, contenders).items():
        if not results[0]["available"]:
            found[key] = {"available": False}
            continue
        failures: Counter[str] = Counter()
        for result in results:
            failures.update(result["failures"])
        found[key] = {
            "available": True,
            "failures": failures,
            **{name: median_figure(results, name) for name in ("rate", "p50", "p99", "empty")},
        }
    return found


def _tables(
    found: dict[tuple[str, int, str], dict[str, Any]],
    ours: dict[str, Any],
    originals: dict[str, Any],
    counts: tuple[int, ...],
) -> list[str]:
    rows, remarks = [], []
    for connections in counts:
        best = max(found[name, connections, PLAIN]["rate"] for name in originals)
        for kind in KINDS:
            for name in (*ours, *originals):
                cell = found.get((name, connections, kind))
                if cell is None:
                    continue
                label = f"{name}, {kind}" if kind else name
                if not cell["available"]:
                    rows.append([connections, label, "not available", "", "", ""])
                    continue
                ratio = times(cell["rate"] / best) if best else ""
                rows.append(
                    [
                        connections,
                        label,
                        per_second(cell["rate"]),
                        ratio,
                        ms(cell["p50"]),
                        ms(cell["p99"]),
                    ]
                )
                if cell["empty"]:
                    remarks.append(
                        f"{label}, {connections} connections: {cell['empty']:.0f} claims in a "
                        "round returned no task although some were pending."
                    )
                remarks += [
                    f"{label}, {connections} connections: {number} times `{failure}`"
                    for failure, number in cell["failures"].most_common(3)
                ]
    head = ["connections", "server", "cycles/s", "over the original", "p50 ms", "p99 ms"]
    return [table(head, rows), *(["\n".join(f"- {line}" for line in remarks)] if remarks else [])]
