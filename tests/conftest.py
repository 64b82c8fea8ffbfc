"""A fixed cast of users, and short ways to do what every test does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings as hypothesis_settings
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient

from example_project.accounts.models import User
from tests.factories import Person
from tests.servers import LOGS

_PROFILE = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "database": None,
    "print_blob": True,
}
# The short profile takes the same cases each time, the long one new ones.
hypothesis_settings.register_profile(
    "ci", max_examples=50, stateful_step_count=30, derandomize=True, **_PROFILE
)
hypothesis_settings.register_profile("full", max_examples=500, stateful_step_count=50, **_PROFILE)
hypothesis_settings.load_profile("ci")


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

    def make(name: str, **flags: bool) -> Person:
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
