"""The verbs of the models on a real database: statements, constraints, sweeps."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.factories import grant_one
from zndraw_joblib.exceptions import SchemaConflict, WorkerNotFound
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.models import Job, Task, Worker, WorkerJobLink
from zndraw_joblib.names import JobName
from zndraw_joblib.services.register import offer
from zndraw_joblib.services.sweep import sweep
from zndraw_joblib.storage.rows import Report

LEASE = timedelta(seconds=60)
NAME = JobName("room", "modifiers", "Rotate")
PAST = "2020-01-01T00:00:00Z"

pytestmark = pytest.mark.django_db


@pytest.fixture
def worker():
    return Worker.objects.create(identity="bob")


@pytest.fixture
def job(worker):
    return offer(worker, NAME, {"type": "object"}, LEASE)[0]


def submit(job, count=1, retries=0):
    return [job.enqueue("room", {}, "alice", retries) for _ in range(count)]


def test_a_job_has_a_full_name_and_a_worker_is_alive_within_its_lease(worker, job):
    worker.refresh_from_db()
    assert job.full_name == str(job) == "room:modifiers:Rotate"
    assert worker.is_alive(LEASE)
    assert worker.is_alive(60)
    worker.last_heartbeat = timezone.now() - timedelta(seconds=61)
    assert not worker.is_alive(LEASE)
    assert not worker.is_alive(60)
    assert worker.is_alive(70.5)


@pytest.mark.parametrize(
    ("name", "invalid"),
    [
        ("joblib_task_status_known", {"status": "nonsense"}),
        ("joblib_task_terminal_completed", {"status": "completed"}),
    ],
)
def test_constraints_refuse_unknown_statuses_and_ends_without_a_time(job, name, invalid):
    (task,) = submit(job)
    with pytest.raises(IntegrityError, match=name), transaction.atomic():
        Task.objects.filter(pk=task.id).update(**invalid)


def test_jobs_and_links_are_unique(job, worker):
    with pytest.raises(IntegrityError), transaction.atomic():
        Job.objects.create(room_id="room", category="modifiers", name="Rotate", schema={})
    with pytest.raises(IntegrityError), transaction.atomic():
        WorkerJobLink.objects.create(worker=worker, job=job)


def test_claim_start_and_finish_take_one_statement_each(job, worker):
    submit(job)
    with CaptureQueriesContext(connection) as claim:
        task = grant_one(worker.pk, "bob")
        assert task.job_name == "room:modifiers:Rotate"
    start_report = Report(task.id, TaskStatus.RUNNING, 1)
    end_report = Report(task.id, TaskStatus.COMPLETED, 1)
    with CaptureQueriesContext(connection) as start:
        assert Task.objects.move([start_report], "bob")[0].status == "running"
    with CaptureQueriesContext(connection) as finish:
        assert Task.objects.move([end_report], "bob")[0].is_terminal
    assert [len(queries) for queries in (claim, start, finish)] == [1, 1, 1]


def test_the_oldest_task_of_all_jobs_is_granted_first(worker):
    names = [JobName("room", "modifiers", name) for name in "ABC"]
    jobs = [offer(worker, name, {}, LEASE)[0] for name in names[:2]]
    other = offer(Worker.objects.create(identity="carol"), names[2], {}, LEASE)[0]
    order = [jobs[1], jobs[0], other, jobs[0], jobs[1]]
    tasks = [submit(job)[0] for job in order]
    granted = []
    while task := grant_one(worker.pk, "bob"):
        granted.append(task.id)
    assert granted == [task.id for task in tasks if task.job_id != other.pk]
    assert grant_one(worker.pk, "carol") is None


def test_a_sweep_ends_tasks_of_dead_workers(job, worker):
    retried, failed, claimed, living = submit(job, 4)
    for task in (retried, failed, claimed, living):
        assert grant_one(worker.pk, "bob").id == task.id
    Task.objects.filter(pk__in=[retried.id, failed.id]).start()
    Task.objects.filter(pk=retried.id).update(retries_left=1)
    Task.objects.exclude(pk=living.id).update(lease_expires_at=PAST)
    report = sweep()
    assert (report.requeued, report.retried, report.failed) == (1, 1, 1)
    assert (report.workers, report.jobs) == (0, 0)
    states = dict(Task.objects.values_list("pk", "status"))
    assert states == {
        retried.id: "pending",
        failed.id: "failed",
        claimed.id: "pending",
        living.id: "claimed",
    }
    failed = Task.objects.get(pk=failed.id)
    assert failed.error == f"Worker '{worker.pk}' timed out"
    assert failed.completed_at is not None
    retried = Task.objects.get(pk=retried.id)
    assert (retried.retries_left, retried.worker_id, retried.attempt) == (0, None, 1)
    counts = "requeued=0 retried=0 failed=0 workers=0 jobs=0 keys=0 files=0 pruned=0"
    assert str(sweep()) == counts
    assert grant_one(worker.pk, "bob").attempt == 2


def test_a_sweep_processes_several_batches(job, worker, monkeypatch):
    monkeypatch.setattr("zndraw_joblib.storage.locking.BATCH", 2)
    submit(job, 5)
    while grant_one(worker.pk, "bob"):
        pass
    for _ in range(4):
        Worker.objects.create(identity="dead")
    Task.objects.update(lease_expires_at=PAST)
    Worker.objects.filter(identity="dead").update(last_heartbeat=PAST)
    report = sweep()
    assert (report.requeued, report.workers) == (5, 4)


def test_jobs_are_retired_only_without_workers_and_unfinished_tasks(job, worker):
    (task,) = submit(job)
    Worker.objects.update(last_heartbeat=PAST)
    report = sweep()
    assert (report.workers, report.jobs) == (1, 0)
    Task.objects.all().cancel()
    assert sweep().jobs == 1
    job.refresh_from_db()
    assert job.retired_at is not None
    assert Job.objects.live().count() == 0
    task = Task.objects.get(pk=task.id)
    assert task.job_name == "room:modifiers:Rotate"
    again, new = offer(Worker.objects.create(identity="bob"), NAME, {"title": "other"}, LEASE)
    assert new
    assert again.pk == job.pk


def test_a_removed_worker_cannot_register(worker):
    Worker.objects.all().delete()
    with pytest.raises(WorkerNotFound):
        offer(worker, NAME, {}, LEASE)
    assert not Job.objects.exists()


def test_a_schema_conflict_keeps_the_stored_schema(job, worker):
    with pytest.raises(SchemaConflict):
        offer(worker, NAME, {"type": "string"}, LEASE)
    job.refresh_from_db()
    assert job.schema == {"type": "object"}


def test_signals_are_sent_after_the_commit(job, worker, django_capture_on_commit_callbacks):
    from zndraw_joblib import signals

    received = []

    def receive(sender, task, signal, **kwargs):
        received.append((names[signal], task.status))

    names = {
        signals.task_submitted: "submitted",
        signals.task_claimed: "claimed",
        signals.task_started: "started",
        signals.task_requeued: "requeued",
        signals.task_finished: "finished",
    }
    for signal in names:
        signal.connect(receive)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            submit(job)
            held = Task.objects.filter(pk=grant_one(worker.pk, "bob").id)
            held.start()
            held.requeue()
            held.cancel()
            assert held.complete() == []
            assert received == []
    finally:
        for signal in names:
            signal.disconnect(receive)
    assert received == [
        ("submitted", "pending"),
        ("claimed", "claimed"),
        ("started", "running"),
        ("requeued", "pending"),
        ("finished", "cancelled"),
    ]


def test_an_error_in_a_receiver_does_not_undo_the_change(job, django_capture_on_commit_callbacks):
    from zndraw_joblib import signals

    def fail(**kwargs):
        raise RuntimeError("receiver")

    signals.task_submitted.connect(fail)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            submit(job)
    finally:
        signals.task_submitted.disconnect(fail)
    assert Task.objects.count() == 1


INDEXES = {"joblib_task_claim", "joblib_task_lease", "joblib_task_worker"}


def test_indexes_and_constraints_have_names():
    assert {index.name for index in Task._meta.indexes} >= INDEXES
    with connection.cursor() as cursor:
        constraints = connection.introspection.get_constraints(cursor, Task._meta.db_table)
    assert set(constraints) >= INDEXES
    assert {"joblib_task_status_known", "joblib_task_terminal_completed"} <= set(constraints)
