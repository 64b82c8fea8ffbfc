"""`WindowRateThrottle`: its rate over processes and threads, and its calls to the cache."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest
from cachetools import LRUCache
from django.core.cache import cache
from rest_framework.throttling import ScopedRateThrottle

from tests.factories import problem
from zndraw_joblib.contrib import throttling
from zndraw_joblib.contrib.throttling import WindowRateThrottle

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def clear_counts():
    cache.clear()
    throttling._left.clear()
    yield
    cache.clear()
    throttling._left.clear()


@pytest.fixture
def clock(monkeypatch):
    """Sets the throttle's clock to a number of seconds after a fixed time."""
    now = [1_000_000.0]
    monkeypatch.setattr(WindowRateThrottle, "timer", lambda self: now[0])

    def at(seconds):
        now[0] = 1_000_000.0 + seconds

    return at


def rate(monkeypatch, value):
    monkeypatch.setitem(ScopedRateThrottle.THROTTLE_RATES, "joblib_submit", value)


def test_each_window_allows_the_rate_and_no_more(bob, alice, clock, monkeypatch):
    rate(monkeypatch, "2/min")
    bob.register()
    clock(20)
    assert [bob.submit().status_code for _ in range(4)] == [202, 202, 429, 429]
    # The window began at 1,000,020 s, a whole number of minutes, and ends in 21 s.
    clock(59)
    answer = bob.submit()
    problem(answer, "throttled", 429)
    assert answer["Retry-After"] == "21"
    # The rate applies to each caller.
    assert alice.submit().status_code == 202
    clock(80)
    assert [bob.submit().status_code for _ in range(3)] == [202, 202, 429]


@pytest.fixture
def calls(monkeypatch):
    """The names of the calls to the cache."""
    names: list[str] = []
    backend = cast("Any", cache)
    for name in ("get", "set", "add", "incr"):
        original = getattr(cache, name)

        def counted(*args, _original=original, _name=name, **kwargs):
            names.append(_name)
            return _original(*args, **kwargs)

        monkeypatch.setattr(backend._connections[backend._alias], name, counted, raising=False)
    return names


def test_a_request_of_a_low_rate_costs_one_call_to_the_cache(bob, clock, monkeypatch, calls):
    rate(monkeypatch, "20/s")
    bob.register()
    bob.submit()
    calls.clear()
    bob.submit()
    assert calls == ["incr"]


def test_requests_of_a_high_rate_share_a_call_to_the_cache(bob, clock, monkeypatch, calls):
    rate(monkeypatch, "300/s")
    bob.register()
    calls.clear()
    for _ in range(6):
        bob.submit()
    assert calls == ["incr", "add", "incr"]


class OneCaller(WindowRateThrottle):
    """A throttle whose requests all come from one caller."""

    def get_cache_key(self, request, view):
        return "caller"


class View:
    throttle_scope = "joblib_submit"


def allowed():
    return OneCaller().allow_request(None, View())


def test_all_processes_together_allow_the_rate_and_no_more(clock, monkeypatch):
    rate(monkeypatch, "1050/min")
    processes = [LRUCache(100), LRUCache(100), LRUCache(100)]
    count = 0
    for number in range(2000):
        monkeypatch.setattr(throttling, "_left", processes[number % 7 % 3])
        count += allowed()
    # 104 reservations of ten requests, and one of the last ten.
    assert count == 1050
    clock(60)
    assert allowed()


def test_a_process_leaves_at_most_a_hundredth_of_the_rate_unused(clock, monkeypatch):
    rate(monkeypatch, "1000/min")
    monkeypatch.setattr(throttling, "_left", LRUCache(100))
    assert allowed()
    monkeypatch.setattr(throttling, "_left", LRUCache(100))
    assert sum(allowed() for _ in range(1500)) == 990


def test_all_threads_together_allow_the_rate_and_no_more(clock, monkeypatch):
    rate(monkeypatch, "500/min")
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: allowed(), range(1000))) == 500


def test_every_request_is_allowed_while_the_cache_is_unreachable(bob, monkeypatch):
    rate(monkeypatch, "1/min")
    bob.register()
    monkeypatch.setattr(WindowRateThrottle, "_add", lambda self, name, share: None)
    assert [bob.submit().status_code for _ in range(3)] == [202] * 3


def test_a_scope_without_a_rate_is_not_counted(bob, monkeypatch):
    rate(monkeypatch, None)
    bob.register()
    assert [bob.submit().status_code for _ in range(3)] == [202] * 3
