"""The lists of tasks over all rooms read an index, and never the whole table."""

from __future__ import annotations

import itertools
import re

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.database.test_verbs import LEASE, NAME, submit
from tests.plans import copy_task, plan
from zndraw_joblib.models import Task, Worker
from zndraw_joblib.services.register import offer
from zndraw_joblib.storage.ids import new_id
from zndraw_joblib.storage.lists import MAX_READ, Filter, newest

pytestmark = pytest.mark.django_db

FILTERS = {
    "all": Filter(),
    "status": Filter(status="failed"),
    "job": Filter(job_id=new_id()),
    "room": Filter(room_id="unknown"),
    "status, job and room": Filter("pending", new_id(), "room"),
}


@pytest.fixture(scope="module")
def many_tasks(django_db_setup, django_db_blocker):
    """Some 20,000 tasks, of which half have ended: of Alice, of Dave and a few of Carol.

    So many, and not nearly all of Alice, because reading the whole of a small table is cheaper.
    """
    with django_db_blocker.unblock(), transaction.atomic():
        make_tasks()
        yield
        transaction.set_rollback(True)


def make_tasks():
    job = offer(Worker.objects.create(identity="bob"), NAME, {}, LEASE)[0]
    submit(job, 10)
    copy_task(20_000)
    pending = Task.objects.filter(status="pending").values_list("pk", flat=True)
    ended = list(pending.order_by("-pk")[:10_000])
    Task.objects.filter(pk__in=ended).update(status="failed", completed_at=timezone.now())
    daves = [*ended[: len(ended) * 2 // 3], *pending[: pending.count() * 2 // 3]]
    Task.objects.filter(pk__in=daves).update(created_by="dave")
    Task.objects.filter(pk__in=list(pending[:10])).update(created_by="carol")
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


@pytest.mark.slow
@pytest.mark.usefixtures("many_tasks")
def test_a_page_is_read_from_an_index():
    """One test for all filters, because its tasks take longer to make than to list."""
    place = (timezone.now(), Task.objects.order_by("pk").values_list("pk", flat=True)[10_000])
    creators = ("alice", "carol", None)
    for created_by, name, before in itertools.product(creators, FILTERS, (None, place)):
        with CaptureQueriesContext(connection) as queries:
            newest(created_by, FILTERS[name], 50, before)
        found = f"{created_by}, {name}, {before}: {plan(queries[-1]['sql'])}"
        assert len(queries) == 1
        index = "joblib_task_creator" if created_by else "pkey"
        if connection.vendor == "postgresql" or created_by:
            assert index in found, found
        assert not re.search(r'"Seq Scan"[^{}]*"Relation Name": "zndraw_joblib_task"', found), found
        assert not re.search(r"SCAN (task|newest)\b(?! USING)", found), found
        assert '"Node Type": "Sort", "Parent Relationship": "Inner"' not in found, found


@pytest.mark.slow
@pytest.mark.usefixtures("many_tasks")
def test_a_filter_reads_no_more_than_a_thousand_tasks():
    for created_by in ("alice", None):
        place, pages = None, 0
        while pages == 0 or place:
            found = newest(created_by, FILTERS["job"], 50, place)
            assert found.ids == []
            place, pages = found.last, pages + 1
        tasks = Task.objects.filter(created_by=created_by) if created_by else Task.objects.all()
        assert pages == tasks.count() // MAX_READ + 1
