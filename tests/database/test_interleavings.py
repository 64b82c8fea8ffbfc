"""Two real connections, stopped by barriers where it hurts, and what must come out.

Each interleaving has a control: the same steps with the guard taken out, which must show the
anomaly. Without it a test of a race proves nothing.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

import pytest
from django.db import connection, connections, transaction

from tests.factories import grant_one, problem
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.models import IdempotencyKey, Job, Task, Worker, WorkerJobLink
from zndraw_joblib.names import JobName
from zndraw_joblib.services.register import offer
from zndraw_joblib.services.sweep import sweep
from zndraw_joblib.services.workers import deregister
from zndraw_joblib.storage import jobs, statements, tasks, workers
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
    reason="two transactions that write at once; SQLite has one writer at a time",
)


class Other(threading.Thread):
    """Somebody else, on a connection of their own. `result()` is what they got."""

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

    def waits(self, seconds=0.4):
        """Whether they are held up by a lock."""
        self.join(seconds)
        return self.is_alive()

    def result(self):
        self.join(30)
        assert not self.is_alive(), "they never came back"
        if self.error:
            raise self.error
        return self.value


class Gate:
    """Stops whoever passes a point, until opened."""

    def __init__(self):
        self.reached, self.opened = threading.Event(), threading.Event()

    def hold(self):
        self.reached.set()
        assert self.opened.wait(30)


@contextmanager
def stop_before(monkeypatch, owner, method, gate):
    """Stop somebody else's first call of a method at the gate."""
    original = getattr(owner, method)
    once = iter([True])

    def wrapper(*args, **kwargs):
        if isinstance(threading.current_thread(), Other) and next(once, False):
            gate.hold()
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, method, wrapper)
        yield


@pytest.fixture
def no_fence(monkeypatch):
    """Reports and renewals that look at the task's id alone."""

    def take_out():
        attempts_do_not_count(monkeypatch)
        states_do_not_count(monkeypatch)
        moved = TaskManager.move
        monkeypatch.setattr(TaskManager, "move", lambda self, reports, _=None: moved(self, reports))

    return take_out


def change(monkeypatch, name, old, new):
    """Take a guard out of a statement."""
    texts = statements.load(connection.vendor)
    assert old in texts[name], f"{old!r} is not in the statement {name}; take its guard out anew"
    monkeypatch.setitem(texts, name, texts[name].replace(old, new))


def states_do_not_count(monkeypatch):
    """A report is taken whatever state its task is in."""
    monkeypatch.setattr(tasks, "_legal_from", lambda status, *, held_only: list(TaskStatus))


def attempts_do_not_count(monkeypatch):
    """A report is taken whatever attempt it carries."""
    move = TaskManager.move

    def forget(self, reports, identity=None):
        return move(self, [report._replace(attempt=None) for report in reports], identity)

    monkeypatch.setattr(TaskManager, "move", forget)


@pytest.fixture
def scene(bob, alice):
    """Bob's worker offers a job; a task of Alice's is pending. (worker id, task id)"""
    worker = bob.worker()
    bob.register(worker_id=worker)
    return worker, alice.submit().json()["id"]


def claimed(bob, worker):
    return bob.claim(worker)


def run(bob, worker):
    task = bob.claim(worker)
    assert bob.report(task["id"], "running", attempt=task["attempt"]).status_code == 200
    return task


def status_of(task_id):
    return Task.objects.get(pk=task_id).status


def expire(**also):
    Task.objects.update(lease_expires_at=PAST, **also)


# -- 1 claim against claim


@postgres_only
def test_a_second_claim_passes_over_a_locked_task_without_waiting(bob, alice, scene):
    """The second claimer passes over the row that the first holds, and does not wait."""
    worker, first = scene
    second = alice.submit().json()["id"]
    with transaction.atomic():
        mine = grant_one(worker, bob.identity)
        theirs = Other(lambda: grant_one(worker, bob.identity)).result()
        nothing = Other(lambda: grant_one(worker, bob.identity)).result()
    assert (str(mine.id), mine.attempt) == (first, 1)
    assert (str(theirs.id), theirs.attempt) == (second, 1)
    assert nothing is None


@postgres_only
def test_without_skip_locked_a_second_claim_waits_for_the_first(bob, scene, monkeypatch):
    """Control: the second claimer is held up by the first."""
    worker, _ = scene
    change(monkeypatch, "grant_task", " SKIP LOCKED", "")
    with transaction.atomic():
        assert grant_one(worker, bob.identity)
        theirs = Other(lambda: grant_one(worker, bob.identity))
        assert theirs.waits()
    theirs.result()


def claim_what_was_seen(monkeypatch, bob, worker):
    """Two claims that chose the same row before either wrote, as two statements would."""
    head = Task.objects.filter(status="pending").order_by("created_at").first().pk
    if connection.vendor == "postgresql":
        change(monkeypatch, "grant_task", "SELECT id FROM picked", f"SELECT '{head}'::uuid")
    else:
        chosen = statements.load("sqlite")["grant_task"]
        chosen = chosen[chosen.index("SELECT head.id") : chosen.index(")\nRETURNING")]
        change(monkeypatch, "grant_task", chosen, f"SELECT '{head.hex}'")
    return [bool(grant_one(worker, bob.identity)) for _ in range(2)]


def test_one_of_two_claims_that_chose_the_same_task_gets_it(bob, scene, monkeypatch):
    """Both saw the row pending; one is granted it."""
    assert claim_what_was_seen(monkeypatch, bob, scene[0]) == [True, False]
    assert Task.objects.get().attempt == 1


def test_without_the_condition_one_task_is_granted_to_both_claims(bob, scene, monkeypatch):
    """Control: it is granted twice."""
    if connection.vendor == "postgresql":
        change(monkeypatch, "grant_task", "AND COALESCE(task.status, '') = 'pending'", "")
    else:
        change(monkeypatch, "grant_task", "WHERE status = 'pending' AND id IN", "WHERE id IN")
    assert claim_what_was_seen(monkeypatch, bob, scene[0]) == [True, True]
    assert Task.objects.get().attempt == 2


@postgres_only
def test_concurrent_claims_of_many_grant_no_task_twice(bob, alice, scene):
    """Each gets its own, though both saw the same ones as the oldest."""
    for _ in range(5):
        alice.submit()
    with transaction.atomic():
        mine = Task.objects.grant(scene[0], bob.identity, LEASE, 3)
        theirs = Other(lambda: Task.objects.grant(scene[0], bob.identity, LEASE, 3)).result()
    assert [len(mine), len(theirs)] == [3, 3]
    assert not {task.id for task in mine} & {task.id for task in theirs}


@postgres_only
def test_a_claim_of_many_is_not_empty_while_work_is_left(bob, alice, scene):
    """What it chose is held by others; the last task, of another job, is found all the same."""
    bob.register(worker_id=scene[0], name="Other")
    for _ in range(3):
        alice.submit()
    late = alice.submit(job="open:modifiers:Other").json()["id"]
    with transaction.atomic():
        assert len(Task.objects.grant(scene[0], bob.identity, LEASE, 4)) == 4
        claim = Other(lambda: Task.objects.grant(scene[0], bob.identity, LEASE, 3))
        assert [str(task.id) for task in claim.result()] == [late]


# -- 2 cancel against finish


def cancel_against_finish(bob, alice, worker):
    """The worker's report has found its task running when the submitter cancels it."""
    task = run(bob, worker)
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
    """Control: a task that ended ends again."""
    no_fence()
    task, late = cancel_against_finish(bob, alice, scene[0])
    assert late.status_code == 200
    assert status_of(task["id"]) == "completed"


def finish_of(bob, task):
    """What a report of the end does to the rows, without an answer."""
    report = Report(UUID(task["id"]), TaskStatus.COMPLETED, task["attempt"])
    return lambda: Task.objects.move([report], bob.identity)


def finish_beside(end, bob, task):
    """Another end is written and not committed when the worker's comes."""
    with transaction.atomic():
        assert end()
        finish = Other(finish_of(bob, task))
        assert finish.waits()
    return len(finish.result()), status_of(task["id"])


def cancel_and_finish_at_once(bob, worker):
    task = run(bob, worker)
    return finish_beside(Task.objects.filter(pk=task["id"]).cancel, bob, task)


@postgres_only
def test_a_report_waits_for_a_concurrent_cancel_and_loses(bob, scene):
    """The finish waits for the cancel and then changes nothing."""
    assert cancel_and_finish_at_once(bob, scene[0]) == (0, "cancelled")


@postgres_only
def test_without_the_condition_a_report_overwrites_a_concurrent_cancel(bob, scene, monkeypatch):
    """Control: the finish waits, and then ends what was cancelled."""
    states_do_not_count(monkeypatch)
    assert cancel_and_finish_at_once(bob, scene[0]) == (1, "completed")


# -- 3 sweep against finish


def sweep_against_finish(bob, worker):
    """On either database the sweep holds the row, or the only writer's place."""
    task = run(bob, worker)
    expire()
    return task, *finish_beside(lambda: sweep().failed == 1, bob, task)


def test_a_report_waits_for_a_concurrent_sweep_and_loses(bob, scene):
    """The worker's end waits, and then changes nothing."""
    task, ended, status = sweep_against_finish(bob, scene[0])
    assert (ended, status) == (0, "failed")
    late = bob.report(task["id"], "completed", attempt=task["attempt"])
    problem(late, "invalid-task-transition", 409)


def test_without_the_condition_a_report_overwrites_a_sweep(bob, scene, monkeypatch):
    """Control: the worker's end waits, and then undoes the sweep."""
    states_do_not_count(monkeypatch)
    _, ended, status = sweep_against_finish(bob, scene[0])
    assert (ended, status) == (1, "completed")


def finish_against_sweep(bob, worker):
    """The worker's end is written and not committed when a sweep comes."""
    task = run(bob, worker)
    expire()
    with transaction.atomic():
        assert finish_of(bob, task)()
        sweeping = Other(sweep)
        held_up = sweeping.waits()
    return held_up, sweeping.result().failed, status_of(task["id"])


@postgres_only
def test_a_sweep_passes_over_a_task_whose_report_is_under_way(bob, scene):
    """The sweep passes over the row, without waiting."""
    assert finish_against_sweep(bob, scene[0]) == (False, 0, "completed")


@postgres_only
def test_without_the_lock_a_sweep_overwrites_a_report(bob, scene, monkeypatch):
    """Control: a sweep that does not lock what it chose undoes the end."""
    change(monkeypatch, "end_expired_runs", "FOR UPDATE OF held SKIP LOCKED", "")
    assert finish_against_sweep(bob, scene[0]) == (True, 1, "failed")


# -- 4 zombie after requeue


def zombie(bob, worker):
    """A worker sleeps over its lease; the task is granted anew, to the same worker even."""
    old = claimed(bob, worker)
    expire()
    assert sweep().requeued == 1
    new = run(bob, worker)
    assert (new["id"], new["attempt"]) == (old["id"], old["attempt"] + 1)
    return old, bob.report(old["id"], "completed", attempt=old["attempt"])


def test_a_report_with_an_earlier_attempt_is_refused(bob, scene):
    task, late = zombie(bob, scene[0])
    problem(late, "lease-lost", 409)
    row = Task.objects.get()
    assert (row.status, row.attempt) == ("running", 2)
    assert bob.report(task["id"], "completed", attempt=2).status_code == 200


def test_without_the_fence_a_zombie_ends_the_task_of_its_successor(bob, scene, monkeypatch):
    """Control: the zombie ends the task of its successor."""
    attempts_do_not_count(monkeypatch)
    _, late = zombie(bob, scene[0])
    assert late.status_code == 200
    assert status_of(late.json()["id"]) == "completed"


def test_a_zombies_report_on_a_requeued_task_is_refused(bob, scene):
    old = run(bob, scene[0])
    expire(retries_left=1)
    assert sweep().retried == 1
    late = bob.report(old["id"], "completed", attempt=old["attempt"])
    problem(late, "invalid-task-transition", 409)
    assert status_of(old["id"]) == "pending"


# -- 5, 6 replayed finish and start


def no_memory(monkeypatch):
    """A server that takes a repeated report for a wrong one."""
    from zndraw_joblib.exceptions import InvalidTaskTransition
    from zndraw_joblib.services import report

    def refuse(caller, given, task):
        raise InvalidTaskTransition

    monkeypatch.setattr(report, "_report_without_lease", refuse)


@pytest.mark.parametrize("status", ["running", "completed", "failed"])
def test_a_repeated_report_is_answered_with_the_stored_task(bob, scene, status):
    """The reply was lost; the same report is answered with the stored task, unchanged."""
    task = claimed(bob, scene[0]) if status == "running" else run(bob, scene[0])
    reports = [bob.report(task["id"], status, attempt=1) for _ in range(3)]
    assert [report.status_code for report in reports] == [200] * 3
    assert reports[0].json() == reports[1].json() == reports[2].json()


@pytest.mark.parametrize("status", ["running", "completed", "failed"])
def test_without_reading_the_stored_task_a_repeated_report_is_refused(
    bob, scene, status, monkeypatch
):
    """Control: a worker whose reply was lost is told that it failed."""
    no_memory(monkeypatch)
    task = claimed(bob, scene[0]) if status == "running" else run(bob, scene[0])
    codes = [bob.report(task["id"], status, attempt=1).status_code for _ in range(2)]
    assert codes == [200, 409]


def test_a_start_repeated_after_the_end_is_refused(bob, scene):
    task = run(bob, scene[0])
    bob.report(task["id"], "completed", attempt=1)
    problem(bob.report(task["id"], "running", attempt=1), "invalid-task-transition", 409)
    assert status_of(task["id"]) == "completed"


# -- 7 replayed submit


def replayed_submit(alice):
    body = {"payload": {"angle": 1}}
    send = [
        alice.send("post", JOB, body, headers={"idempotency-key": '"k"'}).json()["id"]
        for _ in range(2)
    ]
    return len(set(send)), Task.objects.filter(payload={"angle": 1}).count()


def test_a_repeated_submit_with_a_key_makes_one_task(alice, scene):
    assert replayed_submit(alice) == (1, 1)


def test_without_a_key_a_repeated_submit_makes_a_second_task(alice, scene, monkeypatch):
    """Control: it is submitted twice."""
    from zndraw_joblib.api import jobs

    monkeypatch.setattr(jobs, "read_idempotency_key", lambda request: None)
    assert replayed_submit(alice) == (2, 2)


@postgres_only
def test_concurrent_submits_with_one_key_make_one_task(bob, scene):
    """The second waits for the first one's commit; neither makes a second task."""
    task_ids = [Task().pk for _ in range(2)]

    def submit(task_id):
        with transaction.atomic():
            kept = IdempotencyKey.objects.reserve("k", "body", task_id, LEASE)
            if kept == task_id:
                Job.objects.get().enqueue("open", {}, "alice", 0, task_id)
            return kept

    with transaction.atomic():
        submit(task_ids[0])
        second = Other(lambda: submit(task_ids[1]))
        assert second.waits()
    assert second.result() == task_ids[0]
    assert not Task.objects.filter(pk=task_ids[1]).exists()


def keyed_submit(task_id, request="body"):
    """A submit under the key ``k``, at the level of the verbs; the id of the key's task."""
    with transaction.atomic():
        kept = IdempotencyKey.objects.reserve("k", request, task_id, LEASE)
        if kept == task_id:
            Job.objects.get().enqueue("open", {}, "alice", 0, task_id)
        return kept


def expired_key():
    keyed_submit(new_id(), "long ago")
    IdempotencyKey.objects.update(created_at=PAST)


@postgres_only
def test_concurrent_submits_with_an_expired_key_make_one_task(scene):
    """The later one waits, and gets the task of the other, which renewed the key."""
    expired_key()
    task_id = new_id()
    with transaction.atomic():
        assert keyed_submit(task_id) == task_id
        late = Other(lambda: keyed_submit(new_id()))
        assert late.waits()
    assert late.result() == task_id
    assert IdempotencyKey.objects.get().task_id == task_id
    assert Task.objects.count() == 3


# -- 8 delete-worker against finish


def delete_against_finish(bob, worker):
    task = run(bob, worker)
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
    """Control: what ended with its worker ends again."""
    no_fence()
    task, late = delete_against_finish(bob, scene[0])
    assert late.status_code == 200
    assert status_of(task["id"]) == "completed"


def delete_and_finish_at_once(bob, worker):
    task = run(bob, worker)

    def leave():
        deregister(Worker.objects.get(pk=worker))
        return True

    return finish_beside(leave, bob, task)


@postgres_only
def test_a_report_waits_for_a_concurrent_deletion_of_its_worker_and_loses(bob, scene):
    assert delete_and_finish_at_once(bob, scene[0]) == (0, "failed")


@postgres_only
def test_without_the_condition_a_report_overwrites_the_end_by_a_concurrent_deletion(
    bob, scene, monkeypatch
):
    """Control: the finish waits, and then ends what ended with its worker."""
    states_do_not_count(monkeypatch)
    assert delete_and_finish_at_once(bob, scene[0]) == (1, "completed")


def start_against_delete(bob, worker):
    """The worker's start is written and not committed when the worker is deleted."""
    task = claimed(bob, worker)
    with transaction.atomic():
        assert Task.objects.filter(pk=task["id"]).start()
        deletion = Other(lambda: bob.send("delete", f"/workers/{worker}").status_code)
        held_up = deletion.waits()
    assert deletion.result() == 204
    assert not Worker.objects.exists()
    return held_up, status_of(task["id"])


@postgres_only
def test_a_deletion_of_a_worker_waits_for_a_start_and_ends_the_task(bob, scene):
    """The deletion waits for the start, and ends what runs by then."""
    assert start_against_delete(bob, scene[0]) == (True, "failed")


@postgres_only
def test_without_waiting_a_deletion_leaves_a_task_running_without_its_worker(
    bob, scene, monkeypatch
):
    """Control: a deletion that passes over what is held leaves it running without its worker."""
    change(
        monkeypatch,
        "requeue_claims_of_worker",
        "FOR UPDATE OF held",
        "FOR UPDATE OF held SKIP LOCKED",
    )
    change(
        monkeypatch, "end_runs_of_worker", "FOR UPDATE OF held", "FOR UPDATE OF held SKIP LOCKED"
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
    """A retirement is about to choose the idle job; a registration commits before it locks."""
    worker = idle_job(bob)
    gate = Gate()
    with stop_before(monkeypatch, jobs, "lock_batch", gate):
        retiring = Other(lambda: Job.objects.retire())
        assert gate.reached.wait(10)
        offer(worker, NAME, {}, LEASE)
        gate.opened.set()
        assert retiring.result() == 0
    assert Job.objects.get().retired_at is None


@postgres_only
def test_a_retirement_passes_over_a_job_that_is_being_registered(bob):
    """The registration holds the job's row: the retirement passes over it."""
    worker = idle_job(bob)
    with transaction.atomic():
        offer(worker, NAME, {}, LEASE)
        assert Other(lambda: Job.objects.retire()).result() == 0
    assert Job.objects.get().retired_at is None


@postgres_only
def test_without_the_lock_a_job_is_retired_beside_its_registration(bob, monkeypatch):
    """Control: a retirement that does not lock first retires a job that is offered.

    PostgreSQL looks at the job's row again once it has it, and at the links as they were.
    """
    worker = idle_job(bob)
    monkeypatch.setattr(
        jobs, "lock_batch", lambda chosen: list(chosen.order_by().values_list("pk", flat=True))
    )
    with transaction.atomic():
        offer(worker, NAME, {}, LEASE)
        retiring = Other(lambda: Job.objects.retire())
        assert retiring.waits()
    assert retiring.result() == 1
    job = Job.objects.get()
    assert job.retired_at is not None
    assert job.workers.count() == 1


# -- 10 submit against retire


def submit_against_retire(bob):
    """The submit has read the job and not written its task when a retirement comes.

    It is held up there by somebody who is about to write a task of the same id, and does not.
    """
    idle_job(bob)
    job = Job.objects.get()
    task_id = new_id()

    def submit():
        return job.enqueue("open", {}, "alice", 0, task_id)

    with transaction.atomic():
        Task.objects.create(id=task_id, job=job, room_id="open", created_by="x", payload={})
        submitting = Other(submit)
        assert submitting.waits()
        retired = Other(lambda: Job.objects.retire()).result()
        transaction.set_rollback(True)
    return retired, submitting.result()


@postgres_only
def test_a_retirement_passes_over_a_job_with_a_submit_under_way(bob):
    """The submit holds the job shared: the retirement passes over it and finds it busy later."""
    retired, task = submit_against_retire(bob)
    assert (retired, task.status) == (0, "pending")
    assert Job.objects.retire() == 0
    assert Job.objects.get().retired_at is None


@postgres_only
def test_without_the_lock_a_submit_lands_on_a_retired_job(bob, monkeypatch):
    """Control: the submit lands on a job just retired; the foreign key's lock does not help."""
    change(monkeypatch, "insert_tasks", "FOR SHARE", "")
    retired, task = submit_against_retire(bob)
    assert (retired, task.status) == (1, "pending")
    assert Job.objects.get().retired_at is not None


@postgres_only
def test_concurrent_submits_to_one_job_do_not_wait_for_each_other(bob):
    idle_job(bob)
    job = Job.objects.get()
    with transaction.atomic():
        job.enqueue("open", {}, "alice")
        Other(lambda: job.enqueue("open", {}, "alice")).result()
    assert Task.objects.count() == 2


@postgres_only
def test_a_submit_waits_for_a_retirement_and_finds_no_job(bob, alice):
    """The submit waits for the retirement, and then there is no such job."""
    idle_job(bob)
    with transaction.atomic():
        assert Job.objects.retire() == 1
        submit = Other(alice.submit)
        assert submit.waits()
    problem(submit.result(), "job-not-found", 404)
    assert not Task.objects.exists()


# -- 11 two sweepers


def two_sweepers():
    """The second comes when the first has written and not committed; what each took."""
    with transaction.atomic():
        first = sweep()
        second = Other(sweep)
        held_up = second.waits()
    return first.retried, second.result().retried, held_up


def test_two_sweepers_take_each_task_once(bob, alice, scene):
    for _ in range(3):
        alice.submit()
    for _ in range(4):
        run(bob, scene[0])
    expire(retries_left=5)
    # SQLite has one writer at a time, and the second waits; elsewhere it passes over the rows.
    assert two_sweepers() == (4, 0, connection.vendor == "sqlite")
    # A task that two sweepers took would have lost two of its retries.
    assert set(Task.objects.values_list("retries_left", flat=True)) == {4}


@postgres_only
def test_without_the_lock_two_sweepers_take_one_task(bob, scene, monkeypatch):
    """Control: both take the task, and each costs it a retry."""
    run(bob, scene[0])
    expire(retries_left=5)
    change(monkeypatch, "end_expired_runs", "FOR UPDATE OF held SKIP LOCKED", "")
    assert two_sweepers() == (1, 1, True)
    assert Task.objects.get().retries_left == 3


# -- 12 heartbeat against sweep


@postgres_only
def test_a_heartbeat_under_way_saves_worker_and_tasks_from_a_sweep(bob, scene):
    """A heartbeat under way saves worker and task from the sweep."""
    run(bob, scene[0])
    expire()
    Worker.objects.update(last_heartbeat=PAST)
    with transaction.atomic():
        assert Worker.objects.record_heartbeat(scene[0], bob.identity).has_tasks
        assert Task.objects.renew(scene[0], LEASE, None)
        report = Other(sweep).result()
    assert (report.failed, report.workers) == (0, 0)
    assert sweep().workers == 0
    assert status_of(scene[1]) == "running"


@postgres_only
def test_a_heartbeat_before_the_lock_saves_a_worker_that_a_sweep_chose(bob, scene, monkeypatch):
    """The heartbeat commits after the sweep looked at the workers and before it locks them."""
    Worker.objects.update(last_heartbeat=PAST)
    gate = Gate()
    with stop_before(monkeypatch, workers, "lock_batch", gate):
        sweeping = Other(lambda: Worker.objects.stale(LEASE).remove())
        assert gate.reached.wait(10)
        assert bob.send("patch", f"/workers/{scene[0]}").status_code == 200
        gate.opened.set()
        assert sweeping.result() == []
    assert Worker.objects.count() == 1


@postgres_only
def test_without_the_second_check_a_sweep_removes_a_live_worker(bob, scene, monkeypatch):
    """Control: a sweep that removes what it chose earlier removes a living worker."""
    Worker.objects.update(last_heartbeat=PAST)
    chosen = [worker.pk for worker in Worker.objects.stale(LEASE)]
    assert bob.send("patch", f"/workers/{scene[0]}").status_code == 200
    monkeypatch.setattr(WorkerQuerySet, "stale", lambda self, timeout: self.filter(pk__in=chosen))
    assert Worker.objects.stale(LEASE).remove() == chosen
    assert not Worker.objects.exists()


def test_a_heartbeat_after_the_sweep_is_refused_and_renews_nothing(bob, scene):
    """The sweep was first: the worker is told, and nothing of its is renewed."""
    run(bob, scene[0])
    expire()
    Worker.objects.update(last_heartbeat=PAST)
    assert sweep().workers == 1
    problem(bob.send("patch", f"/workers/{scene[0]}"), "worker-not-found", 404)
    assert status_of(scene[1]) == "failed"
