"""Throttles that count by windows."""

from __future__ import annotations

import pytest
from django.core.cache import cache
from rest_framework.throttling import ScopedRateThrottle

from tests.factories import problem
from zndraw_joblib.throttling import WindowRateThrottle

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def forget():
    cache.clear()
    yield
    cache.clear()


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand, in seconds."""
    now = [1_000_000.0]
    monkeypatch.setattr(WindowRateThrottle, "timer", lambda self: now[0])

    def at(seconds):
        now[0] = 1_000_000.0 + seconds

    return at


def rate(monkeypatch, value):
    monkeypatch.setitem(ScopedRateThrottle.THROTTLE_RATES, "joblib_submit", value)


def test_a_window_takes_so_many_and_the_next_one_as_many(bob, alice, clock, monkeypatch):
    rate(monkeypatch, "2/min")
    bob.register()
    clock(20)
    assert [bob.submit().status_code for _ in range(4)] == [202, 202, 429, 429]
    # 1,000,020 s is a whole number of minutes.
    clock(59)
    answer = bob.submit()
    problem(answer, "throttled", 429)
    assert answer["Retry-After"] == "21"
    # Everybody has a count of their own.
    assert alice.submit().status_code == 202
    clock(80)
    assert [bob.submit().status_code for _ in range(3)] == [202, 202, 429]


def test_each_request_costs_one_look(bob, clock, monkeypatch):
    rate(monkeypatch, "1000/s")
    bob.register()
    bob.submit()
    looks = []
    for name in ("get", "set", "add", "incr"):
        original = getattr(cache, name)
        monkeypatch.setattr(
            cache._connections[cache._alias],
            name,
            lambda *args, _original=original, _name=name, **kw: (
                looks.append(_name),
                _original(*args, **kw),
            )[1],
            raising=False,
        )
    bob.submit()
    assert looks == ["incr"]


def test_a_cache_that_is_away_refuses_nobody(bob, monkeypatch):
    rate(monkeypatch, "1/min")
    bob.register()
    monkeypatch.setattr(WindowRateThrottle, "_one_more", lambda self, key: None)
    assert [bob.submit().status_code for _ in range(3)] == [202] * 3


def test_a_scope_without_a_rate_is_not_counted(bob, monkeypatch):
    rate(monkeypatch, None)
    bob.register()
    assert [bob.submit().status_code for _ in range(3)] == [202] * 3
