"""Races between several threads, each with a database connection of its own."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import connections

from tests.factories import grant_one
from zndraw_joblib.models import Job, Task, Worker, WorkerJobLink
from zndraw_joblib.names import JobName
from zndraw_joblib.services.register import offer

pytestmark = pytest.mark.django_db(transaction=True)

LEASE = timedelta(seconds=60)
NAME = JobName("room", "modifiers", "Rotate")


def run_concurrently(count, work):
    """Call `work(number)` in `count` threads at once; returns the results or raises an error."""
    results, errors = [], []
    ready = threading.Barrier(count)

    def run(number):
        try:
            ready.wait(10)
            results.append(work(number))
        except Exception as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]
    return results


def claim_all(worker):
    taken = []
    while task := grant_one(worker.pk, "bob"):
        taken.append((task.id, task.attempt))
    return taken


def test_concurrent_claims_grant_each_task_exactly_once():
    workers = [Worker.objects.create(identity="bob") for _ in range(6)]
    for worker in workers:
        job = offer(worker, NAME, {}, LEASE)[0]
    for _ in range(90):
        job.enqueue("room", {}, "alice", 0)
    shares = run_concurrently(6, lambda number: claim_all(workers[number]))
    granted = [grant for share in shares for grant in share]
    assert len(granted) == len(set(granted)) == 90


def test_one_of_many_concurrent_reports_wins():
    worker = Worker.objects.create(identity="bob")
    offer(worker, NAME, {}, LEASE)[0].enqueue("room", {}, "alice", 0)
    task = grant_one(worker.pk, "bob")
    row = Task.objects.filter(pk=task.id)
    row.start()
    verbs = [row.complete, row.cancel, lambda: row.fail("x"), row.complete]
    won = [changed for changed in run_concurrently(4, lambda number: verbs[number]()) if changed]
    assert len(won) == 1
    assert Task.objects.get().status == won[0][0].status


def test_concurrent_registrations_of_a_new_job_create_one_job():
    workers = [Worker.objects.create(identity="bob") for _ in range(6)]
    created = run_concurrently(6, lambda number: offer(workers[number], NAME, {"a": 1}, LEASE)[1])
    assert sorted(created) == [False] * 5 + [True]
    assert Job.objects.count() == 1
    assert WorkerJobLink.objects.count() == 6
