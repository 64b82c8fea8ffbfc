"""A fixed cast of users, and short ways to do what every test does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient

from example_project.accounts.models import User
from tests.factories import Person
from tests.servers import LOGS

UNIT = Path(__file__).parent / "unit"

# The short profile takes the same cases each time, the long one new ones.
_COMMON = hypothesis_settings(deadline=None, database=None, print_blob=True)
hypothesis_settings.register_profile(
    "ci", _COMMON, max_examples=50, stateful_step_count=30, derandomize=True
)
hypothesis_settings.register_profile("full", _COMMON, max_examples=500, stateful_step_count=50)
hypothesis_settings.load_profile("ci")


_DATABASE = {"db", "transactional_db", "django_db_setup"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test that uses no database, because one pass is enough for it.

    In tests/unit that is every test; another one there is an error.
    """
    for item in items:
        fixtures: set[str] = set(getattr(item, "fixturenames", ()))
        if item.get_closest_marker("django_db") is None and not fixtures & _DATABASE:
            item.add_marker("no_database")
        elif UNIT in item.path.parents:
            raise pytest.UsageError(
                f"{item.nodeid} uses the database: move it to tests/database or tests/api"
            )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Any:
    """Show what the processes that still run printed, when a test fails."""
    report = yield
    if report.failed:
        for pid, log in LOGS.items():
            report.sections.append((f"Output of process {pid}", log.read_text()[-10_000:]))
    return report


@pytest.fixture
def people(db: Any):
    """Makes a person by name; the same name is the same person."""
    known: dict[str, Person] = {}

    def make(name: str, **flags: Any) -> Person:
        if name not in known:
            user = User.objects.create_user(name, **flags)
            client = APIClient()
            token = Token.objects.create(user=user).key
            client.credentials(HTTP_AUTHORIZATION=f"Token {token}")
            known[name] = Person(user, token, client)
        return known[name]

    return make


@pytest.fixture
def alice(people) -> Person:
    """Submits."""
    return people("alice")


@pytest.fixture
def bob(people) -> Person:
    """Owns workers."""
    return people("bob")


@pytest.fixture
def carol(people) -> Person:
    """Owns other workers."""
    return people("carol")


@pytest.fixture
def root(people) -> Person:
    """Administers."""
    return people("root", is_superuser=True, is_staff=True)


@pytest.fixture
def settings_of(settings):
    """Sets keys of ZNDRAW_JOBLIB."""

    def change(**values: Any) -> None:
        settings.ZNDRAW_JOBLIB = {**settings.ZNDRAW_JOBLIB, **values}

    return change
