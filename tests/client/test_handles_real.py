"""`TaskHandle` against a server process, with a worker that reports by hand."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

from tests.client.test_real import CountingTransport
from tests.servers import server, until
from zndraw_joblib.client import (
    Api,
    InvalidTaskTransitionError,
    JobManager,
    JobNotFoundError,
    RequestInvalidError,
    TaskCancelled,
    TaskFailed,
    files,
)
from zndraw_joblib.client.api import path, send
from zndraw_joblib.client.task_events import stream_support
from zndraw_joblib.models import Task

pytestmark = pytest.mark.django_db(transaction=True)

BIG = 2**70


class Point(BaseModel):
    x: int
    name: str = ""


class Locate(BaseModel):
    category: ClassVar[str] = "analysis"
    x: int = 0

    def run(self) -> Point:
        if self.x < 0:
            raise ValueError("left of the edge")
        return Point(x=self.x)


def scale(points: list[Point], by: int = 2, *, delay: float = 0) -> list[Point]:
    """Takes an argument that is named like an option of `send`."""
    return [Point(x=by * point.x, name=f"{point.name} {delay:g}") for point in points]


class Worker:
    """Reports on tasks of the job `Locate` by hand."""

    def __init__(self, api):
        self.manager = JobManager(api)
        self.manager.register(room="open")(Locate)

    def claim(self, limit=1):
        return self.manager.claim_many(limit, start=True)

    def report(self, task, status, **fields):
        body = {"status": status, "attempt": task.attempt, **fields}
        url = path("tasks", task.id)
        return send(self.manager.api, "PATCH", url, read=lambda answer: answer.json(), body=body)

    def log(self, task, text):
        body = {"attempt": task.attempt, "text": text}
        url = path("tasks", task.id, "log")
        send(self.manager.api, "POST", url, read=lambda answer: None, body=body)


@pytest.fixture(scope="module")
def url(django_db_setup, django_db_blocker):
    """One server for all tests, because its start takes longer than a test."""
    with django_db_blocker.unblock(), server() as address:
        yield address


@pytest.fixture
def api(url, bob):
    with Api(url, bob.token) as opened:
        yield opened


@pytest.fixture
def manager(api):
    return JobManager(api)


@pytest.fixture
def worker(api):
    return Worker(api)


HERE: dict[str, Any] = {"room": "open", "job_room": "open"}


def test_a_result_arrives_as_the_class_that_run_returns(manager, worker):
    handle = manager.send(Locate(x=1), **HERE)
    waiter = []
    thread = threading.Thread(target=lambda: waiter.append(handle.result(timeout=20)))
    thread.start()
    (task,) = worker.claim()
    worker.report(task, "completed", result={"x": BIG, "name": "ü"})
    thread.join(20)
    assert waiter == [Point(x=BIG, name="ü")]
    assert manager.handle(handle.id).result() == {"x": BIG, "name": "ü"}
    assert manager.task(handle.id).result == {"x": BIG, "name": "ü"}
    assert manager.wait(handle.id).result == {"x": BIG, "name": "ü"}


def test_the_options_of_send_reach_the_task(manager, worker):
    handle = manager.send(Locate(), retries=3, delay=60, timeout_seconds=5, **HERE)
    stored = Task.objects.get(pk=handle.id)
    assert (stored.retries, stored.retries_left, stored.timeout_seconds) == (3, 3, 5)
    assert stored.run_at - stored.created_at == timedelta(seconds=60)
    due = stored.created_at + timedelta(hours=1)
    other = manager.send(Locate(), run_at=due, **HERE)
    assert Task.objects.get(pk=other.id).run_at == due
    assert worker.claim(2) == []
    with pytest.raises(RequestInvalidError):
        manager.send(Locate(), delay=-1, **HERE)


def test_one_key_gives_one_task(manager, worker):
    first = manager.send(Locate(x=1), idempotency_key='the "one"', **HERE)
    second = manager.send(Locate(x=1), idempotency_key='the "one"', **HERE)
    assert first == second
    assert Task.objects.count() == 1


def test_a_failure_carries_the_traceback_of_a_worker(manager, worker):
    handle = manager.send(Locate(x=-1), **HERE)
    with (
        serving(worker.manager),
        pytest.raises(TaskFailed, match="left of the edge") as caught,
    ):
        handle.result(timeout=20)
    assert caught.value.error.startswith("ValueError: left of the edge")
    assert caught.value.remote_traceback.startswith("Traceback (most recent call last):")
    assert "in run\n" in caught.value.remote_traceback


@contextmanager
def serving(manager):
    thread = threading.Thread(target=manager.serve, kwargs={"prefetch": 5}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        manager.stop()
        thread.join(20)


def test_functions_are_sent_with_their_arguments_and_return_their_type(manager, worker):
    worker.manager.job(room="open", category="analysis")(scale)
    with serving(worker.manager):
        first = manager.send(scale, [Point(x=2, name="a")], by=3, **HERE)
        assert first.result(timeout=20) == [Point(x=6, name="a 0")]
        second = manager.send(scale, points=[Point(x=2)], **HERE)
        assert second.result(timeout=20) == [Point(x=4, name=" 0")]
        scaled = manager.map(scale, [[Point(x=1)], [Point(x=2)]], [5, 6], timeout=30, **HERE)
        assert list(scaled) == [[Point(x=5, name=" 0")], [Point(x=12, name=" 0")]]
        found = manager.map([Locate(x=x) for x in range(30)], timeout=30, **HERE)
        assert [point.x for point in found] == list(range(30))


def test_files_of_a_task_are_listed_and_downloaded(manager, worker, tmp_path):
    handle = manager.send(Locate(x=1), **HERE)
    (task,) = worker.claim()
    files.upload(worker.manager.api, task.id, task.attempt, b"content", "a.txt")
    assert [(file["name"], file["size"]) for file in handle.files()] == [("a.txt", 7)]
    assert handle.download("a.txt") == b"content"
    assert handle.download("a.txt", tmp_path).read_bytes() == b"content"


def test_watch_sees_a_task_move(manager, worker):
    handle = manager.send(Locate(x=1), **HERE)
    changes = handle.watch(timeout=20)
    assert next(changes).status == "pending"
    (task,) = worker.claim()
    assert next(changes).status == "running"
    worker.report(task, "running", progress=0.5, message="half")
    assert (next(changes).message, handle.progress()) == ("half", (0.5, "half"))
    worker.report(task, "completed", result={"x": 1})
    assert [(seen.status, seen.result) for seen in changes] == [("completed", {"x": 1})]
    assert [seen.status for seen in handle.watch()] == ["completed"]


def test_a_task_is_cancelled_by_its_handle(manager, worker):
    handle = manager.send(Locate(x=1), **HERE)
    assert handle.cancel().status == "cancelled"
    with pytest.raises(TaskCancelled):
        handle.result(timeout=20)
    done = manager.send(Locate(x=1), **HERE)
    worker.report(*worker.claim(), "completed")
    assert done.result() is None
    with pytest.raises(InvalidTaskTransitionError):
        done.cancel()


@pytest.mark.parametrize("ordered", [True, False])
def test_map_yields_results(manager, worker, ordered):
    results = manager.map(
        (Locate(x=x) for x in range(6)), timeout=20, ordered=ordered, return_exceptions=True, **HERE
    )
    tasks = worker.claim(6)
    for task in reversed(tasks[1:]):
        worker.report(task, "completed", result={"x": task.payload["x"]})
    first = threading.Timer(
        0.2, lambda: worker.report(tasks[0], "failed", error="ValueError: first")
    )
    first.start()
    found = list(results)
    # Because the waiter may learn of the end before the worker has its answer.
    first.join()
    failed = found.pop(0 if ordered else -1)
    assert isinstance(failed, TaskFailed)
    assert sorted(point.x for point in found) == [1, 2, 3, 4, 5]
    if ordered:
        assert [point.x for point in found] == [1, 2, 3, 4, 5]
    until(lambda: not Task.objects.filter(status="running").exists())


def test_the_log_of_a_task_is_read_and_followed(manager, worker):
    handle = manager.send(Locate(x=1), **HERE)
    (task,) = worker.claim()
    long = "é" * 50_000  # More than one answer has.
    worker.log(task, long)
    assert handle.log() == long
    assert handle.log(offset=2 * 49_999) == "é"
    parts = handle.follow_log(offset=100_000, timeout=30)
    threading.Timer(0.3, worker.log, (task, "more")).start()
    assert next(parts) == "more"
    end = threading.Timer(0.3, worker.report, (task, "completed"))
    end.start()
    assert list(parts) == []
    end.join()


@pytest.mark.parametrize("has_streams", [True, False])
def test_watch_asks_once_for_each_change(url, bob, worker, has_streams):
    """Control: a server that does not wait is asked some ten times.

    With a stream: once at first, and once when the stream has begun.
    """
    counted = CountingTransport()
    with Api(url, bob.token, transport=counted) as api:
        if not has_streams:
            stream_support(api).deny()
        handle = JobManager(api).send(Locate(x=1), **HERE)
        changes = handle.watch(timeout=30)
        assert next(changes).status == "pending"
        threading.Timer(1.5, worker.claim).start()
        assert next(changes).status == "running"
        changes.close()
    asked = {key: number for key, number in counted.counts.items() if key.startswith("GET")}
    assert asked.pop("GET /rooms/open/events", 0) == has_streams
    assert asked == {f"GET /tasks/{handle.id}": 2}


def test_attempts_and_retries_of_a_task(manager, worker):
    handle = manager.send(Locate(x=1), retries=1, **HERE)
    worker.report(*worker.claim(), "failed", error="first", retry_after=0)
    worker.report(*until(worker.claim), "failed", error="second")
    attempts = handle.attempts()
    assert [(one.attempt, one.outcome, one.error) for one in attempts] == [
        (1, "failed", "first"),
        (2, "failed", "second"),
    ]
    again = handle.retry()
    assert manager.task(again.id).retry_of == handle.id
    worker.report(*worker.claim(), "completed", result={"x": 9})
    assert again.result(timeout=20) == Point(x=9)


def test_tasks_are_listed_by_their_filters(manager, worker):
    ids = [manager.send(Locate(x=number), **HERE).id for number in range(130)]
    assert [task.id for task in manager.tasks()] == ids[::-1]
    (task,) = worker.claim()
    worker.report(task, "completed", result={"x": 1})
    job = "open:analysis:Locate"
    (listed,) = manager.tasks(status="completed", job=job, room="open", created_by="me")
    assert (listed.id, listed.result) == (task.id, None)
    (listed,) = manager.tasks(status="completed", include_result=True)
    assert listed.result == {"x": 1}
    assert list(manager.tasks(room="other")) == []


def test_a_job_is_retired(manager, worker):
    job = "open:analysis:Locate"
    manager.send(Locate(x=1), **HERE)
    worker.manager.retire_job(job)
    for retired in (lambda: manager.send(Locate(x=1), **HERE), lambda: manager.retire_job(job)):
        with pytest.raises(JobNotFoundError):
            retired()
    assert worker.claim() == []
    worker.manager.register(room="open")(Locate)
    assert len(worker.claim()) == 1
