"""The health check of persistent connections that costs no round trip."""

from __future__ import annotations

import pytest
from django.db import connection, connections
from django.db.backends.postgresql import base

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="PostgreSQL only"),
]


@pytest.fixture
def wrapper():
    from zndraw_joblib.contrib.postgresql.base import DatabaseWrapper

    settings = connections["default"].settings_dict
    options = {name: value for name, value in settings["OPTIONS"].items() if name != "pool"}
    changed = {"OPTIONS": options, "CONN_HEALTH_CHECKS": True, "CONN_MAX_AGE": None}
    made = DatabaseWrapper({**settings, **changed}, "other")
    made.connect()
    yield made
    made.close()


@pytest.fixture
def asked(monkeypatch):
    """An entry for each health check that queried the server."""
    calls = []
    original = base.DatabaseWrapper.is_usable

    def is_usable(self):
        calls.append(1)
        return original(self)

    monkeypatch.setattr(base.DatabaseWrapper, "is_usable", is_usable)
    return calls


def backend_of(wrapper):
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]


def next_request(wrapper):
    wrapper.close_if_unusable_or_obsolete()


def test_a_usable_connection_is_checked_without_a_query(wrapper, asked):
    first = backend_of(wrapper)
    for _ in range(3):
        next_request(wrapper)
        assert backend_of(wrapper) == first
    assert not asked


def test_a_connection_that_the_server_ended_is_replaced(wrapper, asked):
    first = backend_of(wrapper)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [first])
    next_request(wrapper)
    assert backend_of(wrapper) != first
    assert asked == [1]
