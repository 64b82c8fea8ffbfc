"""The operators' dashboard, and the passes of the sweeper that keep its statistics."""

from __future__ import annotations

from statistics import median

from benchmarks.bench import Bench
from benchmarks.report import Goal, Section, figures_are, median_of, ms, per_second, table

PAGE_SECONDS = 0.3
#: Most of its time that a sweeper with the default interval of 30 s may spend on statistics.
SHARE, INTERVAL = 0.02, 30.0


def measure(bench: Bench) -> Section:
    """Count the tasks of a day, repeat the pass with nothing new, and request the page."""
    scale = bench.scale
    pending = scale.backlogs[-1]
    site = bench.site("operated", "dashboard")
    found = site.run_child("dashboard", str(scale.rounds), timeout=1_800)
    spans = {query: median(times) for query, times in found["spans"].items()}
    slowest = max(spans, key=lambda query: spans[query])
    again = median(found["again"])
    section = Section("Dashboard")
    section.goals += [
        Goal(
            f"dashboard with {pending:,} pending and {scale.ended:,} ended tasks, slowest request "
            f"({slowest})",
            f"under {ms(PAGE_SECONDS)} ms",
            f"{ms(spans[slowest])} ms",
            met=spans[slowest] < PAGE_SECONDS,
            basis=median_of(scale.rounds, "request"),
        ),
        Goal(
            "pass of the statistics with nothing new, as a share of the sweeper's time",
            f"{SHARE:.0%} or less",
            f"{again / INTERVAL:.2%}",
            met=again / INTERVAL <= SHARE,
            basis=median_of(scale.rounds, "repeat"),
        ),
    ]
    first = sum(found["first"])
    counted = found["ended"] + found["submitted"]
    section.body += [
        f"The first passes counted {found['ended']:,} ends and {found['submitted']:,} submits of "
        f"the last day in {first:.1f} s, in {len(found['first'])} passes: "
        f"{per_second(counted / first)} a second. A pass with nothing new takes {ms(again)} ms; "
        f"the count of the backlogs took {ms(found['sample'])} ms. The intervals have "
        f"{found['rows']:,} rows.",
        "`GET /admin/zndraw_joblib/jobinterval/` by a superuser through Django's test client, "
        f"after one request that compiles the templates; the largest page has "
        f"{found['bytes'] / 1024:.0f} KiB. {figures_are(scale.rounds)}.",
        table(["query", "ms"], [[f"`{query}`", ms(span)] for query, span in spans.items()]),
    ]
    return section
