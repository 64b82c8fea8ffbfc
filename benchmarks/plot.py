"""The plot of latency against backlog."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.parts.backlog import ORIGINAL, Found

#: Verb, jobs and the look of its line.
LINES = (
    ("submit", 100, {"color": "tab:blue", "marker": "o"}),
    ("claim", 100, {"color": "tab:orange", "marker": "o"}),
    ("GET pending task", 100, {"color": "tab:green", "marker": "o"}),
    ("heartbeat", 100, {"color": "tab:purple", "marker": "o"}),
    ("submit", ORIGINAL, {"color": "tab:blue", "marker": "x", "linestyle": "--"}),
    ("claim", ORIGINAL, {"color": "tab:orange", "marker": "x", "linestyle": "--"}),
)


def draw(found: Found, backlogs: tuple[int, ...], path: Path) -> None:
    """Write an SVG; the axis is logarithmic, so a backlog of 0 is drawn a decade to the left."""
    # A fixed salt, so that the same figures give the same file.
    mpl.rcParams["svg.hashsalt"] = "zndraw_joblib"
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    places = [backlog or backlogs[1] / 10 for backlog in backlogs]
    for verb, jobs, look in LINES:
        label = f"original: {verb}" if jobs == ORIGINAL else f"{verb}, {jobs} jobs"
        values = [1000 * found[backlog, jobs, verb].p50 for backlog in backlogs]
        axes.plot(places, values, label=label, **look)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(places, [f"{backlog:,}" for backlog in backlogs])
    axes.minorticks_off()
    axes.set_xlabel("pending tasks")
    axes.set_ylabel("p50 over HTTP, ms")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(path, metadata={"Date": None})
