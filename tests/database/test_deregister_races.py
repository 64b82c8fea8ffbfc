"""Races of the removal of workers and of their links to jobs."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection, transaction
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


@postgres_only
@pytest.mark.parametrize("deletion", ["sweep", "retirement", "schema"])
def test_links_are_deleted_in_the_order_of_their_keys(bob, carol, deletion):
    """Control: by the order of a plan two deletions may wait for each other, a deadlock."""
    first, second = sorted([bob.worker(), bob.worker()], reverse=True)
    for worker in (first, second):
        bob.register(worker_id=worker)
    links = WorkerJobLink.objects.select_for_update()
    if deletion != "sweep":
        # Its row moves behind the other, as rows do where space is reused.
        link = WorkerJobLink.objects.get(worker=first)
        WorkerJobLink.objects.filter(pk=link.pk).delete()
        link.save(force_insert=True)
    if deletion != "retirement":
        Worker.objects.update(last_heartbeat="2020-01-01T00:00:00Z")

    def delete():
        with connection.cursor() as cursor:
            # The plans of a large table.
            cursor.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
        if deletion == "sweep":
            Worker.objects.stale(timedelta(seconds=60)).remove()
        elif deletion == "retirement":
            assert bob.send("delete", "/rooms/open/jobs/open:modifiers:Rotate").status_code == 204
        else:
            assert carol.register(schema={"type": "object"}).status_code == 200

    with transaction.atomic():
        links.get(worker=first)
        deleting = ConcurrentCall(delete)
        assert deleting.is_blocked()
        assert list(links.filter(worker=second).select_for_update(nowait=True))
    deleting.result()
    assert not WorkerJobLink.objects.filter(worker__in=[first, second]).exists()
