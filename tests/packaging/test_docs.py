"""Names in the documentation: files, functions and statements that it mentions exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import report
from zndraw_joblib.settings import JobLibSettings

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
#: A path in backticks from one of the project's folders, such as `tests/api/test_access.py`.
PATH = re.compile(r"`((?:tests|docs|benchmarks|example_project|zndraw_joblib)/[\w./-]+)`")
#: A name in a file of the package, such as `services/submit.py::submit`.
NAME = re.compile(r"`([\w/]+\.(?:py|sql))::([\w.]+)`")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def missing_paths(text: str) -> set[str]:
    return {path for path in PATH.findall(text) if not (ROOT / path).exists()}


def missing_names(text: str) -> set[str]:
    return {f"{path}::{name}" for path, name in NAME.findall(text) if not is_defined(path, name)}


def is_defined(path: str, name: str) -> bool:
    file = ROOT / "zndraw_joblib" / path
    last = re.escape(name.rpartition(".")[2])
    if file.suffix == ".sql":
        pattern = rf"^-- name: (.*, )?{last}(,|$)"
    else:
        pattern = rf"^\s*(async def|def|class) {last}\b|^{last}\b"
    return file.exists() and bool(re.search(pattern, file.read_text(), re.MULTILINE))


def missing_links(page: Path, text: str) -> set[str]:
    return {link for link in LINK.findall(text) if not (page.parent / link).exists()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_and_name_in_a_page_exists(page):
    text = page.read_text()
    assert missing_paths(text) | missing_names(text) | missing_links(page, text) == set()


def limits_without_a_row(text: str) -> set[str]:
    limits = {name for name in JobLibSettings.model_fields if name.startswith("max_")}
    return {name for name in limits if f"`{name}`" not in text}


def test_the_architecture_names_the_place_of_each_limit():
    section = (ROOT / "docs/architecture.md").read_text().partition("## Where a limit is enforced")
    assert limits_without_a_row(section[2].partition("\n## ")[0]) == set()


def requests_without_a_row(text: str) -> set[str]:
    """The app's operations in the OpenAPI document that a page does not show as ``METHOD path``."""
    document = (ROOT / "docs/openapi.yml").read_text()
    operations, path = set(), ""
    for line in document.partition("\npaths:")[2].partition("\ncomponents:")[0].splitlines():
        if found := re.fullmatch(r"  (/\S+):", line):
            path = re.sub(r"\{\w+\}", "{}", found[1]).removeprefix("/v1/joblib/")
        # The address of tokens is the example project's.
        elif (
            found := re.fullmatch(r"    (get|put|post|patch|delete):", line)
        ) and "auth" not in path:
            operations.add(f"{found[1].upper()} {path}")
    assert len(operations) > 20
    shown = re.sub(r"\{\w+\}", "{}", text)
    return {
        operation
        for operation in operations
        if not re.search(rf"`{re.escape(operation)}[`?]", shown)
    }


def test_the_page_of_endpoints_shows_each_request():
    assert requests_without_a_row((ROOT / "docs/reference/endpoints.md").read_text()) == set()


def test_missing_files_and_names_are_noticed():
    """Control of the test above."""
    text = (
        "`tests/api/test_nothing.py`, `services/submit.py::nothing`, `services/no.py::submit`, "
        "`storage/sql/sqlite.sql::no_such_statement` and [a page](nowhere.md#there)"
    )
    assert missing_paths(text) == {"tests/api/test_nothing.py"}
    assert len(missing_names(text)) == 3
    assert missing_links(ROOT / "README.md", text) == {"nowhere.md"}


def test_a_run_of_the_benchmark_keeps_the_part_that_is_written_by_hand():
    kept = report.written_by_hand((ROOT / "docs" / "performance.md").read_text())
    assert "## Pieces kept for speed" in kept
    page = report.render([], {}, ["make bench"], quick=False, kept=kept)
    assert report.written_by_hand(page) == kept
