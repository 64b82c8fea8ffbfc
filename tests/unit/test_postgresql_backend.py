"""The health check that costs no round trip."""

from __future__ import annotations

import pytest
from django.db import connection, connections
from django.db.backends.postgresql import base

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="it is PostgreSQL's"),
]


@pytest.fixture
def wrapper():
    from zndraw_joblib.postgresql.base import DatabaseWrapper

    settings = connections["default"].settings_dict
    options = {name: value for name, value in settings["OPTIONS"].items() if name != "pool"}
    changed = {"OPTIONS": options, "CONN_HEALTH_CHECKS": True, "CONN_MAX_AGE": None}
    made = DatabaseWrapper({**settings, **changed}, "other")
    made.connect()
    yield made
    made.close()


@pytest.fixture
def asked(monkeypatch):
    """How often the server was asked."""
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


def test_a_good_connection_is_not_asked(wrapper, asked):
    first = backend_of(wrapper)
    for _ in range(3):
        next_request(wrapper)
        assert backend_of(wrapper) == first
    assert not asked


def test_one_that_the_server_ended_is_made_anew(wrapper, asked):
    first = backend_of(wrapper)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [first])
    next_request(wrapper)
    assert backend_of(wrapper) != first
    assert asked == [1]


@pytest.fixture
def pooled():
    from zndraw_joblib.postgresql.base import DatabaseWrapper

    settings = connections["default"].settings_dict
    options = {**settings["OPTIONS"], "pool": {"min_size": 1, "max_size": 1, "timeout": 10}}
    changed = {"OPTIONS": options, "CONN_HEALTH_CHECKS": True, "CONN_MAX_AGE": 0}
    made = DatabaseWrapper({**settings, **changed}, "pooled")
    yield made
    made.close()
    made.close_pool()


def test_a_good_connection_of_a_pool_is_not_asked(pooled, monkeypatch):
    from psycopg import Connection

    first, sent, execute = backend_of(pooled), [], Connection.execute
    monkeypatch.setattr(
        Connection, "execute", lambda self, *args: sent.append(args) or execute(self, *args)
    )
    for _ in range(3):
        pooled.close()
        assert backend_of(pooled) == first
    assert not sent


def test_a_connection_of_a_pool_that_the_server_ended_is_made_anew(pooled):
    first = backend_of(pooled)
    pooled.close()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [first])
    assert backend_of(pooled) != first


def test_after_an_error_the_server_is_asked(wrapper, asked):
    from django.db import ProgrammingError

    first = backend_of(wrapper)
    with pytest.raises(ProgrammingError), wrapper.cursor() as cursor:
        cursor.execute("SELECT nonsense")
    next_request(wrapper)
    assert backend_of(wrapper) == first
    assert asked == [1]


def test_without_a_connection_it_is_not_usable(wrapper):
    wrapper.close()
    assert wrapper.is_usable() is False
