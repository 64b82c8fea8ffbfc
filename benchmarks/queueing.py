"""Simulates how long tasks wait for a worker, and requests for a process, by load.

``python -m benchmarks.queueing`` writes the tables between the marks in docs/explanation/growth.md
and the plot docs/explanation/growth.svg, in a few minutes on one core. ``--quick`` simulates a
fiftieth of the tasks.

The model is M/G/k: arrivals are a Poisson process, the queue is first in, first out, and all
servers are alike. The mean wait has an exact formula for exponential service times (Erlang C), and
with one server for all service times (Pollaczek and Khinchine); `tests/unit/test_queueing.py`
compares the simulation with both.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DOCS = Path(__file__).resolve().parents[1] / "docs" / "explanation"
BEGIN, END = "<!-- queueing: begin -->", "<!-- queueing: end -->"
SERVERS = (1, 4, 16, 64)
UTILISATIONS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
#: Utilisations in the table of polling workers; the plot shows all of `UTILISATIONS`.
POLLED_UTILISATIONS = (0.5, 0.8, 0.95)
#: Mean lengths of a task in the polling table, in seconds.
LENGTHS = (0.1, 1.0, 10.0)
#: Seconds between two polls of the original's idle worker.
POLL = 2.0
#: Standard deviation of the lognormal service times over their mean.
SPREAD = 2.0
#: Shortest wait in the plot, in mean service times.
LEAST = 0.01
#: Tasks that are simulated at once, so that memory stays flat.
CHUNK = 500_000


def deterministic(random: np.random.Generator, number: int) -> Floats:
    """Service times that are all 1."""
    return np.ones(number)


def exponential(random: np.random.Generator, number: int) -> Floats:
    """Exponential service times with mean 1."""
    return random.exponential(1.0, number)


def lognormal(random: np.random.Generator, number: int) -> Floats:
    """Lognormal service times with mean 1 and standard deviation `SPREAD`: a few are very long."""
    variance = math.log(1 + SPREAD**2)
    return random.lognormal(-variance / 2, math.sqrt(variance), number)


@dataclass(frozen=True)
class Shape:
    """A distribution of service times with mean 1, and its squared coefficient of variation."""

    name: str
    draw: Callable[[np.random.Generator, int], Floats]
    variation: float


SHAPES = (
    Shape("deterministic", deterministic, 0.0),
    Shape("exponential", exponential, 1.0),
    Shape("lognormal", lognormal, SPREAD**2),
)
EXPONENTIAL = SHAPES[1]


@dataclass(frozen=True)
class Waits:
    """Waiting times in the unit of the service times; `polls` is the number of polls a task."""

    mean: float
    p50: float
    p95: float
    p99: float
    #: Share of the tasks that waited at all.
    waited: float
    polls: float = 0.0


class Woken:
    """Servers that begin a task as soon as it has arrived and a server is free."""

    polls = 0

    def __init__(self, servers: int) -> None:
        self._free = [0.0] * servers

    def serve(self, arrivals: Iterable[float], services: Iterable[float]) -> Iterator[float]:
        """The waiting time of each task, in the order of arrival."""
        free = self._free
        for arrival, service in zip(arrivals, services, strict=True):
            begin = free[0]
            if begin < arrival:
                begin = arrival
            heapreplace(free, begin + service)
            yield begin - arrival


class Polling:
    """Servers that poll when they have finished a task, and at an interval while there is none."""

    def __init__(self, servers: int, interval: float) -> None:
        self._interval = interval
        #: Time of each server's next poll; idle servers do not poll at the same time.
        self._next_polls = [interval * number / servers for number in range(servers)]
        heapify(self._next_polls)
        self.polls = 0

    def serve(self, arrivals: Iterable[float], services: Iterable[float]) -> Iterator[float]:
        """The waiting time of each task, in the order of arrival."""
        next_polls, interval = self._next_polls, self._interval
        for arrival, service in zip(arrivals, services, strict=True):
            while next_polls[0] < arrival:
                # Polls before the arrival find no task, because all earlier tasks are taken.
                in_vain = math.ceil((arrival - next_polls[0]) / interval)
                self.polls += in_vain
                heapreplace(next_polls, next_polls[0] + in_vain * interval)
            begin = next_polls[0]
            self.polls += 1
            heapreplace(next_polls, begin + service)
            yield begin - arrival


def simulate(
    servers: int,
    utilisation: float,
    shape: Shape,
    tasks: int,
    *,
    length: float = 1.0,
    poll: float | None = None,
    seed: int = 1,
) -> Waits:
    """Waiting times of `tasks` tasks, after a warm-up of a tenth as many.

    Parameters
    ----------
    utilisation
        Share of the time that a server is busy, below 1.
    length
        Mean service time; the waiting times returned have the same unit.
    poll
        Time between two polls of an idle server; None wakes it at once.
    """
    random = np.random.default_rng([seed, servers, round(1000 * utilisation)])
    queue = Woken(servers) if poll is None else Polling(servers, poll)
    between = length / (servers * utilisation)
    now, left, warm = 0.0, tasks, tasks // 10
    parts: list[Floats] = []
    polls_before = 0
    while warm or left:
        number = min(CHUNK, warm or left)
        arrivals = now + np.cumsum(random.exponential(between, number))
        now = float(arrivals[-1])
        services = length * shape.draw(random, number)
        found = queue.serve(arrivals.tolist(), services.tolist())
        waits = np.fromiter(found, np.float64, number)
        if warm:
            warm -= number
            polls_before = queue.polls
        else:
            left -= number
            parts.append(waits)
    every = np.concatenate(parts)
    p50, p95, p99 = (float(value) for value in np.percentile(every, (50, 95, 99)))
    return Waits(
        float(every.mean()),
        p50,
        p95,
        p99,
        float((every > 0).mean()),
        (queue.polls - polls_before) / tasks,
    )


def erlang_c(servers: int, utilisation: float) -> float:
    """The probability that a task waits, with exponential service times."""
    load = servers * utilisation
    # By Erlang B, because its recursion has no large numbers.
    blocked = 1.0
    for number in range(1, servers + 1):
        blocked = load * blocked / (number + load * blocked)
    return blocked / (1 - utilisation * (1 - blocked))


def mean_wait(servers: int, utilisation: float, variation: float = 1.0) -> float:
    """The mean wait in service times: exact for M/M/k and M/G/1, else an approximation.

    `variation` is the squared coefficient of variation of the service times.
    """
    by_erlang = erlang_c(servers, utilisation) / (servers * (1 - utilisation))
    return by_erlang * (1 + variation) / 2


def effort(utilisation: float, quick: bool) -> int:
    """The number of tasks to simulate: more near saturation, where waits correlate for longer."""
    tasks = {0.95: 4_000_000, 0.98: 16_000_000}.get(utilisation, 1_000_000)
    return tasks // 50 if quick else tasks


def figure(value: float) -> str:
    """The value with two significant digits; "0" below 0.0005."""
    if value < 0.0005:
        return "0"
    digits = max(0, 1 - math.floor(math.log10(value)))
    return f"{round(value, 1 - math.floor(math.log10(value))):,.{digits}f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def exact_rows() -> list[list[str]]:
    """Rows of exact mean waits with exponential service times, one for each number of servers."""
    return [
        [str(servers), *(figure(mean_wait(servers, at)) for at in UTILISATIONS)]
        for servers in SERVERS
    ]


def report(quick: bool) -> tuple[str, Figure]:
    """The tables and the plot."""
    percent = [f"{utilisation:.0%}" for utilisation in UTILISATIONS]
    woken = {
        (shape.name, servers, at): simulate(servers, at, shape, effort(at, quick))
        for shape in SHAPES
        for servers in SERVERS
        for at in UTILISATIONS
    }
    few = 20_000 if quick else 400_000
    timed = {
        (poll, length, servers, at): simulate(
            servers, at, EXPONENTIAL, few, length=length, poll=poll
        )
        for poll in (None, POLL)
        for length in LENGTHS
        for servers in SERVERS
        for at in POLLED_UTILISATIONS
    }
    parts = [
        "Mean wait with exponential service times by Erlang C, in service times, by servers and"
        " utilisation:",
        table(["servers", *percent], exact_rows()),
        "The same and the other shapes by simulation, and the percentiles: mean / p50 / p95 / p99,"
        f" in service times. The lognormal times have a standard deviation of {SPREAD:g} means.",
        table(
            ["service times", "servers", *percent],
            (
                [
                    shape.name,
                    str(servers),
                    *(
                        " / ".join(figure(value) for value in (w.mean, w.p50, w.p95, w.p99))
                        for w in (woken[shape.name, servers, at] for at in UTILISATIONS)
                    ),
                ]
                for shape in SHAPES
                for servers in SERVERS
            ),
        ),
        f"Workers that are woken against workers that poll every {POLL:g} s, in seconds,"
        " exponential lengths: p50 / p95, and claims tried for each task by those that poll.",
        table(
            ["mean length", "workers", "busy", "woken", "polling", "claims tried"],
            (
                [
                    f"{length:g} s",
                    str(servers),
                    f"{at:.0%}",
                    *(
                        f"{figure(w.p50)} / {figure(w.p95)}"
                        for w in (timed[poll, length, servers, at] for poll in (None, POLL))
                    ),
                    figure(timed[POLL, length, servers, at].polls),
                ]
                for length in LENGTHS
                for servers in SERVERS
                for at in POLLED_UTILISATIONS
            ),
        ),
    ]
    return "\n\n".join(parts), draw(woken)


def draw(woken: dict[tuple[str, int, float], Waits]) -> Figure:
    """The 95th percentile of the wait by utilisation, a panel for each shape."""
    # A fixed salt, so that the same figures give the same file.
    mpl.rcParams["svg.hashsalt"] = "zndraw_joblib"
    # Text is not drawn as paths, so that the file stays small.
    mpl.rcParams["svg.fonttype"] = "none"
    plot = Figure(figsize=(9, 3.6), layout="constrained")
    panels = plot.subplots(1, len(SHAPES), sharey=True)
    for shape, axes in zip(SHAPES, panels, strict=True):
        for servers in SERVERS:
            found = [(100 * at, woken[shape.name, servers, at].p95) for at in UTILISATIONS]
            # A logarithmic axis cannot show a wait of 0.
            seen = [point for point in found if point[1] >= LEAST]
            axes.plot(*zip(*seen, strict=True), marker="o", label=f"k = {servers}")
        axes.set_title(shape.name)
        axes.set_xlabel("utilisation, %")
        axes.set_yscale("log")
        axes.set_ylim(LEAST, 500)
        axes.set_xlim(48, 100)
        axes.grid(visible=True, alpha=0.3)
    panels[0].set_ylabel("p95 of the wait, service times")
    panels[0].legend()
    return plot


def main() -> None:
    """Write the tables and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="rough figures, to standard output")
    quick = parser.parse_args().quick
    text, plot = report(quick)
    if quick:
        print(text)
        return
    page = DOCS / "growth.md"
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
    plot.savefig(DOCS / "growth.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
