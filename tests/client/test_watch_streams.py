"""`TaskHandle.watch` by streams of events, over real sockets, and without them."""

from __future__ import annotations

import os
import signal
import threading
import time

import httpx
import pytest

from tests.client.event_server import EventServer, message
from tests.client.stand_in import Rotate, refusal, until
from tests.client.test_handles import later, seen
from zndraw_joblib.client import Api, JobManager, TaskNotFoundError, TaskWaitTimeout, task_events
from zndraw_joblib.client.task_events import stream_support


@pytest.fixture
def server():
    stand_in = EventServer()
    yield stand_in
    stand_in.close()


@pytest.fixture
def api(server):
    with Api(server.url, "secret") as opened:
        yield opened


@pytest.fixture
def handle(api):
    return JobManager(api).send(Rotate(angle=3), room="r")


@pytest.fixture
def quick(monkeypatch):
    """Short times until a stream counts as silent."""
    monkeypatch.setattr(task_events, "UNPROVEN_SECONDS", 0.3)
    monkeypatch.setattr(task_events, "SILENCE_SECONDS", 1.5)
    monkeypatch.setattr(task_events, "LEAST_SECONDS", 0.1)


CHANGES = [("pending", None), ("running", None), ("running", 0.5), ("completed", 0.5)]


def run(server):
    """Take the task to its end."""
    later(
        (server.change, "t1", "running"),
        (lambda: server.change("t1", progress=0.5),),
        (server.change, "t1", "completed"),
    )


def last_event_ids(server):
    return [headers.get("Last-Event-ID") for _, headers in server.streams]


# -- with streams


def test_watch_yields_the_changes_of_a_stream(server, handle):
    run(server)
    changes = list(handle.watch(timeout=20))
    assert seen(changes) == CHANGES
    assert [task.payload for task in changes] == [{"angle": 1}] * 4
    assert [task.result for task in changes] == [None, None, None, "t1"]
    ((query, headers),) = server.streams
    assert query == {"task": ["t1"]}
    assert headers["Accept"] == "text/event-stream"
    assert headers["Authorization"] == "Token secret"
    # Read at first, when the stream began, and for the result.
    assert server.reads == ["/tasks/t1"] * 3


def test_a_change_between_the_read_and_the_stream_is_seen(server, handle):
    """Control: without the read after the stream began, the end is seen 17 s later."""
    server.before_stream = [lambda: server.change("t1", "completed")]
    began = time.monotonic()
    assert seen(handle.watch(timeout=20)) == [("pending", None), ("completed", None)]
    assert time.monotonic() - began < 5


def test_an_ended_task_needs_no_stream(server, handle):
    server.change("t1", "completed")
    assert seen(handle.watch()) == [("completed", None)]
    assert server.streams == []


def test_an_event_that_is_older_than_the_task_is_no_change(server, handle):
    """Control: without the revision the task goes back to claimed."""
    server.change("t1", "running")
    changes = handle.watch(timeout=20)
    assert next(changes).status == "running"
    stale = {"type": "task", "revision": 1, "task": {**server.state("t1"), "status": "claimed"}}
    later((server.publish, stale), (server.change, "t1", "completed"))
    assert [task.status for task in changes] == ["completed"]


def test_a_place_in_the_queue_is_no_change_in_a_stream(server, handle):
    server.change("t1", queue_position=7)
    changes = handle.watch(timeout=20)
    assert next(changes).queue_position == 7
    moved = {"type": "task", "revision": 2, "task": {**server.state("t1"), "queue_position": 6}}
    later((server.publish, moved), (server.change, "t1", "running"))
    assert next(changes).status == "running"
    changes.close()


def test_a_change_that_is_no_field_is_seen_by_its_revision(server, handle):
    later((server.change, "t1"), (server.change, "t1", "completed"))
    assert [task.status for task in handle.watch(20)] == ["pending", "pending", "completed"]


def test_events_of_other_tasks_and_of_unknown_types_are_ignored(server, handle):
    other = {"type": "task", "revision": 9, "task": {**server.state("t2"), "status": "failed"}}
    later(
        (server.publish, other),
        (server.publish, {"type": "weather", "sky": "grey"}),
        (server.change, "t1", "completed"),
    )
    assert seen(handle.watch(timeout=20)) == [("pending", None), ("completed", None)]


def test_a_stream_goes_on_where_it_was_after_the_server_restarted(server, handle):
    """The change before the second connection is seen by its cursor."""
    changes = handle.watch(timeout=30)
    assert next(changes).status == "pending"
    later((server.change, "t1", "running"))
    assert next(changes).status == "running"
    server.before_stream = [lambda: server.change("t1", "completed")]
    later((time.sleep, task_events.EARLY_SECONDS), (server.drop,))
    assert seen(changes) == [("completed", None)]
    assert last_event_ids(server) == [None, "1"]


def test_a_stream_whose_connection_breaks_is_opened_again(server, handle, monkeypatch):
    monkeypatch.setattr(task_events, "EARLY_SECONDS", 0.0)
    server.planned = ["broken", "live"]
    run(server)
    assert seen(handle.watch(timeout=20)) == CHANGES
    assert last_event_ids(server) == [None, "0"]


def test_a_reset_reads_the_task(server, handle):
    changes = handle.watch(timeout=20)
    assert next(changes).status == "pending"

    def change_unseen():
        with server.changed:
            server.tasks["t1"] = "running"
            server.revisions["t1"] = 5

    later((change_unseen,), (server.publish, {"type": "reset"}))
    assert next(changes).status == "running"
    changes.close()


def test_a_task_that_was_deleted_ends_the_watch(server, handle, monkeypatch):
    monkeypatch.setattr(task_events, "LONGEST_SECONDS", 0.3)
    changes = handle.watch(timeout=20)
    assert next(changes).status == "pending"
    later((server.hidden.add, "t1"))
    began = time.monotonic()
    with pytest.raises(TaskNotFoundError):
        list(changes)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("timeout", [0.2, 1.3, 3.0])
def test_a_watch_by_streams_ends_at_its_timeout(server, handle, timeout):
    """Also while comments and events keep coming."""
    keeps_changing = threading.Event()

    def keep_changing():
        while not keeps_changing.wait(0.2):
            server.change("t1", message=str(time.monotonic()))

    threading.Thread(target=keep_changing, daemon=True).start()
    began = time.monotonic()
    with pytest.raises(TaskWaitTimeout):
        list(handle.watch(timeout=timeout))
    keeps_changing.set()
    assert timeout <= time.monotonic() - began < timeout + 0.4


def test_closing_a_watch_closes_its_connection(server, handle):
    changes = handle.watch()
    next(changes)
    later((server.change, "t1", "running"))
    next(changes)
    threads = threading.active_count()
    assert server.open_streams == 1
    changes.close()
    until(lambda: server.open_streams == 0, 5)
    assert threading.active_count() <= threads


def test_an_interrupt_ends_a_watch_at_once(server, handle):
    changes = handle.watch()
    next(changes)
    threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT]).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        next(changes)
    assert time.monotonic() - began < 2
    until(lambda: server.open_streams == 0, 5)


def test_handles_that_are_watched_at_once_leave_connections_to_others(server, api):
    """Each has a stream of its own, up to half of the connections; the others wait without one."""
    support = stream_support(api)
    support._free = threading.BoundedSemaphore(3)
    manager = JobManager(api)
    found = {}

    def watch(number):
        found[number] = seen(manager.handle(f"h{number}").watch(timeout=30))

    threads = [threading.Thread(target=watch, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    until(lambda: server.open_streams == 3)
    until(lambda: sum("prefer" in headers for headers in server.headers) == 7)
    for number in range(10):
        server.change(f"h{number}", "completed")
    for thread in threads:
        thread.join(20)
    assert found == {n: [("pending", None), ("completed", None)] for n in range(10)}
    assert len(server.streams) == 3


# -- without streams

NO_STREAMS = {
    "an older server": refusal("not-found", 404),
    "another method": refusal("method-not-allowed", 405),
    "another type": refusal("not-acceptable", 406),
    "a proxy": httpx.Response(404, html="<p>no</p>"),
    "a page": httpx.Response(200, html="<p>yes</p>"),
    "JSON": httpx.Response(200, json={"type": "ready", "cursor": "0"}),
    "a redirect": httpx.Response(302, headers={"Location": "/"}),
    "an empty stream": b"",
    "a stream of something else": b"data: 5\n\n",
    "no JSON": b"data: {\n\n",
    "no UTF-8": b"data: \xff\n\n",
    "no beginning": message({"type": "job_retired", "job": {"full_name": "a"}}, 1),
    "a message without an end": b"data: " + b"x" * 2_000_000,
    "WSGI": "once",
}


def assert_another_is_watched(server, api):
    """Watch a second task to its end by the same `Api`, which remembers the server's way."""
    later((server.change, "t2", "completed"))
    watched = JobManager(api).handle("t2").watch(timeout=20)
    assert seen(watched) == [("pending", None), ("completed", None)]


@pytest.mark.parametrize("way", NO_STREAMS.values(), ids=NO_STREAMS)
def test_watch_waits_by_requests_where_there_is_no_stream(server, api, handle, way):
    server.planned = [way]
    run(server)
    assert seen(handle.watch(timeout=20)) == CHANGES
    assert len(server.streams) == 1
    # Remembered for the server.
    assert_another_is_watched(server, api)
    assert len(server.streams) == 1
    assert server.headers[-1]["prefer"].startswith("wait=")


REFUSED = {
    "a room that is hidden": refusal("task-not-found", 404),
    "forbidden": refusal("forbidden", 403),
    "throttled": refusal("throttled", 429, **{"Retry-After": "1"}),
    "an outage": refusal("internal-server-error", 500),
    "a proxy whose server is away": httpx.Response(502, html="<p>away</p>"),
}


@pytest.mark.parametrize("way", REFUSED.values(), ids=REFUSED)
def test_a_refusal_that_may_be_this_rooms_alone_is_not_remembered_for_the_server(
    server, api, handle, way
):
    server.planned = [way, "live"]
    run(server)
    assert seen(handle.watch(timeout=20)) == CHANGES
    assert len(server.streams) == 1
    assert_another_is_watched(server, api)
    assert len(server.streams) == 2


@pytest.mark.parametrize("way", ["silent", "comments", "buffered"])
def test_a_proxy_that_keeps_a_stream_back_is_found_out(server, handle, quick, way):
    server.planned = [way]
    changes = handle.watch(timeout=20)
    assert next(changes).status == "pending"
    later((server.change, "t1", "running"))
    began = time.monotonic()
    assert next(changes).status == "running"
    assert time.monotonic() - began < 2
    later((server.change, "t1", "completed"))
    assert seen(changes)[-1] == ("completed", None)
    assert len(server.streams) == 1


def test_a_quiet_stream_is_opened_again(server, handle, quick):
    """Silence alone is no sign of a proxy, because a task may not change for long."""
    server.planned = ["quiet", "live"]
    changes = handle.watch(timeout=20)
    assert next(changes).status == "pending"
    later(*[(time.sleep, 0.1)] * 4, (server.change, "t1", "completed"))
    assert seen(changes) == [("completed", None)]
    assert last_event_ids(server) == [None, "0"]


def test_a_watch_is_interrupted_by_no_failure_of_streams(server, handle, quick, monkeypatch):
    """Every way in turn, each of which ends; no change is missed, and the last one comes."""
    monkeypatch.setattr(task_events, "FORGET_SECONDS", 0.0)
    monkeypatch.setattr(task_events, "POSTPONE_SECONDS", 0.0)
    server.planned = [*NO_STREAMS.values(), *REFUSED.values(), "silent", "buffered", "live"]
    changes = handle.watch(timeout=30)
    assert next(changes).status == "pending"
    later((server.change, "t1", "running"))
    assert next(changes).status == "running"
    later((server.change, "t1", "completed"))
    assert seen(changes)[-1] == ("completed", None)
