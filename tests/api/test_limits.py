"""Limits on the number of jobs, workers and pending tasks, and the host's throttles."""

from __future__ import annotations

import threading

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from rest_framework.throttling import ScopedRateThrottle

from tests.factories import problem
from zndraw_joblib.models import Job, RoomBacklog, Task, Worker, WorkerJobLink
from zndraw_joblib.services import submit as submissions
from zndraw_joblib.storage import backlogs

pytestmark = pytest.mark.django_db


def statuses_at_once(count, send):
    """Sorted statuses of `send(number)`, called from `count` threads at once."""
    answers, ready = [], threading.Barrier(count)

    def run(number):
        try:
            ready.wait(10)
            answers.append(send(number))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return sorted(answer.status_code for answer in answers)


def test_jobs_per_worker_are_limited(bob, settings_of):
    settings_of(max_jobs_per_worker=2)
    worker = bob.worker()
    for name in ("A", "B", "A", "B"):
        assert bob.register(name=name, worker_id=worker).status_code in {200, 201}
    document = problem(bob.register(name="C", worker_id=worker), "too-many-jobs", 409)
    assert "2" in document["detail"]
    assert Job.objects.count() == WorkerJobLink.objects.count() == 2
    assert bob.register(name="C", worker_id=bob.worker()).status_code == 201


def test_workers_per_identity_are_limited(bob, carol, settings_of):
    settings_of(max_workers_per_identity=2)
    first = bob.worker()
    bob.worker()
    problem(bob.send("post", "/workers"), "too-many-workers", 409)
    problem(bob.register(), "too-many-workers", 409)
    assert Worker.objects.count() == 2
    assert not Job.objects.exists()
    assert bob.register(worker_id=first).status_code == 201
    assert carol.send("post", "/workers").status_code == 201
    bob.send("delete", f"/workers/{first}")
    assert bob.send("post", "/workers").status_code == 201


def test_the_default_worker_is_created_once(bob, settings_of):
    settings_of(max_workers_per_identity=1)
    assert bob.register(name="A").status_code == 201
    assert bob.register(name="B").status_code == 201
    assert Worker.objects.get().pk == bob.identity


@pytest.mark.django_db(transaction=True)
def test_concurrent_requests_do_not_exceed_the_limit_of_workers(bob, settings_of):
    settings_of(max_workers_per_identity=3)
    codes = statuses_at_once(8, lambda number: bob.send("post", "/workers"))
    assert codes == [201] * 3 + [409] * 5
    assert Worker.objects.count() == 3


@pytest.mark.django_db(transaction=True)
def test_concurrent_requests_do_not_exceed_the_limit_of_jobs(bob, settings_of):
    settings_of(max_jobs_per_worker=3)
    worker = bob.worker()
    codes = statuses_at_once(8, lambda number: bob.register(name=f"J{number}", worker_id=worker))
    assert codes == [201] * 3 + [409] * 5
    assert WorkerJobLink.objects.count() == 3


@pytest.mark.django_db(transaction=True)
def test_concurrent_submits_do_not_exceed_the_limit_of_a_room(bob, settings_of):
    settings_of(max_pending_per_room=3)
    bob.register()
    assert statuses_at_once(8, lambda number: bob.submit()) == [202] * 3 + [429] * 5
    assert Task.objects.count() == 3


def test_pending_tasks_of_a_room_are_limited(bob, settings_of):
    bob.register()
    for _ in range(5):
        assert bob.submit().status_code == 202
    settings_of(max_pending_per_room=6)
    assert bob.submit().status_code == 202
    answer = bob.submit()
    problem(answer, "too-many-pending", 429)
    assert answer["Retry-After"] == "1"
    assert Task.objects.count() == 6
    task = bob.claim()
    assert bob.submit().status_code == 202
    problem(bob.submit(), "too-many-pending", 429)
    # The limit applies to each room, and claimed tasks do not count.
    bob.register("opener")
    assert bob.submit("opener", "opener:modifiers:Rotate").status_code == 202
    # A requeue may exceed the limit, because it is never refused.
    Task.objects.filter(pk=task["id"]).requeue()
    problem(bob.submit(), "too-many-pending", 429)
    settings_of(max_pending_per_room=8)
    assert bob.submit().status_code == 202
    settings_of(max_pending_per_room=7)
    problem(bob.submit(), "too-many-pending", 429)


@pytest.mark.django_db(transaction=True)
def test_a_requeued_task_counts_as_pending_again(bob, settings_of):
    settings_of(max_pending_per_room=2)
    bob.register()
    assert [bob.submit().status_code for _ in range(2)] == [202, 202]
    claimed = [bob.claim() for _ in range(2)]
    # One of the two places is taken, because claimed tasks do not count.
    assert bob.submit().status_code == 202
    Task.objects.filter(pk__in=[task["id"] for task in claimed]).requeue()
    problem(bob.submit(), "too-many-pending", 429)


def test_a_repeated_submit_does_not_count_twice(bob, settings_of):
    settings_of(max_pending_per_room=1)
    bob.register()
    body = {"payload": {}}
    url = "/rooms/open/tasks/open:modifiers:Rotate"
    answers = [
        bob.send("post", url, body, headers={"idempotency-key": "k"}).status_code for _ in range(3)
    ]
    assert answers == [202] * 3


def backlog_counts(queries, limit):
    """The statements that count a room's backlog, not those that count a job's queue."""
    texts = [query["sql"] for query in queries]
    return [
        sql
        for sql in texts
        if sql.startswith("SELECT COUNT(") and '"room_id"' in sql and f"LIMIT {limit})" in sql
    ]


def test_a_long_backlog_is_not_counted_at_each_submit(bob, settings_of, monkeypatch):
    monkeypatch.setattr(backlogs, "EXACT_BACKLOG", 3)
    # An empty cache, because a stale job of the same name would repeat the submit.
    monkeypatch.setattr(submissions, "job_cache", submissions.JobCache())
    settings_of(max_pending_per_room=10)
    bob.register()
    with CaptureQueriesContext(connections["default"]) as queries:
        for _ in range(10):
            assert bob.submit().status_code == 202
        problem(bob.submit(), "too-many-pending", 429)
    assert len(backlog_counts(queries, 10)) == 2
    # A full room stays full for a second, also after a claim ...
    bob.claim()
    with CaptureQueriesContext(connections["default"]) as queries:
        for _ in range(3):
            problem(bob.submit(), "too-many-pending", 429)
    assert not backlog_counts(queries, 10)
    # ... and is counted again after that second.
    RoomBacklog.objects.update(full_at="2020-01-01T00:00:00Z")
    assert bob.submit().status_code == 202


def test_scoped_throttles_of_the_host_apply(bob, monkeypatch):
    monkeypatch.setitem(ScopedRateThrottle.THROTTLE_RATES, "joblib_submit", "2/min")
    bob.register()
    assert [bob.submit().status_code for _ in range(2)] == [202, 202]
    answer = bob.submit()
    problem(answer, "throttled", 429)
    assert 0 < int(answer["Retry-After"]) <= 60
    assert Task.objects.count() == 2
    # Other scopes, and scopes without a rate, are not throttled.
    assert bob.get("/rooms/open/tasks").status_code == 200
    assert bob.claim() is not None


@pytest.fixture(autouse=True)
def clear_throttles():
    from django.core.cache import cache

    cache.clear()
    yield
    cache.clear()
