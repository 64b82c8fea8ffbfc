"""The test matrix: each Python by each Django that supports it, by both databases.

``nox`` runs those whose interpreter this machine has, ``nox --list`` names them all, and one is run
by its name: ``nox --session "tests(python='3.12', django='6.0', database='postgres')"``. Arguments
after ``--`` go to pytest.
"""

from __future__ import annotations

import nox

nox.needs_version = ">=2025.5"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "yes"

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)
#: Each Django with the first Python that it supports.
DJANGOS = {"5.2": (3, 10), "6.0": (3, 12)}
DATABASES = ["sqlite", "postgres"]

CELLS = [
    (python, django)
    for python in PYTHONS
    for django, first in DJANGOS.items()
    if tuple(map(int, python.split("."))) >= first
]


@nox.session
@nox.parametrize("database", DATABASES)
@nox.parametrize(("python", "django"), CELLS)
def tests(session: nox.Session, django: str, database: str) -> None:
    """The tests that need neither the package index nor a system package."""
    session.install(
        "-e",
        ".[progress,redis,postgres,server,wsgi,metrics,health,otel]",
        *nox.project.dependency_groups(PYPROJECT, "test", "docs"),
        f"Django~={django}.0",
    )
    marks = "not network and not browser and not deploy and not soak"
    if database != "sqlite":
        marks += " and not demo and not no_database"
    session.run("python", "tests/with_servers.py", database, "-m", marks, *session.posargs)
