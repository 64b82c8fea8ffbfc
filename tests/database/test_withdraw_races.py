"""Races of the withdrawal of a job."""

from __future__ import annotations

import pytest
from django.db import transaction

from tests.database.test_interleavings import ConcurrentCall, postgres_only
from zndraw_joblib.models import Task, WorkerJobLink

pytestmark = pytest.mark.django_db(transaction=True)

JOB = "open:modifiers:Rotate"


@pytest.fixture
def worker(bob):
    worker_id = bob.worker()
    bob.register(worker_id=worker_id)
    return worker_id


def withdraw(person, worker):
    return person.send("delete", f"/workers/{worker}/jobs/{JOB}").status_code


@postgres_only
def test_of_two_concurrent_withdrawals_the_second_waits_and_finds_nothing(bob, worker):
    """Control: the second is answered 204 too if the link is read before it is deleted."""
    with transaction.atomic():
        assert withdraw(bob, worker) == 204
        second = ConcurrentCall(lambda: withdraw(bob, worker))
        assert second.is_blocked()
    assert second.result() == 404


@postgres_only
def test_a_registration_waits_for_a_concurrent_withdrawal_and_is_not_lost(bob, worker):
    with transaction.atomic():
        assert withdraw(bob, worker) == 204
        registering = ConcurrentCall(lambda: bob.register(worker_id=worker))
        assert registering.is_blocked()
    assert registering.result().json()["worker_count"] == 1
    assert WorkerJobLink.objects.get().worker_id == worker


@postgres_only
def test_a_withdrawal_after_an_uncommitted_registration_finds_nothing(bob, carol):
    worker = bob.worker()
    with transaction.atomic():
        assert bob.register(worker_id=worker).status_code == 201
        assert ConcurrentCall(lambda: withdraw(bob, worker)).result() == 404
    assert WorkerJobLink.objects.get().worker_id == worker


@postgres_only
def test_a_withdrawal_beside_a_claim_leaves_the_task_to_the_worker(bob, alice, worker):
    alice.submit()
    with transaction.atomic():
        task = bob.claim(worker)
        assert ConcurrentCall(lambda: withdraw(bob, worker)).result() == 204
    assert bob.report(task["id"], "running", attempt=1).status_code == 200
    assert Task.objects.get().worker_id == worker


@postgres_only
def test_a_claim_beside_a_withdrawal_is_granted_or_the_task_stays_pending(bob, alice, worker):
    first = alice.submit().json()
    with transaction.atomic():
        assert withdraw(bob, worker) == 204
        granted = ConcurrentCall(lambda: bob.claim(worker)).result()
        assert granted["id"] == first["id"]
    second = alice.submit().json()
    assert bob.claim(worker) is None
    assert dict(Task.objects.values_list("id", "status")) == {
        Task.objects.get(pk=first["id"]).pk: "claimed",
        Task.objects.get(pk=second["id"]).pk: "pending",
    }
