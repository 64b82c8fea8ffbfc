"""Batches of a hundred over HTTP, and plain SQL as the upper bound."""

from __future__ import annotations

from collections import Counter
from functools import partial
from statistics import median

from benchmarks.bench import Bench, median_figure, rounds, target_of
from benchmarks.parts.cycles import RECOMMENDED
from benchmarks.report import Goal, Section, figures_are, median_of, ms, per_second, table
from benchmarks.stack.ours import started

CONNECTIONS = (1, 2, 4, 8)
WANTED = 10_000


def on_postgres(bench: Bench) -> Section:
    """Tasks a second on the recommended deployment, by number of connections."""
    site = bench.site("history", "batches")
    with started(site.granian()) as (server,):
        contenders = {
            connections: partial(
                bench.drive,
                "batches",
                target=target_of(server, site),
                connections=connections,
                seconds=bench.scale.seconds,
            )
            for connections in CONNECTIONS
        }
        first = contenders[1]()
        found = rounds(bench, contenders) if first["available"] else {}
    section = Section("Batches of 100 over HTTP, PostgreSQL")
    label = f"batched: submit 100, claim 100, report 100 ({RECOMMENDED})"
    goal = f"{WANTED:,} tasks/s or more"
    if not found:
        section.goals.append(Goal(label, goal, "not available"))
        section.body.append(f"The server does not support batches: {first['missing']}.")
        return section
    rates = {connections: median_figure(results, "rate") for connections, results in found.items()}
    best = max(rates, key=lambda connections: rates[connections])
    section.goals.append(
        Goal(
            f"{label}, {best} connections, the best number of them",
            goal,
            f"{per_second(rates[best])} tasks/s",
            met=rates[best] >= WANTED,
            basis=median_of(bench.scale.rounds),
        )
    )
    rows = [
        [
            connections,
            per_second(rates[connections]),
            *(
                ms(median(result["means"].get(verb, 0.0) for result in results))
                for verb in ("submit", "claim", "report")
            ),
        ]
        for connections, results in found.items()
    ]
    section.body += [
        f"{figures_are(bench.scale.rounds)}; times are means of a round.",
        table(["connections", "tasks/s", "submit ms", "claim ms", "report ms"], rows),
    ]
    failures: Counter[str] = Counter()
    for results in found.values():
        for result in results:
            failures.update(result["failures"])
    section.body += [f"- {number} times `{failure}`" for failure, number in failures.most_common(3)]
    return section
