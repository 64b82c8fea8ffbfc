"""Heartbeats that are late or refused, and the explanation of the tasks that are lost by it."""

from __future__ import annotations

import ctypes
import time

import httpx
import pytest

from tests.client.stand_in import Rotate, bodies, refusal, serve, task, until
from zndraw_joblib.client import JobManager, retry

GIL = "an extension module held the GIL"
REMEDY = "Run such work in a subprocess, or raise worker_timeout_seconds"


@pytest.fixture(autouse=True)
def short_lease(server):
    server.lease = 0.3


def hold_the_gil(seconds=0.7):
    """Sleep as an extension module does that does not release the GIL."""
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


def test_a_task_that_was_lost_because_the_gil_was_held_is_logged_with_the_remedy(
    server, running, caplog
):
    """Control: the text names no cause when `Pulse.sleeps` does not note the time."""
    server.queue.append(task("a"))
    server.refused["a"] = "lease-lost"
    running(lambda claimed: hold_the_gil())
    until(lambda: "task a was lost" in caplog.text)
    (record,) = [one for one in caplog.records if "task a was lost" in one.message]
    assert record.levelname == "ERROR"
    assert GIL in record.message
    assert REMEDY in record.message
    assert "longer than the lease of 0.3 s" in record.message
    late = [one.message for one in caplog.records if one.message.startswith("No heartbeat")]
    assert len(late) == 1
    assert late[0].endswith("may have taken away: a.")


@pytest.mark.parametrize("fails", [False, True])
def test_the_report_of_a_task_whose_heartbeats_were_late_says_so(server, running, fails):
    server.queue += [task("a"), task("b")]

    def execute(claimed):
        if claimed.id == "a":
            hold_the_gil()
        if fails:
            raise ValueError("x" * 20_000)

    running(execute)
    until(lambda: set(server.tasks) == {"a", "b"} and "running" not in server.tasks.values())
    report = bodies(server, "a")[-1]
    assert report["status"] == ("failed" if fails else "completed")
    assert GIL in report["error"]
    assert report["error"].endswith("of the server.")
    assert len(report["error"]) <= 8192
    assert report["error"].startswith("ValueError: xxx" if fails else "No heartbeat")
    # The next task's heartbeats were in time.
    assert GIL not in bodies(server, "b")[-1].get("error", "")


def test_heartbeats_that_the_server_does_not_take_are_named_as_the_cause(
    server, running, caplog, monkeypatch
):
    monkeypatch.setattr(retry, "backoff", lambda attempt: 0.02)
    heartbeats = server.fail["PATCH /workers/w1"] = [httpx.ConnectError("refused")] * 10_000
    server.queue.append(task("a"))
    server.refused["a"] = "invalid-task-transition"
    running(lambda claimed: time.sleep(0.5))
    until(lambda: "task a was lost" in caplog.text)
    (text,) = [one.message for one in caplog.records if "task a was lost" in one.message]
    assert "the server did not take them (refused)" in text
    assert GIL not in text
    heartbeats.clear()


def test_heartbeats_that_are_due_after_the_lease_only_are_named_as_the_cause(
    server, manager, caplog
):
    manager = JobManager(manager.api, heartbeat_interval=5)
    server.queue.append(task("a"))
    server.refused["a"] = "lease-lost"

    def execute(claimed):
        time.sleep(0.5)
        manager.stop()

    manager.register(Rotate)
    manager.serve(execute)
    (text,) = [one.message for one in caplog.records if "task a was lost" in one.message]
    assert "they are sent every 5 s only. Lower heartbeat_interval of the JobManager" in text


def test_heartbeats_in_time_explain_nothing(server, running, caplog):
    server.queue.append(task("a"))
    server.refused["a"] = "lease-lost"
    running(lambda claimed: time.sleep(0.5))
    until(lambda: "task a attempt 1 was dropped" in caplog.text or not server.queue)
    until(lambda: bodies(server, "a") or server.sent("PATCH", "/tasks"))
    time.sleep(0.05)
    assert "was lost" not in caplog.text
    assert "No heartbeat" not in caplog.text


def throttled(seconds):
    return refusal("throttled", 429, **{"Retry-After": str(seconds)})


def test_a_throttled_heartbeat_is_sent_again_after_the_seconds_of_retry_after(
    server, manager, caplog
):
    server.lease = 60
    manager.register(Rotate)
    server.fail["PATCH /workers/w1"] = [throttled(1)]
    with manager:
        until(lambda: len(server.sent("PATCH", "/workers")) == 1)
        began = time.monotonic()
        until(lambda: len(server.sent("PATCH", "/workers")) == 2)
        assert time.monotonic() - began > 0.9
    assert "accepts no heartbeat" not in caplog.text


def test_a_heartbeat_that_may_come_after_the_leases_end_only_is_logged_as_an_error(
    server, manager, caplog
):
    """Control: the manager waits an hour when the thread's request is repeated by `send`."""
    manager.register(Rotate)
    server.fail["PATCH /workers/w1"] = [throttled(3600)]
    with manager:
        until(lambda: "accepts no heartbeat for 3600 s" in caplog.text)
        began = time.monotonic()
    assert time.monotonic() - began < 5
    (record,) = [one for one in caplog.records if "accepts no heartbeat" in one.message]
    assert record.levelname == "ERROR"
    assert "joblib_work" in record.message


def test_a_manager_without_a_worker_misses_no_heartbeat(server, manager, caplog):
    with manager:
        time.sleep(0.5)
    assert "No heartbeat" not in caplog.text


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_heartbeat_beside_the_report_of_an_end_takes_no_task_away(
    server, manager, caplog, prefetch
):
    """The server calls an ended task lost, and the worker may not have the answer to its report."""
    answer = server.patch

    def patch(path, body, request):
        response = answer(path, body, request)
        if path.startswith("/tasks") and server.tasks.get("a") == "completed":
            server.take("a", "lost")
            manager.heartbeat()
        return response

    server.patch = patch
    server.queue.append(task("a"))
    serve(server, manager, 1, prefetch=prefetch)
    assert server.taken == {"a": "lost"}
    assert "took these tasks away" not in caplog.text
