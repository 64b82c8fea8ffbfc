"""Tasks that are due later cost neither a claim nor a queue position anything."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.database.test_verbs import LEASE, NAME, submit
from tests.factories import grant_one
from tests.plans import copy_task, plan
from zndraw_joblib.models import Task, Worker
from zndraw_joblib.services.register import offer
from zndraw_joblib.storage.clock import Now
from zndraw_joblib.storage.ids import new_id
from zndraw_joblib.storage.rows import NewTask

pytestmark = pytest.mark.django_db


@pytest.fixture
def worker():
    return Worker.objects.create(identity="bob")


@pytest.fixture
def job(worker):
    return offer(worker, NAME, {}, LEASE)[0]


@pytest.fixture
def future(job):
    """Some 5,000 tasks that are due later than now, and 20 that are due."""
    (task,) = submit(job)
    Task.objects.filter(pk=task.id).update(run_at=Now() + timedelta(days=1))
    copy_task(5000)
    due = submit(job, 20)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    return due


VERBS = {
    "claim": lambda worker, job, due: grant_one(worker.pk, "bob"),
    "claim many": lambda worker, job, due: Task.objects.grant(worker.pk, "bob", LEASE, 10),
    "submit": lambda worker, job, due: job.enqueue("room", {}, "alice"),
    "read many": lambda worker, job, due: Task.objects.read([task.id for task in due]),
}


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_the_time_is_part_of_the_search_in_the_index(worker, job, future, verb):
    """Control: as a filter over the index, the time would be compared for each future task."""
    with CaptureQueriesContext(connection) as queries:
        verb(worker, job, future)
    found = plan(queries[-1]["sql"])
    assert "joblib_task_claim" in found, found
    if connection.vendor == "postgresql":
        searches = re.findall(
            r'"Index Name": "joblib_task_claim"[^}]*?"Index Cond": "([^"]*)"', found
        )
        assert searches
        assert all("due_at <= statement_timestamp()" in search for search in searches), found
        assert not re.search(r'"Filter": "[^"]*due_at', found), found
    else:
        searches = re.findall(r"joblib_task_claim \(([^)]*)\)", found)
        assert searches
        assert all("due_at<?" in search for search in searches), found


@pytest.mark.usefixtures("future")
def test_future_tasks_are_neither_granted_nor_counted(worker, job):
    positions = sorted(
        task.queue_position
        for task in Task.objects.read(
            Task.objects.filter(run_at=None).values_list("pk", flat=True)
        ).values()
    )
    assert positions == list(range(1, 21))
    assert job.enqueue("room", {}, "alice").queue_position == 21
    granted = Task.objects.grant(worker.pk, "bob", LEASE, 500)
    assert len(granted) == 21
    assert grant_one(worker.pk, "bob") is None


def test_tasks_of_the_same_time_are_granted_in_the_order_of_their_submits(worker, job):
    new = {new_id(): NewTask({}, delay=60) for _ in range(5)}
    Task.objects.enqueue(job, "room", "alice", 0, new)
    Task.objects.update(run_at=Now(), created_at=Now() - timedelta(hours=1))
    granted = [grant_one(worker.pk, "bob").id for _ in range(5)]
    assert granted == list(new)


def test_no_statement_may_write_the_time_at_which_a_task_is_due(worker, job):
    (task,) = submit(job)
    for run_at in (None, Now() - timedelta(hours=1)):
        Task.objects.filter(pk=task.id).update(run_at=run_at)
        row = Task.objects.get()
        assert row.due_at == row.created_at
    Task.objects.filter(pk=task.id).update(run_at=Now() + timedelta(hours=1))
    row = Task.objects.get()
    assert row.due_at == row.run_at
