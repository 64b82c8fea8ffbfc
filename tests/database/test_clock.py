"""The database's clock went back an hour: a time that lies in the future is not believed.

The clock of a database cannot be set in a test. Instead rows have times an hour ahead, as rows have
that were written before the clock went back.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F
from django.utils import timezone

from tests.factories import problem
from zndraw_joblib.models import IdempotencyKey, RoomBacklog, Task, Worker
from zndraw_joblib.services import ends
from zndraw_joblib.services.ends import RoomEnds
from zndraw_joblib.services.sweep import sweep
from zndraw_joblib.storage import backlogs
from zndraw_joblib.storage.clock import database_time

pytestmark = pytest.mark.django_db(transaction=True)

HOUR = timedelta(hours=1)
TASKS = "/rooms/open/tasks/open:modifiers:Rotate"


@pytest.mark.parametrize("start", [False, True], ids=["claimed", "running"])
def test_the_task_of_a_worker_that_died_before_the_clock_went_back_is_requeued_after_a_lease(
    bob, settings_of, caplog, start
):
    settings_of(worker_timeout_seconds=0.2, task_max_retries=1)
    bob.register()
    bob.submit()
    bob.send("post", "/tasks/claim", {"start": start})
    Task.objects.update(lease_expires_at=F("lease_expires_at") + HOUR)
    Worker.objects.update(last_heartbeat=F("last_heartbeat") + HOUR)
    # Its worker may be alive, so the task keeps a lease.
    report = sweep()
    assert (report.requeued, report.retried, report.workers) == (0, 0, 0)
    assert "corrected 1 leases, 1 heartbeats and 0 submits" in caplog.text
    time.sleep(0.25)
    report = sweep()
    assert (report.requeued + report.retried, report.workers) == (1, 1)
    assert Task.objects.get().status == "pending"


def test_a_live_worker_keeps_its_task_when_the_clock_goes_back(bob):
    worker_id = bob.register().json()["worker_id"]
    task = bob.submit().json()
    bob.claim()
    Task.objects.update(lease_expires_at=F("lease_expires_at") + HOUR)
    Worker.objects.update(last_heartbeat=F("last_heartbeat") + HOUR)
    sweep()
    bob.send("patch", f"/workers/{worker_id}")
    sweep()
    assert bob.report(task["id"], "running", attempt=1).status_code == 200
    assert Worker.objects.get().is_alive(60)


def test_leases_and_heartbeats_of_now_are_left_alone(bob, caplog):
    bob.register()
    bob.submit()
    bob.claim()
    before = Task.objects.get().lease_expires_at, Worker.objects.get().last_heartbeat
    sweep()
    assert (Task.objects.get().lease_expires_at, Worker.objects.get().last_heartbeat) == before
    assert "corrected" not in caplog.text


@pytest.mark.parametrize("body", [{}, {"run_at": "2020-01-01T00:00:00Z"}])
def test_a_task_that_was_submitted_before_the_clock_went_back_is_granted_after_a_sweep(
    bob, caplog, monkeypatch, body
):
    """Control: no claim takes the tasks for an hour without `cap_submits`."""
    monkeypatch.setattr("zndraw_joblib.storage.locking.BATCH", 2)
    bob.register()
    tasks = [bob.send("post", TASKS, body).json()["id"] for _ in range(5)]
    Task.objects.update(created_at=F("created_at") + HOUR)
    assert bob.claim() is None
    sweep()
    assert "0 leases, 0 heartbeats and 5 submits" in caplog.text
    assert bob.get(f"/tasks/{tasks[1]}").json()["queue_position"] == 2
    assert [bob.claim()["id"] for _ in tasks] == tasks


def test_tasks_that_are_scheduled_or_due_are_left_alone(bob, caplog):
    bob.register()
    for body in ({}, {"delay": 60}, {"run_at": "2100-01-01T00:00:00Z"}, {"delay": 0}):
        bob.send("post", TASKS, body)
    before = list(Task.objects.values_list("created_at", "run_at"))
    sweep()
    assert list(Task.objects.values_list("created_at", "run_at")) == before
    # A scheduled one starts at its time all the same.
    Task.objects.update(created_at=F("created_at") + HOUR, run_at=F("created_at") + 2 * HOUR)
    sweep()
    assert not Task.objects.filter(created_at__lt=timezone.now() + HOUR / 2).exists()
    assert "corrected" not in caplog.text


def test_more_times_than_a_batch_are_corrected(bob, monkeypatch):
    monkeypatch.setattr("zndraw_joblib.storage.locking.BATCH", 2)
    bob.register()
    for _ in range(5):
        bob.submit()
        bob.worker()
    bob.send("post", "/tasks/claim", {"limit": 5})
    Task.objects.update(lease_expires_at=F("lease_expires_at") + HOUR)
    Worker.objects.update(last_heartbeat=F("last_heartbeat") + HOUR)
    sweep()
    soon = timezone.now() + timedelta(minutes=2)
    assert not Task.objects.filter(lease_expires_at__gt=soon).exists()
    assert not Worker.objects.filter(last_heartbeat__gt=soon).exists()


def test_a_heartbeat_an_hour_ahead_is_of_no_live_worker():
    worker = Worker(identity="x", last_heartbeat=timezone.now() + HOUR)
    assert not worker.is_alive(60)
    worker.last_heartbeat = timezone.now() + timedelta(seconds=5)
    assert worker.is_alive(60), "the clocks of a server and its database differ by seconds"


def test_a_worker_that_died_before_the_clock_went_back_gives_its_schema_up(bob, carol, settings_of):
    settings_of(worker_timeout_seconds=0.1)
    bob.register()
    Worker.objects.update(last_heartbeat=F("last_heartbeat") + HOUR)
    sweep()
    time.sleep(0.15)
    assert carol.register(schema={"type": "object"}).status_code < 300


def test_a_room_that_was_full_before_the_clock_went_back_is_counted_again(
    bob, settings_of, monkeypatch
):
    monkeypatch.setattr(backlogs, "EXACT_BACKLOG", 1)
    settings_of(max_pending_per_room=2)
    bob.register()
    for _ in range(2):
        assert bob.submit().status_code == 202
    problem(bob.submit(), "too-many-pending", 429)
    RoomBacklog.objects.update(full_at=F("full_at") + HOUR)
    problem(bob.submit(), "too-many-pending", 429)
    assert RoomBacklog.objects.get().full_at < timezone.now() + timedelta(minutes=1)
    RoomBacklog.objects.update(full_at=F("full_at") + HOUR)
    bob.claim()
    assert bob.submit().status_code == 202


def test_a_key_of_before_the_clock_went_back_still_gives_its_task(bob):
    bob.register()
    send = {"format": "json", "HTTP_IDEMPOTENCY_KEY": "k"}
    url = "/v1/joblib/rooms/open/tasks/open:modifiers:Rotate"
    first = bob.client.post(url, {"payload": {}}, **send).json()
    IdempotencyKey.objects.update(created_at=F("created_at") + HOUR)
    sweep()
    assert bob.client.post(url, {"payload": {}}, **send).json()["id"] == first["id"]


@pytest.fixture
def clock(monkeypatch):
    """A function that makes the clock of `RoomEnds` differ from the database's by a span."""

    def shift(span: timedelta) -> None:
        monkeypatch.setattr(ends, "database_time", lambda using: database_time(using) + span)

    return shift


@pytest.fixture
def end(bob):
    """A function that ends a new task, at a span from now; returns its id."""
    bob.register()

    def end_one(span: timedelta = timedelta(0)) -> str:
        task_id: str = bob.submit().json()["id"]
        bob.report(task_id, "cancelled")
        Task.objects.filter(pk=task_id).update(
            completed_at=F("completed_at") + span, changed_at=F("changed_at") + span
        )
        return task_id

    return end_one


def ids(tasks: list[Any]) -> list[str]:
    return [str(task.id) for task in tasks]


def test_ends_in_a_room_are_found_once_also_when_the_clock_goes_back(end, clock):
    """With the newest end as the cursor nothing is found for an hour."""
    clock(HOUR)
    end(HOUR - timedelta(minutes=20))
    end(HOUR - timedelta(seconds=1))
    room = RoomEnds("open")
    assert room.new() == []
    first = end(HOUR)
    assert ids(room.new()) == [first]
    assert room.new() == []
    before = end(HOUR)
    clock(timedelta(0))
    after = end()
    assert ids(room.new()) == [after, before]
    assert room.new() == []
    # The clock reaches the end of the first task again.
    clock(timedelta(minutes=40, seconds=1))
    assert room.new() == []
    again = end(timedelta(minutes=40))
    assert ids(room.new()) == [again]
    clock(HOUR + timedelta(seconds=1))
    assert room.new() == []


def test_ends_in_a_room_are_found_from_the_first_look_on(end):
    end(HOUR)
    end()
    room = RoomEnds("open")
    assert room.new() == []
    task_id = end()
    assert ids(room.new()) == [task_id]
    late = end(timedelta(seconds=-9))
    assert ids(room.new()) == [late], "a transaction may commit seconds after the end"


def test_an_end_is_found_again_after_a_failed_read(end, monkeypatch):
    room = RoomEnds("open")
    room.new()
    task_id = end()
    with monkeypatch.context() as patch:
        patch.setattr(Task.objects, "read", lambda found: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            room.new()
    assert ids(room.new()) == [task_id]
