"""`JobManager.watch_room` over real sockets."""

from __future__ import annotations

import threading
import time
from itertools import islice

import httpx
import pytest

from tests.client.event_server import JOB, EventServer
from tests.client.stand_in import NOW, refusal, until
from tests.client.test_handles import later
from zndraw_joblib.client import (
    Api,
    ForbiddenError,
    JobEvent,
    JobManager,
    JobRetiredEvent,
    NotAuthenticatedError,
    ReadyEvent,
    ResetEvent,
    TaskEvent,
    WorkerEvent,
    WorkerLeftEvent,
    retry,
)


@pytest.fixture
def server():
    stand_in = EventServer()
    yield stand_in
    stand_in.close()


@pytest.fixture
def manager(server):
    with Api(server.url, "secret") as api:
        yield JobManager(api)


@pytest.fixture
def short_outages(monkeypatch):
    monkeypatch.setattr(retry, "backoff", lambda attempt: 0.01)


def statuses(events):
    return [(event.task.id, event.task.status.value) for event in events]


def test_the_events_of_a_room_come_by_type(server, manager):
    stream = manager.watch_room("r")
    first = next(stream)
    worker = {"id": "w", "last_heartbeat": NOW, "created_at": NOW, "job_count": 1, "running": 2}
    later(
        (server.change, "t1", "running"),
        (server.publish, {"type": "job", "job": JOB}),
        (server.publish, {"type": "weather"}),
        (server.publish, {"type": "job_retired", "job": {"full_name": "r:m:X"}}),
        (server.publish, {"type": "worker", "worker": worker}),
        (server.publish, {"type": "worker_left", "worker": {"id": "w"}}),
    )
    events = [first, *islice(stream, 5)]
    types = [ReadyEvent, TaskEvent, JobEvent, JobRetiredEvent, WorkerEvent, WorkerLeftEvent]
    assert [type(event) for event in events] == types
    _, task, job, retired, beat, left = events
    assert isinstance(task, TaskEvent)
    assert isinstance(job, JobEvent)
    assert isinstance(retired, JobRetiredEvent)
    assert isinstance(beat, WorkerEvent)
    assert isinstance(left, WorkerLeftEvent)
    assert (task.task.id, task.task.status, task.revision) == ("t1", "running", 2)
    assert job.job.model_dump() == JOB
    assert (retired.job.full_name, beat.worker.running, left.worker.id) == ("r:m:X", 2, "w")
    assert [event.cursor for event in events] == ["0", "1", "2", "4", "5", "6"]


def test_the_events_of_some_tasks_are_asked_for(server, manager):
    events = manager.watch_room("r", tasks=["t1", "t&2"])
    assert isinstance(next(events), ReadyEvent)
    server.change("t3", "running")
    server.change("t&2", "running")
    assert statuses([next(events)]) == [("t&2", "running")]
    assert server.streams[0][0] == {"task": ["t1", "t&2"]}
    events.close()


def test_a_room_is_watched_over_outages_without_a_gap(server, manager, short_outages):
    events = manager.watch_room("r")
    server.planned = ["live", httpx.Response(502), "broken", refusal("x", 500), "live"]
    assert isinstance(next(events), ReadyEvent)
    server.change("t1", "running")
    assert statuses([next(events)]) == [("t1", "running")]
    server.drop()
    server.change("t1", "completed")
    server.change("t2", "running")
    assert statuses(islice(events, 2)) == [("t1", "completed"), ("t2", "running")]
    assert [headers.get("Last-Event-ID") for _, headers in server.streams] == [None, *["1"] * 4]
    events.close()


def test_a_room_is_watched_from_a_cursor_on(server, manager):
    for status in ("running", "completed"):
        server.change("t1", status)
        server.change("t2", status)
    events = manager.watch_room("r", cursor="2")
    assert isinstance(next(events), ReadyEvent)
    assert statuses(islice(events, 2)) == [("t1", "completed"), ("t2", "completed")]
    events.close()


def test_a_cursor_that_the_server_does_not_know_is_a_reset(server, manager):
    (event,) = islice(manager.watch_room("r", cursor="99"), 1)
    assert isinstance(event, ResetEvent)


@pytest.mark.parametrize("cursor", ["ü", "a\nb", "a\r\nX-Other: 1"])
def test_a_text_that_is_no_cursor_is_refused_before_any_request(server, manager, cursor):
    with pytest.raises(ValueError, match="cursor"):
        manager.watch_room("r", cursor=cursor)
    assert server.streams == []


def test_a_server_under_wsgi_is_asked_again_after_the_time_that_it_says(server, manager):
    server.planned = ["once"]
    events = manager.watch_room("r")
    assert isinstance(next(events), ReadyEvent)
    later(*[(time.sleep, 0.1)] * 2, (server.change, "t1", "running"))
    assert statuses([next(events)]) == [("t1", "running")]
    # 50 ms after each other, during half a second.
    assert 3 <= len(server.streams) <= 14
    server.change("t2", "running")
    server.change("t3", "running")
    assert statuses(islice(events, 2)) == [("t2", "running"), ("t3", "running")]


@pytest.mark.parametrize(
    ("slug", "status", "error"),
    [("forbidden", 403, ForbiddenError), ("not-authenticated", 401, NotAuthenticatedError)],
)
def test_a_refusal_ends_the_watch_of_a_room(server, manager, slug, status, error):
    server.planned = [refusal(slug, status)]
    with pytest.raises(error):
        next(manager.watch_room("r"))
    assert len(server.streams) == 1


def test_credentials_are_renewed_for_another_connection(server):
    tokens = ["old", "new"]
    with Api(server.url, lambda: tokens.pop(0)) as api:
        server.planned = [refusal("not-authenticated", 401), "live"]
        assert isinstance(next(JobManager(api).watch_room("r")), ReadyEvent)
    sent = [headers["Authorization"] for _, headers in server.streams]
    assert sent == ["Token old", "Token new"]


def test_closing_the_watch_of_a_room_closes_its_connection(server, manager):
    events = manager.watch_room("r")
    next(events)
    threads = threading.active_count()
    assert server.open_streams == 1
    events.close()
    until(lambda: server.open_streams == 0, 5)
    assert threading.active_count() <= threads
