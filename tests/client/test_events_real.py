"""The events of a room by the SDK, against server processes."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from contextlib import ExitStack

import httpx
import pytest

from tests import servers
from tests.client.test_handles_real import HERE, Locate, Worker
from tests.client.test_real import CountingTransport
from tests.servers import ROOT, process, server, until
from zndraw_joblib.client import (
    Api,
    ApiError,
    JobEvent,
    JobManager,
    JobRetiredEvent,
    ReadyEvent,
    ResetEvent,
    TaskEvent,
    WorkerEvent,
    WorkerLeftEvent,
)
from zndraw_joblib.client.task_events import stream_support
from zndraw_joblib.models import Task

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def open_api():
    """A function that opens an `Api`, which is closed at the end."""
    with ExitStack() as opened:
        yield lambda url, person, **options: opened.enter_context(Api(url, person.token, **options))


@pytest.fixture(scope="module", params=["uvicorn", "granian"])
def url(request, django_db_setup, django_db_blocker):
    """One server for all tests, because its start takes longer than a test."""
    with django_db_blocker.unblock(), server(request.param) as address:
        yield address


def await_state(events, handle, status, progress=None):
    """Read events until one has this state. An earlier state may come again at the beginning."""
    state = (handle.id, status, progress)
    return next(
        event
        for event in events
        if isinstance(event, TaskEvent)
        and (event.task.id, event.task.status, event.task.progress) == state
    )


def test_the_events_of_a_room(url, bob, root, open_api):
    """Its tasks and jobs, and for administrators its workers."""
    events, seen_by_root = (
        JobManager(open_api(url, person)).watch_room("open") for person in (bob, root)
    )
    assert isinstance(next(events), ReadyEvent)
    assert isinstance(next(seen_by_root), ReadyEvent)
    worker = Worker(open_api(url, bob))
    name = "open:analysis:Locate"
    registered = next(event for event in events if isinstance(event, JobEvent))
    assert (registered.job.full_name, registered.job.worker_count) == (name, 1)
    handle = worker.manager.send(Locate(x=1), **HERE)
    await_state(events, handle, "pending")
    (task,) = worker.claim()
    await_state(events, handle, "running")
    worker.report(task, "running", progress=0.5)
    await_state(events, handle, "running", 0.5)
    worker.report(task, "completed", result={"x": 1})
    await_state(events, handle, "completed", 0.5)
    worker.manager.retire_job(name)
    retired = next(event for event in events if isinstance(event, JobRetiredEvent))
    assert retired.job.full_name == name
    beat = next(event for event in seen_by_root if isinstance(event, WorkerEvent))
    assert beat.worker.id == worker.manager.worker_id
    worker.manager.disconnect()
    left = next(event for event in seen_by_root if isinstance(event, WorkerLeftEvent))
    assert left.worker.id == beat.worker.id
    for one in (events, seen_by_root):
        one.close()


def test_an_invalid_room_is_refused(url, bob, open_api):
    with pytest.raises(ApiError) as caught:
        next(JobManager(open_api(url, bob)).watch_room("a:b"))
    assert caught.value.status == 400


def test_a_watch_of_a_room_goes_on_where_another_one_ended(url, bob, open_api):
    """Nothing is missed in between: submits, ends and cancels."""
    worker = Worker(open_api(url, bob))
    manager = worker.manager
    ended, cancelled = (manager.send(Locate(x=x), **HERE) for x in (1, 2))
    events = manager.watch_room("open")
    cursor = next(events).cursor
    events.close()
    (task,) = worker.claim()
    worker.report(task, "completed")
    cancelled.cancel()
    new = manager.send(Locate(x=3), **HERE)
    events = manager.watch_room("open", cursor=cursor)
    assert isinstance(next(events), ReadyEvent)
    expected = {(ended.id, "completed"), (cancelled.id, "cancelled"), (new.id, "pending")}
    found = set()
    while not found >= expected:
        event = next(events)
        if isinstance(event, TaskEvent):
            found.add((event.task.id, event.task.status.value))
    events.close()


def test_an_unknown_cursor_is_a_reset(url, bob, open_api):
    events = JobManager(open_api(url, bob)).watch_room("open", cursor="nonsense")
    assert isinstance(next(events), ResetEvent)
    events.close()


def test_a_task_is_watched_by_an_id_in_another_form(url, bob, open_api):
    """Control: compared with the id of the events, as it is given, no event is the task's."""
    worker = Worker(open_api(url, bob))
    handle = worker.manager.send(Locate(x=1), **HERE)
    changes = worker.manager.handle(handle.id.upper()).watch(timeout=20)
    assert next(changes).status == "pending"
    claim = threading.Timer(0.5, worker.claim)
    claim.start()
    assert next(changes).status == "running"
    changes.close()
    # It still reads the answer when the event has come.
    claim.join()


def test_watches_go_on_after_the_server_was_killed(bob, open_api, monkeypatch):
    """A task ends while no server runs; both its handle and the room's watch see it."""
    counted = CountingTransport()
    with server() as url:
        worker = Worker(open_api(url, bob))
        handle = worker.manager.send(Locate(x=1), **HERE)
        (task,) = worker.claim()
        changes = JobManager(open_api(url, bob, transport=counted)).handle(handle.id).watch(60)
        events = worker.manager.watch_room("open", tasks=[handle.id])
        assert next(changes).status == "running"
        assert isinstance(next(events), ReadyEvent)
        worker.report(task, "running", progress=0.5)
        assert next(changes).progress == 0.5
        await_state(events, handle, "running", 0.5)
        time.sleep(1)
        os.kill(url.pid, signal.SIGKILL)
    assert Task.objects.filter(pk=handle.id).get().cancel()
    monkeypatch.setattr(servers, "free_port", lambda: httpx.URL(url).port)
    with server():
        assert [seen.status for seen in changes] == ["cancelled"]
        await_state(events, handle, "cancelled", 0.5)
        events.close()
    assert counted.counts["GET /rooms/open/events"] >= 1


def test_watches_under_wsgi(bob, open_api):
    """A task's watch asks again and again; that of a room as often as the server says."""
    port = servers.free_port()
    url = f"http://127.0.0.1:{port}"
    command = ["granian", "example_project.wsgi:application", "--interface", "wsgi"]
    with process("-m", *command, "--port", str(port), "--log-level", "warning"):
        until(lambda: answers(url))
        api = open_api(url, bob)
        worker = Worker(api)
        events = worker.manager.watch_room("open")
        assert isinstance(next(events), ReadyEvent)
        handle = worker.manager.send(Locate(x=1), **HERE)
        await_state(events, handle, "pending")
        changes = handle.watch(timeout=20)
        assert next(changes).status == "pending"
        (task,) = worker.claim()
        assert next(changes).status == "running"
        # A caller that takes its time does not make the stream a long one.
        time.sleep(1)
        threading.Timer(0.5, worker.report, (task, "completed"), {"result": {"x": 1}}).start()
        assert [(seen.status, seen.result) for seen in changes] == [("completed", {"x": 1})]
        assert not stream_support(api).is_expected
        await_state(events, handle, "completed")
        events.close()


def answers(url):
    try:
        return httpx.get(f"{url}/v1/problems/not-found").status_code == 200
    except httpx.TransportError:
        return False


def test_the_program_of_the_guide_prints_the_changes_of_a_room(url, bob, open_api, tmp_path):
    guide = (ROOT / "docs/how-to/sdk.md").read_text()
    (program,) = re.findall(r'```python\n("""Prints the changes of a room.*?)```', guide, re.DOTALL)
    script = tmp_path / "watch_room.py"
    script.write_text(program)
    worker = Worker(open_api(url, bob))
    with process(str(script), url, "open", JOBLIB_TOKEN=bob.token) as child:
        # A task whose event comes shows that the program watches.
        def is_printed():
            handle = worker.manager.send(Locate(), **HERE)
            time.sleep(0.3)
            return handle.id in child.log.read_text()

        until(is_printed)
        (task,) = worker.claim()
        worker.report(task, "running", progress=0.5, message="half")
        line = f"{task.id} open:analysis:Locate running 50% half"
        until(lambda: line in child.log.read_text())
        worker.manager.retire_job("open:analysis:Locate")
        until(lambda: "open:analysis:Locate is retired" in child.log.read_text())
