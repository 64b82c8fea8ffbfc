"""Cancels that reach a busy worker at once, by heartbeats that wait."""

from __future__ import annotations

import threading
import time

import httpx
import pytest

from tests.client.stand_in import Rotate, refusal, task, until
from zndraw_joblib.client import JobManager, cancel_watches


@pytest.fixture
def manager(manager):
    """A manager whose usual heartbeats come too late for the tests."""
    return JobManager(manager.api, heartbeat_interval=100)


class Held:
    """The running tasks, which go on until they are released."""

    def __init__(self):
        self.release = threading.Event()
        self.tasks = {}

    def __call__(self, claimed):
        self.tasks[claimed.id] = claimed
        self.release.wait(20)


@pytest.fixture
def held():
    tasks = Held()
    yield tasks
    tasks.release.set()


@pytest.fixture
def busy(server, running, held):
    """A worker that runs the task `a`."""
    server.queue.append(task("a"))
    running(held, concurrency=2)
    until(lambda: "a" in held.tasks)
    return held


def listed(server):
    """The ids of the tasks of each heartbeat."""
    return [[one["id"] for one in c[2]["tasks"]] for c in server.sent("PATCH", "/workers")]


@pytest.mark.parametrize("how", ["cancelled", "lost"])
def test_a_task_that_is_taken_away_is_marked_at_once(server, manager, busy, caplog, how):
    until(lambda: listed(server) == [["a"]])
    assert not manager.should_stop(busy.tasks["a"])
    began = time.monotonic()
    server.take("a", how)
    until(lambda: manager.should_stop(busy.tasks["a"]))
    assert time.monotonic() - began < 0.5
    assert caplog.text.count("took these tasks away: a") == (how == "lost")


def test_a_task_that_is_claimed_during_a_watch_is_watched_too(server, manager):
    """By a request of its own, because a wait cannot be interrupted."""
    manager.register(Rotate)
    server.queue.append(task("a"))
    with manager:
        first = manager.claim()
        until(lambda: listed(server) == [["a"]])
        server.queue.append(task("b"))
        second = manager.claim()
        until(lambda: ["b"] in listed(server) or ["a", "b"] in listed(server))
        began = time.monotonic()
        server.take("b", "cancelled")
        until(lambda: manager.should_stop(second))
        assert time.monotonic() - began < 0.5
        assert not manager.should_stop(first)
        manager.abandon("a")
        manager.abandon("b")


def test_a_task_that_was_taken_away_is_not_watched_again(server, manager, busy, monkeypatch):
    """Control: the worker sends a request in each turn of the loop without `is_stopped`."""
    monkeypatch.setattr(cancel_watches, "LEAST_PAUSE", 0.0)
    until(lambda: listed(server))
    server.take("a", "cancelled")
    until(lambda: manager.should_stop(busy.tasks["a"]))
    sent = len(listed(server))
    time.sleep(0.5)
    assert len(listed(server)) == sent


def test_a_task_is_watched_again_after_a_wait_and_longer_each_time(server, busy):
    until(lambda: len(listed(server)) >= 2)
    assert listed(server)[:2] == [["a"], ["a"]]


def test_a_server_that_lets_no_heartbeat_wait_is_asked_once(server, running, held, monkeypatch):
    monkeypatch.setattr(cancel_watches, "LEAST_PAUSE", 0.0)
    server.honours_waits = False
    server.queue.append(task("a"))
    running(held)
    until(lambda: listed(server))
    time.sleep(0.5)
    assert listed(server) == [["a"]]


@pytest.mark.parametrize(
    "failure",
    [httpx.ConnectError("refused"), refusal("worker-not-found", 404), refusal("throttled", 429)],
)
def test_a_watch_that_fails_is_repeated_and_changes_nothing(
    server, manager, running, held, monkeypatch, caplog, failure
):
    monkeypatch.setattr(cancel_watches, "FAILED_PAUSE", 0.05)
    server.fail["PATCH /workers/w1"] = [failure]
    server.queue.append(task("a"))
    running(held)
    until(lambda: len(listed(server)) == 2)
    server.take("a", "cancelled")
    until(lambda: manager.should_stop(held.tasks["a"]))
    assert [one for one in caplog.records if one.levelname in {"WARNING", "ERROR"}] == []
    assert manager.worker_id == "w1"


def test_short_tasks_cost_no_watch(server, manager, running):
    server.queue += [task(str(number)) for number in range(50)]
    running(lambda claimed: None, concurrency=2)
    until(lambda: list(server.tasks.values()).count("completed") == 50)
    assert listed(server) == []


def test_a_worker_without_a_task_sends_no_watch(server, manager):
    manager.register(Rotate)
    with manager:
        time.sleep(0.4)
    assert listed(server) == []


def test_a_lease_too_short_for_a_wait_is_not_watched(server, running, held):
    server.lease = 2.0
    server.queue.append(task("a"))
    running(held)
    until(lambda: "a" in held.tasks)
    time.sleep(0.4)
    assert listed(server) == []
