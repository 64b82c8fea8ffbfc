"""Attempts that end while something else changes the task; each race has a control."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction

from tests.database.test_interleavings import (
    PAST,
    ConcurrentCall,
    Gate,
    claim_and_start,
    postgres_only,
    replace_in_statement,
    status_of,
    stop_before,
)
from tests.factories import ROTATE, problem
from zndraw_joblib.models import Job, Task, TaskAttempt
from zndraw_joblib.services.jobs import retire
from zndraw_joblib.services.sweep import sweep
from zndraw_joblib.storage import attempts
from zndraw_joblib.storage.clock import Now

pytestmark = pytest.mark.django_db(transaction=True)

JOB = f"/rooms/open/tasks/open:{ROTATE}"


@pytest.fixture
def worker(bob):
    worker = bob.worker()
    bob.register(worker_id=worker, retry={"max_retries": 5, "backoff_seconds": 0})
    return worker


@pytest.fixture
def task(alice, bob, worker):
    """The id of a task that Bob's worker runs, with five retries."""
    alice.send("post", JOB, {})
    return claim_and_start(bob, worker)["id"]


def outcomes():
    return list(TaskAttempt.objects.order_by("attempt").values_list("attempt", "outcome"))


def left():
    return Task.objects.get().retries_left


@postgres_only
def test_a_cancel_waits_for_a_failure_that_is_about_to_be_retried(alice, bob, task, monkeypatch):
    gate = Gate()
    with stop_before(monkeypatch, attempts, "LockedAttempt", gate):
        failure = ConcurrentCall(lambda: bob.report(task, "failed", attempt=1))
        assert gate.reached.wait(30)
        cancel = ConcurrentCall(lambda: alice.report(task, "cancelled"))
        assert cancel.is_blocked()
        gate.opened.set()
        assert failure.result().json()["status"] == "pending"
    # The task was pending again by then, and a pending task may be cancelled.
    assert cancel.result().json()["status"] == "cancelled"
    assert (status_of(task), outcomes()) == ("cancelled", [(1, "failed")])


@postgres_only
@pytest.mark.parametrize("guard", [True, False])
def test_a_failure_with_retries_loses_to_a_cancel(alice, bob, task, guard, monkeypatch):
    """Control: without the status in the lock's condition a cancelled task would run again."""
    if not guard:
        condition = "COALESCE(held.status, '') = ANY(report.legal_from)"
        replace_in_statement(monkeypatch, "lock_reported", condition, "true")
    gate = Gate()
    with stop_before(monkeypatch, attempts, "end_attempts", gate):
        failure = ConcurrentCall(lambda: bob.report(task, "failed", attempt=1))
        assert gate.reached.wait(30)
        assert alice.report(task, "cancelled").status_code == 200
        gate.opened.set()
        answer = failure.result()
    if guard:
        problem(answer, "invalid-task-transition", 409)
        assert (status_of(task), outcomes()) == ("cancelled", [])
    else:
        assert status_of(task) == "pending"


@postgres_only
@pytest.mark.parametrize("guard", [True, False])
def test_a_sweep_skips_a_task_that_is_about_to_be_retried(bob, task, guard, monkeypatch):
    """Control: without the lock both keep a row of the attempt, and wait for each other."""
    if not guard:
        replace_in_statement(monkeypatch, "lock_expired", "FOR UPDATE OF held SKIP LOCKED", "")
    Task.objects.update(lease_expires_at=PAST)
    gate = Gate()
    with stop_before(monkeypatch, attempts, "LockedAttempt", gate):
        failure = ConcurrentCall(lambda: bob.report(task, "failed", attempt=1))
        assert gate.reached.wait(30)
        if guard:
            report = sweep()
            assert (report.retried, report.failed) == (0, 0)
            gate.opened.set()
            failure.result()
            assert (left(), outcomes()) == (4, [(1, "failed")])
        else:
            sweeper = ConcurrentCall(sweep)
            assert sweeper.is_blocked()
            gate.opened.set()
            with pytest.raises(DatabaseError):
                (failure.result(), sweeper.result())


@postgres_only
@pytest.mark.parametrize("guard", [True, False])
def test_two_sweeps_end_an_attempt_once(task, guard, monkeypatch):
    """Control: without the lock both would use up a retry of the same attempt."""
    if not guard:
        replace_in_statement(monkeypatch, "lock_expired", "FOR UPDATE OF held SKIP LOCKED", "")
    Task.objects.update(lease_expires_at=PAST)
    gate = Gate()
    with stop_before(monkeypatch, attempts, "LockedAttempt", gate):
        first = ConcurrentCall(sweep)
        assert gate.reached.wait(30)
        second = sweep()
        gate.opened.set()
        if guard:
            assert (second.retried, first.result().retried) == (0, 1)
        else:
            with pytest.raises(IntegrityError, match="joblib_attempt_unique"):
                first.result()
    assert (left(), outcomes()) == (4, [(1, "lost")])


@postgres_only
@pytest.mark.parametrize("guard", [True, False])
def test_a_failure_of_an_attempt_that_was_lost_meanwhile_leaves_the_next_one_alone(
    bob, worker, task, guard, monkeypatch
):
    """Control: without the attempt in the lock's condition the next attempt would end."""
    if not guard:
        condition = "held.attempt = COALESCE(report.attempt, held.attempt)"
        replace_in_statement(monkeypatch, "lock_reported", condition, "true")
    gate = Gate()
    with stop_before(monkeypatch, attempts, "end_attempts", gate):
        failure = ConcurrentCall(lambda: bob.report(task, "failed", attempt=1))
        assert gate.reached.wait(30)
        Task.objects.update(lease_expires_at=PAST)
        assert sweep().retried == 1
        assert claim_and_start(bob, worker)["attempt"] == 2
        gate.opened.set()
        answer = failure.result()
    if guard:
        problem(answer, "lease-lost", 409)
        assert (status_of(task), outcomes()) == ("running", [(1, "lost")])
    else:
        assert (status_of(task), outcomes()) == ("pending", [(1, "lost"), (2, "failed")])


@postgres_only
def test_two_failures_of_an_attempt_use_up_one_retry(bob, task, monkeypatch):
    gate = Gate()
    with stop_before(monkeypatch, attempts, "LockedAttempt", gate):
        first = ConcurrentCall(lambda: bob.report(task, "failed", attempt=1))
        assert gate.reached.wait(30)
        second = ConcurrentCall(lambda: bob.report(task, "failed", attempt=1))
        # The fixture stops one call only, so this one waits for the lock of the row.
        assert second.is_blocked()
        gate.opened.set()
        answers = [call.result() for call in (first, second)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert [answer.json()["status"] for answer in answers] == ["pending", "pending"]
    assert (left(), outcomes()) == (4, [(1, "failed")])


@postgres_only
def test_a_completion_loses_to_a_failure_that_is_about_to_be_retried(bob, task, monkeypatch):
    gate = Gate()
    with stop_before(monkeypatch, attempts, "LockedAttempt", gate):
        failure = ConcurrentCall(lambda: bob.report(task, "failed", attempt=1))
        assert gate.reached.wait(30)
        complete = ConcurrentCall(lambda: bob.report(task, "completed", attempt=1, result=1))
        assert complete.is_blocked()
        gate.opened.set()
        failure.result()
    problem(complete.result(), "invalid-task-transition", 409)
    assert Task.objects.get().result is None


def test_an_attempt_has_one_row(bob, worker, task):
    Task.objects.get().requeue()
    (kept,) = TaskAttempt.objects.all()
    kept.pk = None
    with pytest.raises(IntegrityError), transaction.atomic():
        kept.save(force_insert=True)


def test_an_unknown_outcome_is_refused(bob, worker, task):
    Task.objects.get().requeue()
    with pytest.raises(IntegrityError, match="joblib_attempt_outcome_known"), transaction.atomic():
        TaskAttempt.objects.update(outcome="won")


def test_a_failure_that_rolls_back_keeps_no_attempt(bob, task):
    with transaction.atomic():
        assert bob.report(task, "failed", attempt=1).json()["status"] == "pending"
        transaction.set_rollback(True)
    assert (status_of(task), left(), outcomes()) == ("running", 5, [])


@postgres_only
@pytest.mark.parametrize("guard", [True, False])
def test_a_submit_waits_for_the_retirement_of_its_job(alice, worker, guard, monkeypatch):
    """Control: without the lock of the job the submit is accepted for a job that is gone."""
    if not guard:
        replace_in_statement(monkeypatch, "insert_tasks", "FOR SHARE", "")
    # The job is cached.
    alice.report(alice.send("post", JOB, {}).json()["id"], "cancelled")
    with transaction.atomic():
        Job.objects.select_for_update().get()
        Job.objects.update(retired_at=Now())
        submit = ConcurrentCall(lambda: alice.send("post", JOB, {}))
        # Also without the guard, because the foreign key waits too, but reads the job no more.
        assert submit.is_blocked()
    answer = submit.result()
    assert answer.status_code == (404 if guard else 202)


@postgres_only
@pytest.mark.parametrize("guard", [True, False])
def test_a_registration_that_comes_during_a_retirement_keeps_its_offer(
    alice, bob, worker, guard, monkeypatch
):
    """Control: a retirement without the lock deletes the link of the later registration."""
    gate = Gate()
    owner = type(Job.objects.all())
    if not guard:
        monkeypatch.setattr(owner, "select_for_update", lambda self, **_: self)
    with stop_before(monkeypatch, Job, "save", gate):
        retirement = ConcurrentCall(lambda: alice.send("delete", f"/rooms/open/jobs/open:{ROTATE}"))
        assert gate.reached.wait(30)
        other = ConcurrentCall(lambda: bob.register(worker_id=worker))
        assert other.is_blocked() == guard
        gate.opened.set()
        assert retirement.result().status_code == 204
    assert other.result().status_code == (201 if guard else 200)
    job = Job.objects.get()
    assert (job.retired_at is None, job.links.count()) == ((True, 1) if guard else (False, 0))


def test_the_retirement_of_a_job_takes_few_statements(root, rf):
    from django.test.utils import CaptureQueriesContext

    from zndraw_joblib.access import Caller

    root.register()
    request = rf.get("/")
    request.user = root.user
    with CaptureQueriesContext(connection) as queries:
        retire(Caller(request), "open", f"open:{ROTATE}")
    assert len([query for query in queries if "zndraw_joblib" in query["sql"]]) == 4
