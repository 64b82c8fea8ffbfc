"""No statement of a hot path reads the whole table of tasks, whatever the planner knows of it."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.factories import grant_one
from tests.plans import copy_task, plan
from zndraw_joblib.events.queries import jobs_with_pending_tasks
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.models import Task, Worker
from zndraw_joblib.names import JobName
from zndraw_joblib.services import observation
from zndraw_joblib.services.register import offer
from zndraw_joblib.storage import changes, waits
from zndraw_joblib.storage.corrections import cap_leases, cap_submits
from zndraw_joblib.storage.rows import Report

LEASE = timedelta(seconds=60)
NAME = JobName("room", "modifiers", "Rotate")

pytestmark = [pytest.mark.django_db, pytest.mark.slow]


#: The index that a verb's statement must use, by the verb's label.
HOT = {
    "claim": ("joblib_task_claim", lambda w, j, held: grant_one(w.pk, "bob")),
    # Few of the 5,000, because a scan of a short table may be cheaper than many look-ups.
    "claim many": (
        "joblib_task_claim",
        lambda w, j, held: Task.objects.grant(w.pk, "bob", LEASE, 20),
    ),
    "submit": ("joblib_task_claim", lambda w, j, held: j.enqueue("room", {}, "alice")),
    "start": (
        "pkey",
        lambda w, j, held: Task.objects.move([held[0]._replace(status=TaskStatus.RUNNING)], "bob"),
    ),
    "finish many": (
        "pkey",
        lambda w, j, held: Task.objects.move(held, "bob"),
    ),
    "heartbeat": ("joblib_task_worker", lambda w, j, held: Task.objects.renew(w.pk, LEASE, None)),
    "heartbeat of some": (
        "pkey",
        lambda w, j, held: Task.objects.renew(w.pk, LEASE, [(r.task_id, 1) for r in held]),
    ),
    "sweep": ("joblib_task_lease", lambda w, j, held: Task.objects.recover_expired("timed out")),
    "cap leases": ("joblib_task_lease", lambda w, j, held: cap_leases("default", LEASE)),
    "cap submits": ("joblib_task_claim", lambda w, j, held: cap_submits("default")),
    "leave": ("joblib_task_worker", lambda w, j, held: Task.objects.recover_from(w.pk, "left")),
    "watch": ("pkey", lambda w, j, held: waits.watch("default", [r.task_id for r in held])),
    "read grants": (
        "pkey",
        lambda w, j, held: waits.grant_states(
            "default", [waits.Grant(r.task_id, 1, w.pk, "bob") for r in held]
        ),
    ),
    "due jobs": ("joblib_task_claim", lambda w, j, held: jobs_with_pending_tasks([j.pk])),
    "queues": ("joblib_task_claim", lambda w, j, held: observation.queues()),
    "held tasks": ("joblib_task_lease", lambda w, j, held: observation.held()),
    "changes of a room": (
        "joblib_task_room_changed",
        lambda w, j, held: changes.look_at("default", ["room"], timezone.now()),
    ),
    "queue of a room": (
        "joblib_task_room_status",
        lambda w, j, held: changes.queued("default", ["room"]),
    ),
    "list": ("joblib_task_room_status", lambda w, j, held: Task.objects.newest("room", 50)),
    "list, next page": (
        "joblib_task_room_status",
        lambda w, j, held: Task.objects.newest("room", 50, (timezone.now(), held[0].task_id)),
    ),
}


@pytest.fixture(scope="module", params=["current", "from before a rush"])
def backlog(request, django_db_setup, django_db_blocker):
    """A worker, its job, and reports on 20 of 40 held tasks, among some 5,000 of which half ended.

    The planner's statistics of the table are current, or from when the queue was nearly empty.
    The tests of a module share them in one transaction, and each takes back its own changes.
    """
    with django_db_blocker.unblock(), transaction.atomic():
        worker = Worker.objects.create(identity="bob")
        job = offer(worker, NAME, {"type": "object"}, LEASE)[0]
        for _ in range(40):
            job.enqueue("room", {}, "alice", 0)
        copy_task(5000)
        held = Task.objects.grant(worker.pk, "bob", LEASE, 40, start=True)
        pending = Task.objects.filter(status="pending")
        end(pending.order_by("-pk")[:2500])
        analyze()
        if request.param != "current":
            rush = end(pending.order_by("-pk")[50:])
            analyze()
            rush.update(status="pending", completed_at=None)
        yield (
            worker,
            job,
            [Report(task.id, TaskStatus.COMPLETED, task.attempt) for task in held[:20]],
        )
        transaction.set_rollback(True)


def end(tasks):
    """Let these tasks fail; returns a queryset of them."""
    chosen = Task.objects.filter(pk__in=list(tasks.values_list("pk", flat=True)))
    chosen.update(status="failed", completed_at=timezone.now())
    return chosen


def analyze():
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


@pytest.mark.parametrize(("index", "verb"), HOT.values(), ids=HOT)
def test_no_hot_statement_reads_the_whole_table(backlog, index, verb):
    with CaptureQueriesContext(connection) as queries:
        verb(*backlog)
    used = [query["sql"] for query in queries if "zndraw_joblib_task" in query["sql"]]
    found = "\n".join(plan(sql) for sql in used)
    if connection.vendor == "postgresql" or index != "pkey":
        assert index in found, found
    # This index would lead to a job's oldest task only by a scan of the room's whole queue.
    assert index != "joblib_task_claim" or "joblib_task_room_status" not in found, found
    assert not re.search(r'"Seq Scan"[^{}]*"Relation Name": "zndraw_joblib_task"', found), found
    assert not re.search(r"SCAN (zndraw_joblib_task|held|head)\b(?! USING)", found), found
