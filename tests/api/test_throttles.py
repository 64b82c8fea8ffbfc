"""`WindowRateThrottle`: its rate over processes and threads, and its calls to the cache."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest
from cachetools import LRUCache
from django.core.cache import cache
from rest_framework.throttling import (
    AnonRateThrottle,
    BaseThrottle,
    ScopedRateThrottle,
    SimpleRateThrottle,
    UserRateThrottle,
)

from tests.factories import problem
from zndraw_joblib.api.base import JobLibView
from zndraw_joblib.api.urls import urlpatterns
from zndraw_joblib.contrib import throttling
from zndraw_joblib.contrib.throttling import WindowRateThrottle

pytestmark = [pytest.mark.django_db, pytest.mark.any_database]


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


def test_each_action_that_writes_has_a_scope_of_its_own():
    # A lookup reads by POST, because a list of ids may be longer than an address.
    reads = {"lookup"}
    views: list[Any] = [pattern.callback for pattern in urlpatterns]
    writes = {
        (view.cls, action)
        for view in views
        for method, action in getattr(view, "actions", {}).items()
        if method not in {"get", "head"} and action not in reads
    }
    assert len(writes) > 10
    without = {(view, action) for view, action in writes if action not in view.throttle_scopes}
    assert without == set()


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


class Never(BaseThrottle):
    """A throttle of the host's own, without a scope."""

    def allow_request(self, request, view):
        return False


class Burst(UserRateThrottle):
    scope = "burst"


class OwnWork(UserRateThrottle):
    """A throttle of the host's own that names a scope of this app."""

    scope = "joblib_work"


def once_a_day(monkeypatch, scope):
    monkeypatch.setattr(SimpleRateThrottle, "THROTTLE_RATES", {scope: "1/day"})


def works(person):
    """The statuses of a heartbeat, a start, a log write, a list of reports, a cancel, a removal."""
    worker = person.worker()
    person.register(worker_id=worker)
    tasks = [person.submit().json()["id"] for _ in range(3)]
    for _ in tasks:
        person.claim(worker)

    def statuses():
        report = {"id": tasks[1], "status": "running", "attempt": 1}
        line = {"attempt": 1, "text": "x"}
        return [
            person.send("patch", f"/workers/{worker}", {}).status_code,
            person.report(tasks[0], "running", attempt=1).status_code,
            person.send("post", f"/tasks/{tasks[0]}/log", line).status_code,
            person.send("patch", "/tasks", [report]).status_code,
            person.report(tasks[2], "cancelled").status_code,
            person.send("delete", f"/workers/{worker}").status_code,
        ]

    return statuses


@pytest.mark.parametrize(
    ("throttle", "scope"),
    [(UserRateThrottle, "user"), (AnonRateThrottle, "anon"), (Burst, "burst"), (Never, "none")],
)
def test_throttles_without_our_scope_do_not_limit_heartbeats_and_reports(
    bob, monkeypatch, throttle, scope
):
    """Control: 429 when `get_throttles` returns all throttles."""
    statuses = works(bob)
    once_a_day(monkeypatch, scope)
    monkeypatch.setattr(JobLibView, "throttle_classes", [throttle])
    limited = throttle is not AnonRateThrottle
    bob.get("/workers")
    assert bob.get("/workers").status_code == (429 if limited else 200)
    assert bob.submit().status_code == (429 if limited else 202)
    assert bob.send("post", "/tasks/claim", {}).status_code == (429 if limited else 200)
    assert statuses() == [200, 200, 204, 200, 200, 204]


def test_heartbeats_are_not_counted_by_throttles_without_our_scope(bob, monkeypatch):
    worker = bob.worker()
    once_a_day(monkeypatch, "user")
    monkeypatch.setattr(JobLibView, "throttle_classes", [UserRateThrottle])
    for _ in range(3):
        assert bob.send("patch", f"/workers/{worker}", {}).status_code == 200
    assert bob.get("/workers").status_code == 200
    assert bob.get("/workers").status_code == 429


@pytest.mark.parametrize("throttle", [ScopedRateThrottle, WindowRateThrottle, OwnWork])
def test_a_rate_of_our_scope_limits_heartbeats_and_reports_too(bob, monkeypatch, throttle):
    statuses = works(bob)
    once_a_day(monkeypatch, "joblib_work")
    monkeypatch.setattr(JobLibView, "throttle_classes", [throttle])
    first, *others = statuses()
    assert (first, set(others)) == (200, {429})


def test_a_process_keeps_counts_apart_by_the_key_function(bob, clock, monkeypatch):
    """A site's KEY_FUNCTION names the tenant, whose first users all have the same key."""
    rate(monkeypatch, "200/min")
    bob.register()
    clock(20)
    backend: Any = cast("Any", cache)._connections["default"]
    for tenant in ("a", "b"):
        monkeypatch.setattr(backend, "key_func", lambda key, *_, tenant=tenant: f"{tenant}:{key}")
        assert bob.submit().status_code == 202
    # Each tenant took a share of two requests from its own count, and has one left.
    left = [left for name, left in throttling._left.items() if "joblib_submit" in name]
    assert left == [1, 1]
