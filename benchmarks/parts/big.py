"""A table of a million tasks: a sweep, pages of a room's list, the admin's list."""

from __future__ import annotations

import base64
import json
from functools import partial
from statistics import median
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from benchmarks.bench import Bench, target_of
from benchmarks.driver.meter import percentile
from benchmarks.report import Goal, Section, figures_are, median_of, ms, table
from benchmarks.stack.ours import started
from benchmarks.stack.processes import BenchError
from zndraw_joblib.lifecycle import TaskStatus

SWEEP_SECONDS = 10.0
#: Largest memory in the second half of a sweep over that in the first half, at most.
FLAT = 1.1
PAGE_P95 = 0.050
LONG = "500 long"
ADMIN_SECONDS = 1.0
STATUSES = (None, "pending", "running", "completed", "failed")


def sweep(bench: Bench) -> Section:
    """Sweep all dead workers once a round, each time on a new copy of the database."""
    scale, found = bench.scale, []
    for number in range(scale.rounds):
        site = bench.site("big", f"sweep-{number}")
        found.append(site.run_child("sweep_once", timeout=600))
        bench.postgres.drop(site.name)
    seconds = median(once["seconds"] for once in found)
    slope = median(once["slope"] for once in found)
    held = scale.big // 10
    complete = all(
        once["changed"] == held and once["workers"] == scale.dead_workers for once in found
    )
    section = Section("Sweep")
    label = f"sweep of {scale.dead_workers:,} dead workers with {held:,} tasks among {scale.big:,}"
    section.goals += [
        Goal(
            label,
            f"under {SWEEP_SECONDS:.0f} s",
            f"{seconds:.1f} s" if complete else f"{seconds:.1f} s, but tasks were left",
            met=complete and seconds < SWEEP_SECONDS,
            basis=median_of(scale.rounds),
        ),
        Goal(
            f"{label}: memory in the second half of the time over that in the first",
            f"flat ({FLAT} or less)",
            f"{slope:.2f}",
            met=slope <= FLAT,
            basis=median_of(scale.rounds),
        ),
    ]
    rows = [
        [
            f"{once['seconds']:.1f}",
            f"{once['flushed']:.1f}",
            f"{once['growth'] / 2**20:.0f}",
            f"{once['slope']:.2f}",
            once["report"],
        ]
        for once in found
    ]
    section.body += [
        "Each line is a round on its own copy of the table.",
        table(["s", "s until all messages were sent", "growth MiB", "second half", "report"], rows),
    ]
    return section


def pages(bench: Bench) -> Section:
    """Pages at the start, in the middle and near the end of the list, of all and of one status."""
    site = bench.site("big", "pages")
    with started(site.granian()) as (server,):
        target = target_of(server, site)
        paths = {}
        for status in STATUSES:
            for where, group in _paths(bench, target, status).items():
                paths[f"{status or 'all'}, {where}"] = group
        found = [
            bench.drive("pages", target=target, paths=paths) for _ in range(bench.scale.rounds)
        ]
    p50, p95 = (
        {name: median(percentile(once["spans"][name], share) for once in found) for name in paths}
        for share in (0.5, 0.95)
    )
    section = Section("Pages of a room's tasks")
    kinds = {
        "default length": [name for name in p95 if not name.endswith(LONG)],
        "longest pages": [name for name in p95 if name.endswith(LONG)],
    }
    for kind, names in kinds.items():
        slowest = max(names, key=lambda name: p95[name])
        section.goals.append(
            Goal(
                f"task list of a room with {bench.scale.big:,} tasks, {kind}: p95 of the slowest "
                f"({slowest})",
                f"{ms(PAGE_P95)} ms or less",
                f"{ms(p95[slowest])} ms",
                met=p95[slowest] <= PAGE_P95,
                basis=f"{median_of(bench.scale.rounds)}, each of {bench.scale.pages} requests",
            )
        )
    rows = [
        [name, int(median(found[0]["lengths"][name])), ms(p50[name]), ms(p95[name])]
        for name in paths
    ]
    section.body += [
        "`GET rooms/{room}/tasks` with and without `?status=`, pages of the default length and, "
        "for the first one, of 500. The cursors of later pages point to the middle of the list, or "
        "nearly to its end. "
        f"{figures_are(bench.scale.rounds)}, each of {bench.scale.pages} requests.",
        table(["page", "tasks on it", "p50 ms", "p95 ms"], rows),
    ]
    return section


def _paths(bench: Bench, target: dict[str, Any], status: str | None) -> dict[str, list[str]]:
    """Paths of pages at the start, in the middle and near the end, by these names."""
    query = {} if status is None else {"status": status}
    first = f"/v1/joblib/rooms/bench/tasks?{urlencode(query)}"
    condition = "room_id = 'bench'" + (f" AND status = '{status}'" if status else "")
    with bench.postgres.connect("pages") as connection:
        (count,) = connection.execute(
            f"SELECT count(*) FROM zndraw_joblib_task WHERE {condition}".encode()
        ).fetchone() or (0,)
        groups = {"first": [first], f"first, {LONG}": [f"{first}&limit=500"]}
        for where, share in (("middle", 0.5), ("far", 0.98)):
            anchors = connection.execute(
                f"SELECT created_at, id::text FROM zndraw_joblib_task WHERE {condition}"
                " ORDER BY created_at DESC, id DESC OFFSET %s LIMIT 20".encode(),
                [int(share * count)],
            ).fetchall()
            path_after = partial(_path_after, bench.drive("link", target=target, path=first))
            groups[where] = [path_after(created.isoformat(), pk) for created, pk in anchors]
    times = bench.scale.pages
    return {where: (group * times)[:times] for where, group in groups.items() if group}


def _path_after(link: str, created: str, pk: str) -> str:
    """The path of the page after a task, derived from the link to the second page.

    Raises
    ------
    BenchError
        The cursor is not an array of two strings in JSON in base64.
    """
    split = urlsplit(link)
    query = {name: values[0] for name, values in parse_qs(split.query).items()}
    try:
        cursor = query["cursor"]
        texts = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if len(texts) != 2 or len(texts[1]) != len(pk):
            raise ValueError(texts)
    except (KeyError, ValueError) as error:
        raise BenchError(f"no cursor of the known form in {link!r}") from error
    moved = base64.urlsafe_b64encode(json.dumps([created, pk]).encode()).decode().rstrip("=")
    return f"{split.path}?{urlencode({**query, 'cursor': moved})}"


def admin(bench: Bench) -> Section:
    """The admin's list of tasks, whole and filtered, requested by a superuser."""
    site = bench.site("big", "admin")
    queries = [
        "",
        *(f"?status__exact={status}" for status in TaskStatus),
        "?room_id=bench",
        "?created_by=template",
        "?age=hour",
        "?age=older",
        "?p=100",
    ]
    found = site.run_child("admin_list", str(bench.scale.rounds), *queries)
    seconds = {query: median(spans) for query, spans in found["spans"].items()}
    section = Section("Admin")
    slowest = max(seconds, key=lambda query: seconds[query])
    for label, query in (("admin task list", ""), (f"slowest filter ({slowest})", slowest)):
        section.goals.append(
            Goal(
                f"{label} with {bench.scale.big:,} tasks",
                f"under {ms(ADMIN_SECONDS)} ms",
                f"{ms(seconds[query])} ms",
                met=seconds[query] < ADMIN_SECONDS,
                basis=median_of(bench.scale.rounds, "request"),
            )
        )
    section.body += [
        "`GET /admin/zndraw_joblib/task/` by a superuser through Django's test client, after one "
        f"request that compiles the templates; the largest page has {found['bytes'] / 1024:.0f} "
        f"KiB. {figures_are(bench.scale.rounds)}.",
        table(["query", "ms"], [[f"`{query}`", ms(span)] for query, span in seconds.items()]),
    ]
    return section
