"""The fenced blocks of code in the documentation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
#: A block, with the reason why it is not run, if a comment above it gives one.
BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>.+?) -->\n+)?```(?P<language>\w+)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """A block of code; `reason` says why no test runs it."""

    page: Path
    line: int
    language: str
    code: str
    reason: str | None
    before: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path, *languages: str) -> list[Block]:
    """The blocks of a page in these languages, in their order; all without any."""
    text = page.read_text()
    return [
        Block(
            page,
            text[: found.start("code")].count("\n"),
            found["language"],
            found["code"],
            found["reason"],
            text[: found.start()],
        )
        for found in BLOCK.finditer(text)
        if not languages or found["language"] in languages
    ]
