"""Measure everything, or the parts that ``--only`` names, and write the report.

``python -m benchmarks.run [--quick] [--only cycles,backlog]``. A full run writes
`docs/performance.md` and `docs/performance.svg`; a quick or a partial one `.bench/report.md`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

from benchmarks import machine, plot
from benchmarks.bench import Bench
from benchmarks.parts import (
    backlog,
    batches,
    big,
    cycles,
    dashboard,
    events,
    progress,
    prune,
    sdk,
    sql,
    statements,
    waiters,
    waits,
)
from benchmarks.report import Goal, Section, render, written_by_hand
from benchmarks.scale import FULL, QUICK
from benchmarks.stack import original
from benchmarks.stack.postgres import postgres
from benchmarks.stack.processes import ROOT, SCRATCH

PLOT = "performance.svg"


def backlog_with_plot(bench: Bench) -> Section:
    """Measure latency against the backlog, and draw its plot into the scratch folder."""
    section, found = backlog.measure(bench)
    plot.draw(found, bench.scale.backlogs, SCRATCH / PLOT)
    return section


PARTS: dict[str, Callable[[Bench], Section]] = {
    "cycles": cycles.on_postgres,
    "sqlite": cycles.on_sqlite,
    "batches": batches.on_postgres,
    "backlog": backlog_with_plot,
    "waits": waits.measure,
    "waiters": waiters.measure,
    "progress": progress.measure,
    "events": events.measure,
    "statements": statements.measure,
    "sweep": big.sweep,
    "pages": big.pages,
    "admin": big.admin,
    "dashboard": dashboard.measure,
    "prune": prune.measure,
    "sql": sql.measure,
    "sdk": sdk.measure,
}


def end(*_: object) -> NoReturn:
    """Handle SIGTERM like Ctrl-C, so that the servers are stopped too."""
    raise KeyboardInterrupt


def measure(bench: Bench, name: str) -> Section:
    """Run one part; a failure becomes a line of the report, so that the run goes on."""
    begun = time.monotonic()
    bench.cpu_shares.clear()
    try:
        section = PARTS[name](bench)
    except Exception as error:
        traceback.print_exc()
        section = Section(f"{name} (failed)", [Goal(name, "", f"failed: {type(error).__name__}")])
        section.body.append(f"```\n{error}\n```")
    section.cpu_shares = list(bench.cpu_shares)
    section.seconds = time.monotonic() - begun
    for goal in section.goals:
        print(f"  {goal.label}: {goal.ours} | {goal.original} | {goal.ratio} | {goal.verdict}")
    print(f"  {name} took {section.seconds:.0f} s", flush=True)
    return section


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", default=bool(os.environ.get("QUICK")))
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    options = parser.parse_args()
    chosen = [name for name in options.only.split(",") if name]
    if unknown := set(chosen) - PARTS.keys():
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    scale = QUICK if options.quick else FULL
    is_full_run = scale is FULL and chosen == list(PARTS)
    output = ROOT / "docs" / "performance.md" if is_full_run else SCRATCH / "report.md"
    SCRATCH.mkdir(exist_ok=True)
    original.ensure()
    signal.signal(signal.SIGTERM, end)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="joblib-bench-")))
        server = stack.enter_context(postgres())
        facts = machine.facts(server)
        bench = Bench(scale, server, folder, stack)
        sections = []
        for name in chosen:
            print(f"{name} ...", flush=True)
            sections.append(measure(bench, name))
    command = "make bench QUICK=1" if scale is QUICK else "make bench"
    if is_full_run:
        shutil.copy(SCRATCH / PLOT, output.parent)
    if chosen != list(PARTS):
        command = f"python -m benchmarks.run {'--quick ' * options.quick}--only {options.only}"
    kept = written_by_hand(output.read_text()) if is_full_run else ""
    output.write_text(render(sections, facts, [command], scale is QUICK, kept))
    print(f"written to {output.relative_to(ROOT)}")
    return int(any("failed" in section.title for section in sections))


if __name__ == "__main__":
    sys.exit(main())
