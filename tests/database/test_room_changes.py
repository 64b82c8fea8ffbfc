"""The looks at the changes in rooms miss none and repeat none, whenever transactions commit."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.db.models import F

from tests.factories import SCHEMA
from zndraw_joblib.events import room_changes
from zndraw_joblib.events.room_changes import ClockWentBack, RoomChanges
from zndraw_joblib.models import Job, Task
from zndraw_joblib.storage import changes
from zndraw_joblib.storage.clock import database_time
from zndraw_joblib.storage.connections import release_connections

pytestmark = pytest.mark.django_db(transaction=True)

postgresql = pytest.mark.skipif(
    "connection.vendor == 'sqlite'", reason="SQLite has one writer at a time"
)


@pytest.fixture
def job(db):
    return Job.objects.create(room_id="open", category="modifiers", name="Rotate", schema=SCHEMA)


def submit(job, room="open"):
    return job.enqueue(room, {}, "alice").id


class Looks:
    """Looks at the room `open`, a second apart by the loop's clock."""

    def __init__(self):
        self.changes = RoomChanges()
        self.clock = 0.0

    def found(self, *rooms, with_queues=False):
        self.clock += 1
        return self.changes.look(rooms or ("open",), self.clock, with_queues=with_queues)

    def ids(self, **more):
        return {task.id for task in self.found(**more).tasks.get("open", [])}


def test_each_change_is_found_once(job):
    looks = Looks()
    looks.found()
    task = submit(job)
    assert looks.ids() == {task}
    assert looks.ids() == set()
    Task.objects.filter(pk=task).cancel()
    assert looks.ids() == {task}
    assert looks.ids() == set()


def test_tasks_come_without_payload_and_result(job):
    looks = Looks()
    looks.found()
    submit(job)
    (task,) = looks.found().tasks["open"]
    assert (task.payload, task.result, task.queue_position) == (None, None, 1)


def test_a_change_soon_after_another_is_held_and_then_sent_as_it_is_by_then(job):
    looks = Looks()
    looks.found()
    task = submit(job)
    assert looks.ids() == {task}
    Task.objects.filter(pk=task).cancel()
    assert looks.changes.look(["open"], looks.clock + 0.1, with_queues=False).tasks == {}
    assert looks.ids() == {task}


def change(task):
    """As a report of progress does it."""
    now = database_time(Task.objects.write_db)
    Task.objects.filter(pk=task).update(revision=F("revision") + 1, changed_at=now)


def test_a_task_that_changes_five_times_a_second_is_never_held(job):
    """Control: red with `EARLY_SECONDS` of zero, where each message delays all later ones."""
    looks = Looks()
    looks.found()
    task = submit(job)
    for number in range(20):
        # The looks find the changes at uneven times.
        clock = looks.clock + 0.2 * number + (0.06 if number % 2 else 0.0)
        assert looks.changes.look(["open"], clock, with_queues=False).tasks
        change(task)


def test_a_task_that_changes_at_each_look_is_sent_five_times_a_second(job):
    looks = Looks()
    looks.found()
    task = submit(job)
    sent = 0
    for number in range(80):
        clock = looks.clock + 0.05 * number
        sent += len(looks.changes.look(["open"], clock, with_queues=False).tasks)
        change(task)
    assert 19 <= sent <= 21


@postgresql
def test_a_transaction_that_was_open_for_long_is_found_by_its_begin(job, monkeypatch):
    """Without the list of transactions the looks would begin after the change, and miss it.

    Control: red with `ended` always empty in `RoomChanges._follow`.
    """
    monkeypatch.setattr(changes, "_UNSEEN", timedelta(0))
    task, began, go_on = submit(job), threading.Event(), threading.Event()

    def cancel_late():
        with transaction.atomic():
            Task.objects.filter(pk=task).cancel()
            began.set()
            go_on.wait(10)
        release_connections()

    late = threading.Thread(target=cancel_late)
    late.start()
    began.wait(10)
    looks = Looks()
    assert [looks.ids() for _ in range(4)][1:] == [set()] * 3
    since = looks.found().since
    go_on.set()
    late.join()
    assert task in looks.ids() | looks.ids()
    # A client that left before the commit comes back with a cursor from before the change.
    assert since <= Task.objects.get(pk=task).changed_at
    assert looks.found().since > since


@postgresql
def test_a_hidden_begin_counts_as_long_before_the_first_look(job):
    job.refresh_from_db()
    now = job.created_at
    look = changes.Look(now, {"1/2": None}, [])
    looks = RoomChanges()
    looks._follow("default", look)
    assert looks._writing == {"1/2": now - room_changes.HIDDEN}
    later = now + timedelta(seconds=5)
    looks._follow("default", look._replace(now=later, writing={"1/2": None, "3/4": None}))
    # It has begun after the last look, which did not list it.
    assert looks._writing == {"1/2": now - room_changes.HIDDEN, "3/4": now}


def test_a_clock_that_went_back_ends_the_looks(job):
    looks = Looks()
    looks.found()
    looks.changes._looked_at += timedelta(hours=1)
    with pytest.raises(ClockWentBack):
        looks.found()


def test_too_many_new_tasks_overflow_the_room_once(job, monkeypatch):
    monkeypatch.setattr(room_changes, "MAX_READ", 2)
    looks = Looks()
    looks.found("open", "other")
    for _ in range(3):
        submit(job)
    other = submit(job, "other")
    found = looks.found("open", "other")
    assert found.overflowed == {"open"}
    assert {task.id for task in found.tasks["other"]} == {other}
    assert looks.found("open", "other").overflowed == set()


def test_places_in_the_queue_are_sent_when_they_move(job):
    first, second = submit(job), submit(job)
    looks = Looks()
    assert looks.ids(with_queues=True) == {first, second}
    assert looks.ids(with_queues=True) == set()
    Task.objects.filter(pk=first).cancel()
    assert looks.ids() == {first}
    assert looks.ids(with_queues=True) == {second}


def test_a_failed_read_loses_no_change(job, monkeypatch):
    looks = Looks()
    looks.found()
    task = submit(job)
    with monkeypatch.context() as broken:
        broken.setattr(type(Task.objects), "read", lambda *args, **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            looks.found()
    assert looks.ids() == {task}


def test_few_tasks_are_remembered(job, monkeypatch):
    monkeypatch.setattr(room_changes, "MAX_KNOWN", 2)
    looks = Looks()
    looks.found()
    for _ in range(4):
        submit(job)
        looks.found()
    assert len(looks.changes._known["open"]) == 2
    looks.found("other")
    assert "open" not in looks.changes._known


@postgresql
def test_a_role_without_privileges_sees_that_others_write(job):
    """The begin of their transactions is hidden from it, `backend_xid` is not."""
    began, go_on = threading.Event(), threading.Event()

    def write():
        with transaction.atomic():
            submit(job)
            began.set()
            go_on.wait(10)
        release_connections()

    writer = threading.Thread(target=write)
    writer.start()
    began.wait(10)
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("CREATE ROLE joblib_reader")
            cursor.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO joblib_reader")
            cursor.execute("SET LOCAL ROLE joblib_reader")
            look = changes.look_at("default", [], None)
            transaction.set_rollback(True)
    finally:
        go_on.set()
        writer.join()
    # The role's own transaction is listed too, because it has made the role.
    assert None in look.writing.values()
