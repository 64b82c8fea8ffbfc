"""The report: a table of goals with their verdicts, and the sections with the figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

#: Marks around the part of the page that is written by hand, which each run keeps.
BEGIN, END = "<!-- by hand: begin -->", "<!-- by hand: end -->"


@dataclass(frozen=True)
class Goal:
    """One line of the table of goals; `met` is None where the figure is not available.

    A figure without a `goal` has no verdict.
    """

    label: str
    goal: str
    ours: str
    original: str = ""
    ratio: str = ""
    met: bool | None = None
    #: The kind of figure: the median of a number of rounds, or a number of runs.
    basis: str = ""

    @property
    def verdict(self) -> str:
        """The text for `met` in the table."""
        if not self.goal:
            return ""
        return {True: "met", False: "**not met**", None: "not available"}[self.met]


@dataclass
class Section:
    """The results of one part of the run."""

    title: str
    goals: list[Goal] = field(default_factory=list)
    #: Paragraphs and tables in Markdown.
    body: list[str] = field(default_factory=list)
    #: CPU of the driver as a share of one core, for each measurement.
    cpu_shares: list[float] = field(default_factory=list)
    #: Duration of the part.
    seconds: float = 0.0


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def median_of(count: int, unit: str = "round") -> str:
    """The description of a figure that is the median of `count` measurements."""
    return f"1 {unit}" if count == 1 else f"median of {count} {unit}s"


def figures_are(rounds: int) -> str:
    """`median_of` as a sentence about the figures of a table, without its full stop."""
    return f"Each figure is {'of' if rounds == 1 else 'the'} {median_of(rounds)}"


def ms(seconds: float) -> str:
    """A time in milliseconds with about three significant digits, without its unit."""
    value = 1000 * seconds
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def per_second(rate: float) -> str:
    """A rate with about three significant digits, without its unit."""
    return f"{rate:.1f}" if rate < 100 else f"{rate:,.0f}"


def times(ratio: float) -> str:
    """A ratio with about three significant digits."""
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.1f}" if ratio < 100 else f"{ratio:,.0f}"


def written_by_hand(page: str) -> str:
    """The part of a page that a run keeps, with its marks; empty for a page without marks."""
    _, begin, rest = page.partition(BEGIN)
    text, end, _ = rest.partition(END)
    return f"{begin}{text}{end}" if end else ""


def render(
    sections: Sequence[Section],
    facts: dict[str, str],
    commands: Sequence[str],
    quick: bool,
    kept: str = "",
) -> str:
    """The whole report in Markdown; `kept` is its last part, which is written by hand."""
    kind = "a quick run, for orientation only" if quick else "the last full run"
    parts = [
        "# Performance",
        f"The figures of {kind} of `make bench`. `python -m benchmarks.run` writes this page "
        "except the sections about pieces kept for speed. `original` is the FastAPI project "
        "`zndraw-joblib` 0.1.7, measured in the same run on the same machine and the same "
        "PostgreSQL server, with its authentication stubbed out. Requests to this project carry a "
        "token, which is checked, and pass the throttles of the example project. The servers are "
        "started by the commands of docs/deploy/joblib-wsgi.service and joblib-asgi.service, with "
        "another address, the number of workers that each row gives, and 2 s in which uvicorn "
        "finishes its last waits.",
        "## Goals",
        table(
            ["figure", "goal", "this project", "original", "ratio", "verdict", "basis"],
            [
                [
                    *(goal.label, goal.goal, goal.ours, goal.original, goal.ratio, goal.verdict),
                    goal.basis,
                ]
                for section in sections
                for goal in section.goals
            ],
        ),
        "## The machine and the commands",
        table(["", ""], facts.items()),
        "<!-- not run: takes half an hour -->\n"
        + "\n".join(["```console", *(f"$ {command}" for command in commands), "```"]),
    ]
    for section in sections:
        parts += [f"## {section.title}", *section.body, _duration(section)]
    if kept:
        parts.append(kept)
    return "\n\n".join(parts) + "\n"


def _duration(section: Section) -> str:
    text = f"This part took {section.seconds:.0f} s."
    if section.cpu_shares:
        mean = sum(section.cpu_shares) / len(section.cpu_shares)
        text += (
            f" The driver took {100 * mean:.0f} % of one core on average and "
            f"{100 * max(section.cpu_shares):.0f} % at most."
        )
    return text
