"""The report: goals met or not, computed from what was measured, and the tables behind them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

#: The part of the page that is written by hand stands between these, and each run keeps it.
BEGIN, END = "<!-- by hand: begin -->", "<!-- by hand: end -->"


@dataclass(frozen=True)
class Goal:
    """One line of the table of goals; `met` is None where nothing could be said."""

    what: str
    goal: str
    ours: str
    original: str = ""
    ratio: str = ""
    met: bool | None = None
    #: What the figure is: the median of how many rounds, or how often it was measured.
    basis: str = ""

    @property
    def verdict(self) -> str:
        """The last cell."""
        return {True: "met", False: "**not met**", None: "not available"}[self.met]


@dataclass
class Section:
    """What one part of the run found out."""

    title: str
    goals: list[Goal] = field(default_factory=list)
    #: Paragraphs and tables in Markdown.
    body: list[str] = field(default_factory=list)
    #: Shares of a core that the driver took, and how long the part took in seconds.
    shares: list[float] = field(default_factory=list)
    seconds: float = 0.0


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def median_of(count: int, what: str = "round") -> str:
    """What a figure is that was measured so many times."""
    return f"1 {what}" if count == 1 else f"median of {count} {what}s"


def figures_are(rounds: int) -> str:
    """The same as a sentence about a table, without its full stop."""
    return f"Each figure is {'of' if rounds == 1 else 'the'} {median_of(rounds)}"


def ms(seconds: float) -> str:
    """A time in milliseconds, with as many digits as say something."""
    value = 1000 * seconds
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def per_second(rate: float) -> str:
    """A rate."""
    return f"{rate:.1f}" if rate < 100 else f"{rate:,.0f}"


def times(ratio: float) -> str:
    """A ratio."""
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
    """The whole report in Markdown; `kept` is its last part, written by hand."""
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
            ["what", "goal", "this project", "original", "ratio", "goal", "figures"],
            [
                [
                    *(goal.what, goal.goal, goal.ours, goal.original, goal.ratio, goal.verdict),
                    goal.basis,
                ]
                for section in sections
                for goal in section.goals
            ],
        ),
        "## The machine and the commands",
        table(["", ""], facts.items()),
        "\n".join(["```console", *(f"$ {command}" for command in commands), "```"]),
    ]
    for section in sections:
        parts += [f"## {section.title}", *section.body, _effort(section)]
    if kept:
        parts.append(kept)
    return "\n\n".join(parts) + "\n"


def _effort(section: Section) -> str:
    text = f"This part took {section.seconds:.0f} s."
    if section.shares:
        mean = sum(section.shares) / len(section.shares)
        text += (
            f" The driver took {100 * mean:.0f} % of one core on average and "
            f"{100 * max(section.shares):.0f} % at most."
        )
    return text
