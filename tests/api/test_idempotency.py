"""`Idempotency-Key` on submits (draft-ietf-httpapi-idempotency-key-header)."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import connection, connections, transaction
from django.utils import timezone

from tests.factories import SCHEMA, problem
from zndraw_joblib.models import IdempotencyKey, Task
from zndraw_joblib.services.sweep import sweep
from zndraw_joblib.storage.ids import new_id

pytestmark = pytest.mark.django_db

URL = "/rooms/open/tasks/open:modifiers:Rotate"


def submit(person, key, url=URL, **payload):
    return person.send("post", url, {"payload": payload}, headers={"idempotency-key": key})


def test_the_same_key_and_body_give_the_same_task(bob):
    bob.register()
    first = submit(bob, '"one"', angle=1)
    again = submit(bob, '"one"', angle=1)
    assert first.status_code == again.status_code == 202
    assert first.json() == again.json()
    assert again["Location"] == first["Location"]
    assert again["Retry-After"] == "1"
    assert Task.objects.count() == 1
    # A key without quotes is the same key as with quotes.
    assert submit(bob, "one", angle=1).json() == first.json()


def test_the_order_of_the_payloads_fields_does_not_matter(bob):
    bob.register(schema={})
    assert submit(bob, "k", a=1, b=2).json()["id"] == submit(bob, "k", b=2, a=1).json()["id"]


def test_a_used_key_with_another_body_is_refused(bob):
    bob.register()
    submit(bob, "one", angle=1)
    problem(submit(bob, "one", angle=2), "idempotency-key-reused", 422)
    assert Task.objects.count() == IdempotencyKey.objects.count() == 1


def test_a_key_applies_to_one_identity_and_one_job(bob, alice):
    bob.register()
    bob.register(name="Other")
    bob.register("opener")
    tasks = [
        submit(bob, "one", angle=1),
        submit(alice, "one", angle=1),
        submit(bob, "one", "/rooms/open/tasks/open:modifiers:Other", angle=1),
        submit(bob, "one", "/rooms/opener/tasks/opener:modifiers:Rotate", angle=1),
        submit(bob, "two", angle=1),
    ]
    assert len({task.json()["id"] for task in tasks}) == 5


def test_a_refused_submit_leaves_no_key_behind(bob):
    bob.register()
    problem(submit(bob, "one", wrong=1), "invalid-payload", 422)
    assert not IdempotencyKey.objects.exists()
    assert submit(bob, "one", angle=1).status_code == 202


def test_a_repeated_submit_gets_its_task_although_the_job_is_retired(bob):
    worker = bob.worker()
    bob.register(worker_id=worker)
    task = submit(bob, "one", angle=1).json()
    bob.report(task["id"], "cancelled")
    bob.send("delete", f"/workers/{worker}")
    assert sweep().jobs == 1
    again = submit(bob, "one", angle=1)
    assert (again.status_code, again.json()["status"]) == (202, "cancelled")
    problem(submit(bob, "two", angle=1), "job-not-found", 404)


def test_a_key_expires_after_a_day(bob):
    bob.register()
    first = submit(bob, "one", angle=1).json()["id"]
    IdempotencyKey.objects.update(created_at=timezone.now() - timedelta(hours=23))
    assert submit(bob, "one", angle=1).json()["id"] == first
    IdempotencyKey.objects.update(created_at=timezone.now() - timedelta(hours=25))
    second = submit(bob, "one", angle=2).json()["id"]
    assert second != first
    assert submit(bob, "one", angle=2).json()["id"] == second
    assert sweep().keys == 0
    IdempotencyKey.objects.update(created_at=timezone.now() - timedelta(hours=25))
    assert sweep().keys == 1
    assert not IdempotencyKey.objects.exists()
    assert Task.objects.count() == 2


@pytest.mark.parametrize("key", ["", '""', "a b", '"a', "ä", "x" * 256, '"a"b"', "a,b", '"\x7f"'])
def test_invalid_keys_are_refused(bob, key):
    bob.register()
    document = problem(submit(bob, key, angle=1), "validation-error", 400)
    assert "Idempotency-Key" in document["detail"]
    assert not Task.objects.exists()


@pytest.mark.parametrize("key", ["x" * 255, r'"a \"quoted\" \\ one"', "8e03978e-40d5-43dd-bc93"])
def test_valid_keys_are_accepted(bob, key):
    bob.register()
    assert submit(bob, key).json()["id"] == submit(bob, key).json()["id"]


@pytest.mark.django_db(transaction=True)
def test_a_submit_waits_for_a_concurrent_one_with_its_key(bob):
    """The first submit has reserved the key but not committed; the second gets the same task."""
    bob.register(schema=SCHEMA)
    key = IdempotencyKey.digest(bob.identity, "open", "open:modifiers:Rotate", "one")
    request = IdempotencyKey.digest('{"angle":1}')
    task_id = new_id()
    answers = []

    def second():
        try:
            answers.append(submit(bob, "one", angle=1))
        finally:
            connections.close_all()

    thread = threading.Thread(target=second)
    with transaction.atomic():
        from zndraw_joblib.models import Job

        IdempotencyKey.objects.reserve(key, request, task_id, timedelta(days=1))
        thread.start()
        thread.join(0.5)
        assert thread.is_alive(), "the second submit did not wait"
        Job.objects.get().enqueue("open", {"angle": 1}, bob.identity, 0, task_id)
    thread.join(20)
    assert [answer.json()["id"] for answer in answers] == [str(task_id)]
    assert Task.objects.count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer at a time")
def test_a_submit_creates_the_task_when_a_concurrent_one_with_its_key_rolls_back(bob):
    bob.register(schema=SCHEMA)
    key = IdempotencyKey.digest(bob.identity, "open", "open:modifiers:Rotate", "one")
    answers = []

    def second():
        try:
            answers.append(submit(bob, "one", angle=1))
        finally:
            connections.close_all()

    thread = threading.Thread(target=second)
    with transaction.atomic():
        IdempotencyKey.objects.reserve(key, "x", new_id(), timedelta(days=1))
        thread.start()
        thread.join(0.5)
        transaction.set_rollback(True)
    thread.join(20)
    assert answers[0].status_code == 202
    assert Task.objects.count() == 1
