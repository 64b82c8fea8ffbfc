"""Fixtures that all tests share: a fixed cast of users, and settings."""

from __future__ import annotations

import gc
import inspect
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import SyncToAsync
from django.db import connection, connections
from hypothesis import settings as hypothesis_settings
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient

from example_project.accounts.models import User
from tests.clearing import clear_quickly
from tests.factories import Person
from tests.servers import LOGS

UNIT = Path(__file__).parent / "unit"

# The short profile runs the same cases each time, the long one random cases.
_COMMON = hypothesis_settings(deadline=None, database=None, print_blob=True)
hypothesis_settings.register_profile(
    "ci", _COMMON, max_examples=20, stateful_step_count=30, derandomize=True
)
hypothesis_settings.register_profile("full", _COMMON, max_examples=500, stateful_step_count=50)
hypothesis_settings.load_profile("ci")


_DATABASE = {"db", "transactional_db", "django_db_setup"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test that uses no database, because it need not run on both databases.

    A test in tests/unit that uses a database is an error.
    """
    for item in items:
        fixtures: set[str] = set(getattr(item, "fixturenames", ()))
        if item.get_closest_marker("django_db") is None and not fixtures & _DATABASE:
            item.add_marker("no_database")
        elif UNIT in item.path.parents:
            raise pytest.UsageError(
                f"{item.nodeid} uses the database: move it to tests/database or tests/api"
            )


def pytest_collection_finish() -> None:
    """Keep the garbage collector from looking at all that was imported again and again."""
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Any:
    """Add the output of processes that still run to the report of a failed test."""
    report = yield
    if report.failed:
        for pid, log in LOGS.items():
            report.sections.append((f"Output of process {pid}", log.read_text()[-10_000:]))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Any:
    """Close the connections of the thread that runs the queries of coroutines.

    It serves all tests of a process, and would keep a connection of the pool for the rest of them.
    """
    try:
        return (yield)
    finally:
        if inspect.iscoroutinefunction(getattr(item, "obj", None)):
            SyncToAsync.single_thread_executor.submit(connections.close_all).result()


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: Any, django_db_blocker: Any):
    """Ends sessions that are left before the test database is dropped.

    A thread of a request that a test cancelled may end after its test and keep its connection.
    """
    with django_db_blocker.unblock():
        clear_quickly("default")
    yield
    if connection.vendor == "postgresql":
        with django_db_blocker.unblock(), connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )


@pytest.fixture
def people(db: Any):
    """A function that returns the person of a name, created at the first call."""
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
    """A user who submits tasks."""
    return people("alice")


@pytest.fixture
def bob(people) -> Person:
    """A user who owns workers."""
    return people("bob")


@pytest.fixture
def carol(people) -> Person:
    """Another user who owns workers."""
    return people("carol")


@pytest.fixture
def root(people) -> Person:
    """A superuser."""
    return people("root", is_superuser=True, is_staff=True)


@pytest.fixture
def settings_of(settings):
    """A function that sets keys of the setting ZNDRAW_JOBLIB."""

    def change(**values: Any) -> None:
        settings.ZNDRAW_JOBLIB = {**settings.ZNDRAW_JOBLIB, **values}

    return change
