"""CI, nox and the package's classifiers agree on the versions of Python and Django."""

from __future__ import annotations

import tomllib
from itertools import product

import pytest
import yaml

from tests.servers import ROOT


def cells_of_ci() -> set[tuple[str, str, str]]:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    matrix = workflow["jobs"]["tests"]["strategy"]["matrix"]
    excluded = [(entry["python"], entry["django"]) for entry in matrix["exclude"]]
    return {
        cell
        for cell in product(matrix["python"], matrix["django"], matrix["database"])
        if cell[:2] not in excluded
    }


def test_ci_and_nox_run_the_same_cells():
    pytest.importorskip("nox", reason="sessions of nox have no nox installed")
    import noxfile

    cells = {(*cell, database) for cell in noxfile.CELLS for database in noxfile.DATABASES}
    assert cells_of_ci() == cells, "change .github/workflows/ci.yml or noxfile.py"


def test_the_classifiers_list_the_versions_of_the_matrix():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = {line.rpartition(" :: ")[2] for line in project["classifiers"]}
    cells = cells_of_ci()
    assert {python for python, _, _ in cells} | {django for _, django, _ in cells} == {
        version for version in versions if version.count(".") == 1
    }
