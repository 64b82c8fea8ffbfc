"""Races between two database connections, stopped by locks and barriers at the critical step.

Each interleaving has a control: the same steps without the guard, which must show the anomaly,
because a test of a race that cannot fail proves nothing.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

import pytest
from django.db import IntegrityError, connection, connections, transaction

from tests.factories import grant_one, problem
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.models import IdempotencyKey, Job, Task, Worker, WorkerJobLink
from zndraw_joblib.names import JobName
from zndraw_joblib.services.register import offer
from zndraw_joblib.services.sweep import sweep
from zndraw_joblib.services.workers import deregister
from zndraw_joblib.storage import jobs, rows, statements, workers
from zndraw_joblib.storage.ids import new_id
from zndraw_joblib.storage.rows import Report
from zndraw_joblib.storage.tasks import TaskManager
from zndraw_joblib.storage.workers import WorkerQuerySet

pytestmark = pytest.mark.django_db(transaction=True)

LEASE = timedelta(seconds=60)
PAST = "2020-01-01T00:00:00Z"
NAME = JobName("open", "modifiers", "Rotate")
JOB = "/rooms/open/tasks/open:modifiers:Rotate"
postgres_only = pytest.mark.skipif(
    connection.vendor != "postgresql",
    reason="needs two concurrent writers; SQLite has one writer at a time",
)


class ConcurrentCall(threading.Thread):
    """A call in a thread with a database connection of its own; `result()` waits for its value."""

    def __init__(self, work):
        super().__init__(daemon=True)
        self.work, self.value, self.error = work, None, None
        self.start()

    def run(self):
        try:
            self.value = self.work()
        except BaseException as error:
            self.error = error
        finally:
            connections.close_all()

    def is_blocked(self, seconds=0.4):
        """Whether the call has not returned within this time, because it waits for a lock."""
        self.join(seconds)
        return self.is_alive()

    def result(self):
        self.join(30)
        assert not self.is_alive(), "the call did not return"
        if self.error:
            raise self.error
        return self.value


class Gate:
    """Blocks the threads that call `hold`, until opened."""

    def __init__(self):
        self.reached, self.opened = threading.Event(), threading.Event()

    def hold(self):
        self.reached.set()
        assert self.opened.wait(30)


@contextmanager
def stop_before(monkeypatch, owner, method, gate):
    """Block a `ConcurrentCall` at the gate, before its first call of a method."""
    original = getattr(owner, method)
    once = iter([True])

    def wrapper(*args, **kwargs):
        if isinstance(threading.current_thread(), ConcurrentCall) and next(once, False):
            gate.hold()
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, method, wrapper)
        yield


@pytest.fixture
def no_fence(monkeypatch):
    """A function after which a report needs only the task's id: no attempt, status or owner."""

    def remove_fence():
        ignore_attempts(monkeypatch)
        ignore_statuses(monkeypatch)
        move = TaskManager.move
        monkeypatch.setattr(TaskManager, "move", lambda self, reports, _=None: move(self, reports))

    return remove_fence


def replace_in_statement(monkeypatch, name, old, new):
    """Replace a guard in the text of a SQL statement."""
    texts = statements.load(connection.vendor)
    assert old in texts[name], f"{old!r} is not in the statement {name}; adapt this control to it"
    monkeypatch.setitem(texts, name, texts[name].replace(old, new))


def ignore_statuses(monkeypatch):
    """Let a report change a task of any status."""
    monkeypatch.setattr(rows, "legal_from", lambda status, **_: list(TaskStatus))


def ignore_attempts(monkeypatch):
    """Let a report of any attempt change the task."""
    move = TaskManager.move

    def move_any_attempt(self, reports, identity=None):
        return move(self, [report._replace(attempt=None) for report in reports], identity)

    monkeypatch.setattr(TaskManager, "move", move_any_attempt)


@pytest.fixture
def scene(bob, alice):
    """The id of Bob's worker, registered for a job, and the id of Alice's pending task."""
    worker = bob.worker()
    bob.register(worker_id=worker)
    return worker, alice.submit().json()["id"]


def claim_and_start(bob, worker):
    task = bob.claim(worker)
    assert bob.report(task["id"], "running", attempt=task["attempt"]).status_code == 200
    return task


def status_of(task_id):
    return Task.objects.get(pk=task_id).status


def expire(**also):
    Task.objects.update(lease_expires_at=PAST, **also)


# -- 1 claim against claim


@postgres_only
def test_a_claim_skips_a_locked_task_without_waiting(bob, alice, scene):
    worker, first = scene
    second = alice.submit().json()["id"]
    with transaction.atomic():
        granted = grant_one(worker, bob.identity)
        other = ConcurrentCall(lambda: grant_one(worker, bob.identity)).result()
        third = ConcurrentCall(lambda: grant_one(worker, bob.identity)).result()
    assert (str(granted.id), granted.attempt) == (first, 1)
    assert (str(other.id), other.attempt) == (second, 1)
    assert third is None


@postgres_only
def test_without_skip_locked_a_second_claim_waits_for_the_first(bob, scene, monkeypatch):
    """Control of the test above."""
    worker, _ = scene
    replace_in_statement(monkeypatch, "grant_task", " SKIP LOCKED", "")
    with transaction.atomic():
        assert grant_one(worker, bob.identity)
        second = ConcurrentCall(lambda: grant_one(worker, bob.identity))
        assert second.is_blocked()
    second.result()


def claim_the_same_row_twice(monkeypatch, bob, worker):
    """Whether each of two claims is granted the row that both chose before either wrote it."""
    head = Task.objects.filter(status="pending").order_by("created_at").first().pk
    if connection.vendor == "postgresql":
        replace_in_statement(
            monkeypatch, "grant_task", "SELECT id FROM picked", f"SELECT '{head}'::uuid"
        )
    else:
        chosen = statements.load("sqlite")["grant_task"]
        chosen = chosen[chosen.index("SELECT head.id") : chosen.index(")\nRETURNING")]
        replace_in_statement(monkeypatch, "grant_task", chosen, f"SELECT '{head.hex}'")
    return [bool(grant_one(worker, bob.identity)) for _ in range(2)]


def test_a_task_is_granted_to_one_of_two_claims_that_chose_it(bob, scene, monkeypatch):
    assert claim_the_same_row_twice(monkeypatch, bob, scene[0]) == [True, False]
    assert Task.objects.get().attempt == 1


def test_without_the_condition_one_task_is_granted_to_both_claims(bob, scene, monkeypatch):
    """Control of the test above."""
    if connection.vendor == "postgresql":
        replace_in_statement(
            monkeypatch, "grant_task", "AND COALESCE(task.status, '') = 'pending'", ""
        )
    else:
        replace_in_statement(
            monkeypatch, "grant_task", "WHERE status = 'pending' AND id IN", "WHERE id IN"
        )
    assert claim_the_same_row_twice(monkeypatch, bob, scene[0]) == [True, True]
    assert Task.objects.get().attempt == 2


@postgres_only
def test_concurrent_claims_of_many_grant_no_task_twice(bob, alice, scene):
    """Both claims find the same oldest tasks."""
    for _ in range(5):
        alice.submit()
    with transaction.atomic():
        first = Task.objects.grant(scene[0], bob.identity, LEASE, 3)
        claim = ConcurrentCall(lambda: Task.objects.grant(scene[0], bob.identity, LEASE, 3))
        second = claim.result()
    assert [len(first), len(second)] == [3, 3]
    assert not {task.id for task in first} & {task.id for task in second}


@postgres_only
def test_a_claim_of_many_is_not_empty_while_a_task_is_pending(bob, alice, scene):
    """The tasks that the claim chose are locked, but another job has a pending task."""
    bob.register(worker_id=scene[0], name="Other")
    for _ in range(3):
        alice.submit()
    late = alice.submit(job="open:modifiers:Other").json()["id"]
    with transaction.atomic():
        assert len(Task.objects.grant(scene[0], bob.identity, LEASE, 4)) == 4
        claim = ConcurrentCall(lambda: Task.objects.grant(scene[0], bob.identity, LEASE, 3))
        assert [str(task.id) for task in claim.result()] == [late]


# -- 2 cancel against finish


def cancel_against_finish(bob, alice, worker):
    """The submitter cancels a task between the worker's read of its status and the report."""
    task = claim_and_start(bob, worker)
    row = Task.objects.filter(pk=task["id"], worker_identity=bob.identity)
    ids = list(row.filter(status=TaskStatus.RUNNING).values_list("pk", flat=True))
    assert ids
    assert alice.report(task["id"], "cancelled").status_code == 200
    return task, bob.report(task["id"], "completed", attempt=task["attempt"])


def test_a_report_after_a_cancel_is_refused(bob, alice, scene):
    task, late = cancel_against_finish(bob, alice, scene[0])
    problem(late, "invalid-task-transition", 409)
    assert status_of(task["id"]) == "cancelled"


def test_without_the_condition_a_late_report_ends_a_cancelled_task_again(
    bob, alice, scene, no_fence
):
    """Control of the test above."""
    no_fence()
    task, late = cancel_against_finish(bob, alice, scene[0])
    assert late.status_code == 200
    assert status_of(task["id"]) == "completed"


def finish_of(bob, task):
    """A function that writes the report of the task's end, without HTTP."""
    report = Report(UUID(task["id"]), TaskStatus.COMPLETED, task["attempt"])
    return lambda: Task.objects.move([report], bob.identity)


def finish_during(end, bob, task):
    """Report the task's end while `end` is written but not committed.

    Returns the number of tasks that the report changed, and the task's status.
    """
    with transaction.atomic():
        assert end()
        finish = ConcurrentCall(finish_of(bob, task))
        assert finish.is_blocked()
    return len(finish.result()), status_of(task["id"])


def cancel_and_finish_at_once(bob, worker):
    task = claim_and_start(bob, worker)
    return finish_during(Task.objects.filter(pk=task["id"]).cancel, bob, task)


@postgres_only
def test_a_report_waits_for_a_concurrent_cancel_and_loses(bob, scene):
    assert cancel_and_finish_at_once(bob, scene[0]) == (0, "cancelled")


@postgres_only
def test_without_the_condition_a_report_overwrites_a_concurrent_cancel(bob, scene, monkeypatch):
    """Control of the test above."""
    ignore_statuses(monkeypatch)
    assert cancel_and_finish_at_once(bob, scene[0]) == (1, "completed")


# -- 3 sweep against finish


def sweep_against_finish(bob, worker):
    """Report a task's end while a sweep has ended it but not committed.

    On PostgreSQL the report waits for the lock of the row, on SQLite for the only writer.
    """
    task = claim_and_start(bob, worker)
    expire()
    return task, *finish_during(lambda: sweep().failed == 1, bob, task)


def test_a_report_waits_for_a_concurrent_sweep_and_loses(bob, scene):
    task, ended, status = sweep_against_finish(bob, scene[0])
    assert (ended, status) == (0, "failed")
    late = bob.report(task["id"], "completed", attempt=task["attempt"])
    problem(late, "invalid-task-transition", 409)


def test_without_the_condition_a_report_overwrites_a_sweep(bob, scene, monkeypatch):
    """Control of the test above."""
    ignore_statuses(monkeypatch)
    _, ended, status = sweep_against_finish(bob, scene[0])
    assert (ended, status) == (1, "completed")


def finish_against_sweep(bob, worker):
    """Sweep while the report of an expired task's end is written but not committed.

    Returns whether the sweep waited, the number of tasks that it ended, and the task's status.
    """
    task = claim_and_start(bob, worker)
    expire()
    with transaction.atomic():
        assert finish_of(bob, task)()
        sweeping = ConcurrentCall(sweep)
        blocked = sweeping.is_blocked()
    return blocked, sweeping.result().failed, status_of(task["id"])


@postgres_only
def test_a_sweep_skips_a_task_with_an_uncommitted_report(bob, scene):
    assert finish_against_sweep(bob, scene[0]) == (False, 0, "completed")


@postgres_only
def test_without_the_lock_a_sweep_overwrites_a_report(bob, scene, monkeypatch):
    """Control of the test above."""
    replace_in_statement(monkeypatch, "lock_expired", "FOR UPDATE OF held SKIP LOCKED", "")
    assert finish_against_sweep(bob, scene[0]) == (True, 1, "failed")


# -- 4 zombie after requeue


def zombie(bob, worker):
    """Report with the attempt of an expired lease, after the same worker got the task again."""
    old = bob.claim(worker)
    expire()
    assert sweep().requeued == 1
    new = claim_and_start(bob, worker)
    assert (new["id"], new["attempt"]) == (old["id"], old["attempt"] + 1)
    return old, bob.report(old["id"], "completed", attempt=old["attempt"])


def test_a_report_with_an_earlier_attempt_is_refused(bob, scene):
    task, late = zombie(bob, scene[0])
    problem(late, "lease-lost", 409)
    row = Task.objects.get()
    assert (row.status, row.attempt) == ("running", 2)
    assert bob.report(task["id"], "completed", attempt=2).status_code == 200


def test_without_the_fence_an_earlier_attempt_ends_the_task_of_its_successor(
    bob, scene, monkeypatch
):
    """Control of the test above."""
    ignore_attempts(monkeypatch)
    _, late = zombie(bob, scene[0])
    assert late.status_code == 200
    assert status_of(late.json()["id"]) == "completed"


def test_a_report_on_a_requeued_task_is_refused(bob, scene):
    old = claim_and_start(bob, scene[0])
    expire(retries_left=1)
    assert sweep().retried == 1
    late = bob.report(old["id"], "completed", attempt=old["attempt"])
    problem(late, "invalid-task-transition", 409)
    assert status_of(old["id"]) == "pending"


# -- 5, 6 replayed finish and start


def refuse_repeated_reports(monkeypatch):
    """Refuse a report that changes no row, without comparing it with the stored task."""
    from zndraw_joblib.exceptions import InvalidTaskTransition
    from zndraw_joblib.services import report

    def refuse(caller, given, task):
        raise InvalidTaskTransition

    monkeypatch.setattr(report, "_report_without_lease", refuse)


@pytest.mark.parametrize("status", ["running", "completed", "failed"])
def test_a_repeated_report_is_answered_with_the_stored_task(bob, scene, status):
    """A worker repeats a report when the response was lost."""
    task = bob.claim(scene[0]) if status == "running" else claim_and_start(bob, scene[0])
    reports = [bob.report(task["id"], status, attempt=1) for _ in range(3)]
    assert [report.status_code for report in reports] == [200] * 3
    assert reports[0].json() == reports[1].json() == reports[2].json()


@pytest.mark.parametrize("status", ["running", "completed", "failed"])
def test_without_reading_the_stored_task_a_repeated_report_is_refused(
    bob, scene, status, monkeypatch
):
    """Control of the test above."""
    refuse_repeated_reports(monkeypatch)
    task = bob.claim(scene[0]) if status == "running" else claim_and_start(bob, scene[0])
    codes = [bob.report(task["id"], status, attempt=1).status_code for _ in range(2)]
    assert codes == [200, 409]


def test_a_start_repeated_after_the_end_is_refused(bob, scene):
    task = claim_and_start(bob, scene[0])
    bob.report(task["id"], "completed", attempt=1)
    problem(bob.report(task["id"], "running", attempt=1), "invalid-task-transition", 409)
    assert status_of(task["id"]) == "completed"


# -- 7 replayed submit


def replayed_submit(alice):
    body = {"payload": {"angle": 1}}
    ids = [
        alice.send("post", JOB, body, headers={"idempotency-key": '"k"'}).json()["id"]
        for _ in range(2)
    ]
    return len(set(ids)), Task.objects.filter(payload={"angle": 1}).count()


def test_a_repeated_submit_with_a_key_creates_one_task(alice, scene):
    assert replayed_submit(alice) == (1, 1)


def test_without_a_key_a_repeated_submit_creates_a_second_task(alice, scene, monkeypatch):
    """Control of the test above."""
    from zndraw_joblib.api import jobs

    monkeypatch.setattr(jobs, "read_idempotency_key", lambda request: None)
    assert replayed_submit(alice) == (2, 2)


@postgres_only
def test_of_concurrent_submits_with_one_key_the_second_waits_and_gets_the_first_task(bob, scene):
    task_ids = [Task().pk for _ in range(2)]

    def submit(task_id):
        with transaction.atomic():
            reserved = IdempotencyKey.objects.reserve("k", "body", task_id, LEASE)
            if reserved == task_id:
                Job.objects.get().enqueue("open", {}, "alice", 0, task_id)
            return reserved

    with transaction.atomic():
        submit(task_ids[0])
        second = ConcurrentCall(lambda: submit(task_ids[1]))
        assert second.is_blocked()
    assert second.result() == task_ids[0]
    assert not Task.objects.filter(pk=task_ids[1]).exists()


def keyed_submit(task_id, request="body"):
    """Submit with the key ``k``, without HTTP; returns the id of the key's task."""
    with transaction.atomic():
        reserved = IdempotencyKey.objects.reserve("k", request, task_id, LEASE)
        if reserved == task_id:
            Job.objects.get().enqueue("open", {}, "alice", 0, task_id)
        return reserved


def expired_key():
    keyed_submit(new_id(), "long ago")
    IdempotencyKey.objects.update(created_at=PAST)


@postgres_only
def test_of_concurrent_submits_with_an_expired_key_the_second_waits_and_gets_the_first_task(scene):
    expired_key()
    task_id = new_id()
    with transaction.atomic():
        assert keyed_submit(task_id) == task_id
        late = ConcurrentCall(lambda: keyed_submit(new_id()))
        assert late.is_blocked()
    assert late.result() == task_id
    assert IdempotencyKey.objects.get().task_id == task_id
    assert Task.objects.count() == 3


# -- 8 delete-worker against finish


def delete_against_finish(bob, worker):
    task = claim_and_start(bob, worker)
    assert bob.send("delete", f"/workers/{worker}").status_code == 204
    return task, bob.report(task["id"], "completed", attempt=task["attempt"])


def test_a_report_after_the_worker_was_deleted_is_refused(bob, scene):
    _, late = delete_against_finish(bob, scene[0])
    problem(late, "invalid-task-transition", 409)
    row = Task.objects.get()
    assert (row.status, row.error) == ("failed", f"Worker '{scene[0]}' deregistered")
    assert not Worker.objects.exists()


def test_without_the_condition_a_report_ends_a_task_again_after_its_worker_was_deleted(
    bob, scene, no_fence
):
    """Control of the test above."""
    no_fence()
    task, late = delete_against_finish(bob, scene[0])
    assert late.status_code == 200
    assert status_of(task["id"]) == "completed"


def delete_and_finish_at_once(bob, worker):
    task = claim_and_start(bob, worker)

    def delete():
        deregister(Worker.objects.get(pk=worker))
        return True

    return finish_during(delete, bob, task)


@postgres_only
def test_a_report_waits_for_a_concurrent_deletion_of_its_worker_and_loses(bob, scene):
    assert delete_and_finish_at_once(bob, scene[0]) == (0, "failed")


@postgres_only
def test_without_the_condition_a_report_overwrites_the_end_by_a_concurrent_deletion(
    bob, scene, monkeypatch
):
    """Control of the test above."""
    ignore_statuses(monkeypatch)
    assert delete_and_finish_at_once(bob, scene[0]) == (1, "completed")


def start_against_delete(bob, worker):
    """Delete a worker while the start of its task is written but not committed.

    Returns whether the deletion waited, and the task's status.
    """
    task = bob.claim(worker)
    with transaction.atomic():
        assert Task.objects.filter(pk=task["id"]).start()
        deletion = ConcurrentCall(lambda: bob.send("delete", f"/workers/{worker}").status_code)
        blocked = deletion.is_blocked()
    assert deletion.result() == 204
    assert not Worker.objects.exists()
    return blocked, status_of(task["id"])


@postgres_only
def test_a_deletion_of_a_worker_waits_for_a_start_and_ends_the_task(bob, scene):
    assert start_against_delete(bob, scene[0]) == (True, "failed")


@postgres_only
def test_without_waiting_a_deletion_leaves_a_task_running_without_its_worker(
    bob, scene, monkeypatch
):
    """Control of the test above, with a deletion that skips locked rows."""
    replace_in_statement(
        monkeypatch, "lock_of_worker", "FOR UPDATE OF held", "FOR UPDATE OF held SKIP LOCKED"
    )
    assert start_against_delete(bob, scene[0]) == (False, "running")


# -- 9 register against retire


def idle_job(bob):
    bob.register()
    WorkerJobLink.objects.all().delete()
    Worker.objects.all().delete()
    return Worker.objects.create(identity=bob.identity)


@postgres_only
def test_a_registration_before_the_lock_keeps_the_job(bob, monkeypatch):
    """A registration commits after a retirement has begun and before it locks the idle job."""
    worker = idle_job(bob)
    gate = Gate()
    with stop_before(monkeypatch, jobs, "lock_batch", gate):
        retiring = ConcurrentCall(lambda: Job.objects.retire())
        assert gate.reached.wait(10)
        offer(worker, NAME, {}, LEASE)
        gate.opened.set()
        assert retiring.result() == 0
    assert Job.objects.get().retired_at is None


@postgres_only
def test_a_retirement_skips_a_job_with_an_uncommitted_registration(bob):
    worker = idle_job(bob)
    with transaction.atomic():
        offer(worker, NAME, {}, LEASE)
        assert ConcurrentCall(lambda: Job.objects.retire()).result() == 0
    assert Job.objects.get().retired_at is None


@postgres_only
def test_without_the_lock_a_job_is_retired_during_its_registration(bob, monkeypatch):
    """Control of the test above.

    After its wait PostgreSQL checks the job's row again, but not the links to workers.
    """
    worker = idle_job(bob)
    monkeypatch.setattr(
        jobs, "lock_batch", lambda chosen: list(chosen.order_by().values_list("pk", flat=True))
    )
    with transaction.atomic():
        offer(worker, NAME, {}, LEASE)
        retiring = ConcurrentCall(lambda: Job.objects.retire())
        assert retiring.is_blocked()
    assert retiring.result() == 1
    job = Job.objects.get()
    assert job.retired_at is not None
    assert job.workers.count() == 1


# -- 10 submit against retire


def submit_against_retire(bob):
    """Retire a job after a submit has read it and before the submit has written its task.

    An uncommitted row with the task's id blocks the submit between the two, and is rolled back.
    """
    idle_job(bob)
    job = Job.objects.get()
    task_id = new_id()

    def submit():
        return job.enqueue("open", {}, "alice", 0, task_id)

    with transaction.atomic():
        Task.objects.create(id=task_id, job=job, room_id="open", created_by="x", payload={})
        submitting = ConcurrentCall(submit)
        assert submitting.is_blocked()
        retired = ConcurrentCall(lambda: Job.objects.retire()).result()
        transaction.set_rollback(True)
    return retired, submitting.result()


@postgres_only
def test_a_retirement_skips_a_job_with_an_uncommitted_submit(bob):
    """The submit locks the job's row with FOR SHARE."""
    retired, task = submit_against_retire(bob)
    assert (retired, task.status) == (0, "pending")
    assert Job.objects.retire() == 0
    assert Job.objects.get().retired_at is None


@postgres_only
def test_without_the_lock_a_submit_adds_a_task_to_a_retired_job(bob, monkeypatch):
    """Control of the test above: the lock of the foreign key does not conflict with an update."""
    replace_in_statement(monkeypatch, "insert_tasks", "FOR SHARE", "")
    retired, task = submit_against_retire(bob)
    assert (retired, task.status) == (1, "pending")
    assert Job.objects.get().retired_at is not None


@postgres_only
def test_concurrent_submits_to_one_job_do_not_wait_for_each_other(bob):
    idle_job(bob)
    job = Job.objects.get()
    with transaction.atomic():
        job.enqueue("open", {}, "alice")
        ConcurrentCall(lambda: job.enqueue("open", {}, "alice")).result()
    assert Task.objects.count() == 2


@postgres_only
def test_a_submit_waits_for_a_retirement_and_finds_no_job(bob, alice):
    idle_job(bob)
    with transaction.atomic():
        assert Job.objects.retire() == 1
        submit = ConcurrentCall(alice.submit)
        assert submit.is_blocked()
    problem(submit.result(), "job-not-found", 404)
    assert not Task.objects.exists()


# -- 11 two sweepers


def two_sweepers():
    """Sweep while another sweep is written but not committed.

    Returns the numbers of tasks that each retried, and whether the second waited.
    """
    with transaction.atomic():
        first = sweep()
        second = ConcurrentCall(sweep)
        blocked = second.is_blocked()
    return first.retried, second.result().retried, blocked


def test_two_sweepers_take_each_task_once(bob, alice, scene):
    for _ in range(3):
        alice.submit()
    for _ in range(4):
        claim_and_start(bob, scene[0])
    expire(retries_left=5)
    # On SQLite the second waits for the only writer; on PostgreSQL it skips the locked rows.
    assert two_sweepers() == (4, 0, connection.vendor == "sqlite")
    # Each task has lost one retry only.
    assert set(Task.objects.values_list("retries_left", flat=True)) == {4}


@postgres_only
def test_without_the_lock_two_sweepers_take_one_task(bob, scene, monkeypatch):
    """Control of the test above: both sweepers end the attempt, which is kept only once."""
    claim_and_start(bob, scene[0])
    expire(retries_left=5)
    replace_in_statement(monkeypatch, "lock_expired", "FOR UPDATE OF held SKIP LOCKED", "")
    with pytest.raises(IntegrityError, match="joblib_attempt_unique"):
        two_sweepers()


# -- 12 heartbeat against sweep


@postgres_only
def test_a_sweep_skips_a_worker_and_tasks_with_an_uncommitted_heartbeat(bob, scene):
    claim_and_start(bob, scene[0])
    expire()
    Worker.objects.update(last_heartbeat=PAST)
    with transaction.atomic():
        assert Worker.objects.record_heartbeat(scene[0], bob.identity).has_tasks
        assert Task.objects.renew(scene[0], LEASE, None)
        report = ConcurrentCall(sweep).result()
    assert (report.failed, report.workers) == (0, 0)
    assert sweep().workers == 0
    assert status_of(scene[1]) == "running"


@postgres_only
def test_a_sweep_checks_the_heartbeat_again_when_it_locks_a_worker(bob, scene, monkeypatch):
    """The heartbeat commits after the sweep chose the worker and before it locks the row."""
    Worker.objects.update(last_heartbeat=PAST)
    gate = Gate()
    with stop_before(monkeypatch, workers, "lock_batch", gate):
        sweeping = ConcurrentCall(lambda: Worker.objects.stale(LEASE).remove())
        assert gate.reached.wait(10)
        assert bob.send("patch", f"/workers/{scene[0]}").status_code == 200
        gate.opened.set()
        assert sweeping.result() == []
    assert Worker.objects.count() == 1


@postgres_only
def test_without_the_second_check_a_sweep_removes_a_live_worker(bob, scene, monkeypatch):
    """Control of the test above."""
    Worker.objects.update(last_heartbeat=PAST)
    chosen = [worker.pk for worker in Worker.objects.stale(LEASE)]
    assert bob.send("patch", f"/workers/{scene[0]}").status_code == 200
    monkeypatch.setattr(WorkerQuerySet, "stale", lambda self, timeout: self.filter(pk__in=chosen))
    assert Worker.objects.stale(LEASE).remove() == chosen
    assert not Worker.objects.exists()


def test_a_heartbeat_after_the_sweep_is_refused_and_renews_nothing(bob, scene):
    claim_and_start(bob, scene[0])
    expire()
    Worker.objects.update(last_heartbeat=PAST)
    assert sweep().workers == 1
    problem(bob.send("patch", f"/workers/{scene[0]}"), "worker-not-found", 404)
    assert status_of(scene[1]) == "failed"
