"""Tasks that a worker starts ahead while tasks are short, and reports that share a request."""

from __future__ import annotations

import threading
import time

import pytest

from tests.client.stand_in import bodies, serve, task, until, use
from zndraw_joblib.client import reports, worker

SHORT = worker.SHORT_RUNS


@pytest.fixture
def patient(monkeypatch):
    """Runs of up to two seconds are short, and a request waits for them, on any machine."""
    monkeypatch.setattr(worker, "SHORT_SECONDS", 2.0)
    monkeypatch.setattr(reports, "GATHER_SECONDS", 5.0)


@pytest.fixture
def slow_api(server, manager):
    def slow(request):
        time.sleep(0.002)
        return server(request)

    use(manager, slow)


class Runs:
    """The code of tasks, which notes their ids; the task `long` waits for `go`."""

    def __init__(self):
        self.ids, self.began, self.go = [], threading.Event(), threading.Event()

    def __call__(self, claimed):
        self.ids.append(claimed.id)
        if claimed.id == "long":
            self.began.set()
            assert self.go.wait(10)


@pytest.fixture
def runs():
    return Runs()


def short_tasks(server, *last):
    """Queue as many tasks as make the next ones count as short, and then these."""
    server.queue += [task(f"short-{number}") for number in range(SHORT)]
    server.queue += [task(task_id) for task_id in last]


@pytest.mark.parametrize(("ahead", "most"), [(2, 60), (0, 200)])
def test_short_tasks_share_requests(server, manager, patient, slow_api, monkeypatch, ahead, most):
    """Control: without starts ahead a request has the tasks of the two threads only."""
    monkeypatch.setattr(worker, "STARTS_AHEAD", ahead)
    server.queue += [task(str(number)) for number in range(200)]
    serve(server, manager, 200, concurrency=2, prefetch=100)
    assert server.tasks == {str(number): "completed" for number in range(200)}
    sent = len(server.sent("PATCH", "/tasks"))
    assert sent <= most
    assert ahead or sent >= 100


def test_after_a_long_run_no_task_is_started_ahead(server, runs, patient, running, monkeypatch):
    short_tasks(server, "long", "b", "c", "d")

    def execute(claimed):
        runs(claimed)
        if claimed.id in {"long", "b", "c"}:
            time.sleep(0.1)

    running(execute, prefetch=50)
    assert runs.began.wait(10)
    until(lambda: server.tasks.get("c") == "running")
    assert "d" not in server.tasks
    monkeypatch.setattr(worker, "SHORT_SECONDS", 0.1)
    monkeypatch.setattr(reports, "GATHER_SECONDS", 0.0)
    runs.go.set()
    until(lambda: server.tasks.get("d") == "completed")
    # Started when c has ended, not with the end of the long task.
    (request,) = [
        {(one["id"], one["status"]) for one in c[2]}
        for c in server.sent("PATCH", "/tasks")
        if isinstance(c[2], list) and {"id": "d", "status": "running", "attempt": 1} in c[2]
    ]
    assert ("c", "completed") in request


def test_tasks_started_ahead_run_in_the_threads_that_are_free(
    server, runs, patient, running, monkeypatch
):
    """Control: b and c end after the long task if each thread keeps tasks of its own."""
    # The end of `long` would be waited for.
    monkeypatch.setattr(reports, "GATHER_SECONDS", 0.05)
    short_tasks(server, "long", "a", "b", "c")
    running(runs, concurrency=2, prefetch=50)
    until(lambda: all(server.tasks.get(one) == "completed" for one in "abc"))
    assert server.tasks["long"] == "running"
    runs.go.set()
    until(lambda: server.tasks["long"] == "completed")


def test_a_task_started_ahead_that_is_cancelled_is_not_run(server, manager, runs, patient, running):
    short_tasks(server, "long", "b", "c")
    running(runs, prefetch=50)
    assert runs.began.wait(10)
    until(lambda: server.tasks.get("b") == server.tasks.get("c") == "running")
    server.take("b", "cancelled")
    held = {one.id: one for one in manager._grants.held()}
    until(lambda: manager.should_stop(held["b"]))
    runs.go.set()
    until(lambda: server.tasks["c"] == "completed")
    assert runs.ids[-2:] == ["long", "c"]
    assert [one["status"] for one in bodies(server, "b")] == ["running"]
    until(lambda: not manager._grants.held())


def test_a_stop_finishes_the_tasks_that_were_started_ahead(server, manager, runs, patient, running):
    short_tasks(server, "long", *"bcd")
    thread = running(runs, prefetch=50)
    assert runs.began.wait(10)
    until(lambda: server.tasks.get("c") == "running")
    manager.stop()
    assert thread.is_alive()
    runs.go.set()
    thread.join(10)
    assert server.tasks["b"] == server.tasks["c"] == "completed"
    assert "d" not in server.tasks
    assert server.calls[-1][:2] == ("DELETE", "/workers/w1")


def test_a_task_started_ahead_that_its_worker_cancels_is_not_run(
    server, manager, runs, patient, running
):
    """Control: a task that is no longer held counts as not stopped."""
    short_tasks(server, "long", "b", "c")
    running(runs, prefetch=50)
    until(lambda: server.tasks.get("c") == "running")
    manager.cancel("b")
    runs.go.set()
    until(lambda: server.tasks["c"] == "completed")
    assert runs.ids[-2:] == ["long", "c"]
    assert server.tasks["b"] == "cancelled"
