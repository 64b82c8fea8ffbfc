"""Races of the removal of a worker."""

from __future__ import annotations

import pytest
from django.db.models.sql import DeleteQuery

from tests.database.test_interleavings import ConcurrentCall, Gate, postgres_only, stop_before
from zndraw_joblib.models import Worker, WorkerJobLink

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def worker(bob):
    worker_id = bob.worker()
    bob.register(worker_id=worker_id)
    return worker_id


@postgres_only
def test_a_registration_beside_the_removal_of_its_worker_waits_and_finds_no_worker(
    bob, worker, monkeypatch
):
    """Control: a deadlock, if the removal deletes the links before it locks the worker."""
    gate = Gate()
    with stop_before(monkeypatch, DeleteQuery, "delete_batch", gate):
        removing = ConcurrentCall(lambda: bob.send("delete", f"/workers/{worker}").status_code)
        assert gate.reached.wait(10)
        registering = ConcurrentCall(lambda: bob.register(worker_id=worker).status_code)
        assert registering.is_blocked()
        gate.opened.set()
        assert removing.result() == 204
    assert registering.result() == 404
    assert not WorkerJobLink.objects.exists()
    assert not Worker.objects.exists()
