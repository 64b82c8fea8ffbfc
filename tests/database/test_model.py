"""Random sequences of requests, sweeps and silences, compared with a plain model after each step.

50 runs of 30 steps; 500 runs of 50 steps with
``make test PYTEST_ARGS="-k model --hypothesis-profile=full"``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import Phase, settings, strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from zndraw_joblib.models import IdempotencyKey, Job, RoomBacklog, Task, Worker, WorkerJobLink
from zndraw_joblib.services.sweep import sweep

PAST = "2020-01-01T00:00:00Z"
RETRIES = 1
NAMES = ("A", "B")
SCHEMAS = ({}, {"type": "object"})
SOURCES = {
    "running": {"claimed"},
    "completed": {"running"},
    "failed": {"running"},
    "cancelled": {"pending", "claimed", "running"},
}
LEASED = {"claimed", "running"}
ENDED = {"completed", "failed", "cancelled"}
RARELY = st.integers(0, 3).map(lambda number: number == 3)


@dataclass
class ModelTask:
    name: str
    submitter: str
    status: str = "pending"
    attempt: int = 0
    retries: int = RETRIES
    worker: str | None = None
    granted_to: str | None = None
    lease_expired: bool = False

    def abandon(self):
        """Requeue or fail the task, as its worker is deleted or its lease expired."""
        if self.status == "running" and not self.retries:
            self.status = "failed"
            return
        if self.status == "running":
            self.retries -= 1
        self.status, self.worker, self.lease_expired = "pending", None, False


@dataclass
class ModelWorker:
    owner: str
    stale: bool = False
    jobs: set = field(default_factory=set)


@dataclass
class ModelJob:
    schema: dict
    retired: bool = False


#: Statuses, problems and results of sweeps that must occur, because a run without proves little.
REQUIRED_OUTCOMES = (
    *(200, 201, 202, 204, "granted", "regranted", "requeued", "retried", "failed"),
    *("workers", "jobs", "forbidden", "lease-lost", "invalid-task-transition", "job-not-found"),
    *("worker-not-found", "schema-conflict", "idempotency-key-reused"),
)


class Life(RuleBasedStateMachine):
    """Every rule applies one step to the server and to the model, and compares the results."""

    people: dict = {}  # noqa: RUF012
    seen: Counter = Counter()  # noqa: RUF012

    workers = Bundle("workers")
    tasks = Bundle("tasks")

    def __init__(self):
        super().__init__()
        for model in (IdempotencyKey, RoomBacklog, Task, WorkerJobLink, Worker, Job):
            model.objects.all().delete()
        self.m_workers: dict[str, ModelWorker] = {}
        self.m_jobs: dict[str, ModelJob] = {}
        self.m_tasks: dict[str, ModelTask] = {}
        self.m_keys: dict[tuple, tuple] = {}

    # -- mostly live workers and unfinished tasks, because most drawn ones have ended by then

    def live_worker(self, worker, as_drawn):
        if not as_drawn and worker[0] not in self.m_workers:
            return next(((pk, known.owner) for pk, known in self.m_workers.items()), worker)
        return worker

    def unfinished(self, task_id, as_drawn):
        if not as_drawn and self.m_tasks[task_id].status in ENDED:
            unfinished = (pk for pk, task in self.m_tasks.items() if task.status not in ENDED)
            return next(unfinished, task_id)
        return task_id

    # -- the model's rules

    def expected_report(self, task, status, attempt, caller):
        """The response's status and slug by the design, and whether the task changes."""
        is_holder = task.granted_to == caller
        permitted = is_holder
        if status == "cancelled":
            permitted = task.submitter == caller or (is_holder and task.status != "pending")
        current = attempt is None or attempt == task.attempt
        if permitted and current and task.status in SOURCES[status]:
            return 200, None, True
        if (permitted or is_holder) and not current:
            return 409, "lease-lost", False
        if not permitted:
            return 403, "forbidden", False
        if task.status == status:
            return 200, None, False
        return 409, "invalid-task-transition", False

    def check(self, answer, code, slug=None):
        assert answer.status_code == code, answer.content
        self.seen[slug or code] += 1
        if slug:
            assert answer.json()["type"].endswith(f"/{slug}"), answer.content

    # -- workers

    @initialize(target=workers, name=st.sampled_from(NAMES))
    def begin(self, name):
        """Begin with a job, because most steps need one."""
        worker = self.create_worker("bob")
        self.register(worker, name, SCHEMAS[0])
        return worker

    @rule(target=workers, caller=st.sampled_from(["bob", "carol"]))
    def create_worker(self, caller):
        worker_id = self.people[caller].worker()
        self.m_workers[worker_id] = ModelWorker(caller)
        return worker_id, caller

    @rule(
        worker=workers,
        name=st.sampled_from(NAMES),
        schema=st.sampled_from(SCHEMAS),
        as_drawn=RARELY,
    )
    def register(self, worker, name, schema, as_drawn=True):
        worker_id, caller = self.live_worker(worker, as_drawn)
        answer = self.people[caller].register(schema=schema, name=name, worker_id=worker_id)
        known = self.m_workers.get(worker_id)
        if known is None:
            return self.check(answer, 404, "worker-not-found")
        job = self.m_jobs.get(name)
        if job and job.schema != schema:
            holders = {pk for pk, other in self.m_workers.items() if name in other.jobs}
            if any(pk == worker_id or not self.m_workers[pk].stale for pk in holders):
                return self.check(answer, 409, "schema-conflict")
            for pk in holders:
                self.m_workers[pk].jobs.discard(name)
        self.check(answer, 200 if job and not job.retired else 201)
        self.m_jobs[name] = ModelJob(schema)
        known.jobs.add(name)
        known.stale = False
        return None

    @rule(worker=workers, as_drawn=RARELY)
    def heartbeat(self, worker, as_drawn):
        worker_id, caller = self.live_worker(worker, as_drawn)
        answer = self.people[caller].send("patch", f"/workers/{worker_id}")
        known = self.m_workers.get(worker_id)
        if known is None:
            return self.check(answer, 404, "worker-not-found")
        self.check(answer, 200)
        known.stale = False
        for task in self.m_tasks.values():
            if task.worker == worker_id and task.status in LEASED:
                task.lease_expired = False
        return None

    @rule(worker=workers, as_drawn=RARELY)
    def delete_worker(self, worker, as_drawn):
        worker_id, caller = self.live_worker(worker, as_drawn)
        answer = self.people[caller].send("delete", f"/workers/{worker_id}")
        if worker_id not in self.m_workers:
            return self.check(answer, 404, "worker-not-found")
        self.check(answer, 204)
        del self.m_workers[worker_id]
        for task in self.m_tasks.values():
            if task.worker == worker_id and task.status in LEASED:
                task.abandon()
        return None

    @rule(worker=workers, as_drawn=RARELY)
    def worker_falls_silent(self, worker, as_drawn):
        """Let the worker's heartbeat and the leases of its tasks expire."""
        worker_id, _ = self.live_worker(worker, as_drawn)
        Worker.objects.filter(pk=worker_id).update(last_heartbeat=PAST)
        Task.objects.filter(worker_id=worker_id, status__in=LEASED).update(lease_expires_at=PAST)
        if worker_id in self.m_workers:
            self.m_workers[worker_id].stale = True
        for task in self.m_tasks.values():
            if task.worker == worker_id and task.status in LEASED:
                task.lease_expired = True

    # -- tasks

    @rule(
        target=tasks,
        caller=st.sampled_from(["alice", "bob"]),
        name=st.sampled_from(NAMES),
        key=st.sampled_from([None, None, "k", "l"]),
        number=st.integers(1, 2),
    )
    def submit(self, caller, name, key, number):
        headers = {} if key is None else {"idempotency-key": key}
        answer = self.people[caller].send(
            "post",
            f"/rooms/open/tasks/open:modifiers:{name}",
            {"payload": {"n": number}},
            headers=headers,
        )
        earlier = self.m_keys.get((caller, name, key))
        if earlier:
            if earlier[0] != number:
                self.check(answer, 422, "idempotency-key-reused")
                return multiple()
            self.check(answer, 202)
            assert answer.json()["id"] == earlier[1]
            return multiple()
        job = self.m_jobs.get(name)
        if job is None or job.retired:
            self.check(answer, 404, "job-not-found")
            return multiple()
        self.check(answer, 202)
        task_id = answer.json()["id"]
        assert task_id not in self.m_tasks
        self.m_tasks[task_id] = ModelTask(name, caller)
        if key is not None:
            self.m_keys[caller, name, key] = (number, task_id)
        return task_id

    @rule(worker=workers, as_drawn=RARELY)
    def claim(self, worker, as_drawn=True):
        worker_id, caller = self.live_worker(worker, as_drawn)
        answer = self.people[caller].send("post", "/tasks/claim", {"worker_id": worker_id})
        known = self.m_workers.get(worker_id)
        if known is None:
            return self.check(answer, 404, "worker-not-found")
        self.check(answer, 200)
        waiting = [
            task_id
            for task_id, task in self.m_tasks.items()
            if task.status == "pending" and task.name in known.jobs
        ]
        granted = answer.json()["task"]
        if not waiting:
            assert granted is None
            return None
        task = self.m_tasks[waiting[0]]
        assert (granted["id"], granted["attempt"]) == (waiting[0], task.attempt + 1)
        task.status, task.worker, task.granted_to = "claimed", worker_id, caller
        task.attempt += 1
        task.lease_expired = False
        self.seen["regranted" if task.attempt > 1 else "granted"] += 1
        return None

    @rule(
        task_id=tasks,
        caller=st.sampled_from(["alice", "bob", "carol", None]),
        status=st.sampled_from(sorted(SOURCES)),
        attempt=st.sampled_from(["right", "right", "right", "old", "future", "none"]),
        times=st.integers(1, 2),
        as_drawn=RARELY,
    )
    def report(self, task_id, caller, status, attempt, times, as_drawn=True):
        """Report once or twice; `caller` None is the person whom the task was granted to."""
        task_id = self.unfinished(task_id, as_drawn)
        task = self.m_tasks[task_id]
        caller = caller or task.granted_to or "bob"
        number = {
            "right": task.attempt,
            "old": max(task.attempt - 1, 0),
            "future": task.attempt + 1,
            "none": None,
        }[attempt]
        body = {} if number is None else {"attempt": number}
        for _ in range(times):
            code, slug, changes = self.expected_report(task, status, number, caller)
            self.check(self.people[caller].report(task_id, status, **body), code, slug)
            if changes:
                task.status = status

    # -- combinations of steps that random single steps would rarely reach

    @initialize(target=tasks, name=st.sampled_from(NAMES), count=st.integers(1, 3))
    def begin_with_tasks(self, name, count):
        if name not in self.m_jobs:
            self.register(self.create_worker("carol"), name, SCHEMAS[0])
        return multiple(*(self.submit("alice", name, None, 1) for _ in range(count)))

    @rule(worker=workers, as_drawn=RARELY)
    def claim_and_start(self, worker, as_drawn):
        worker = self.live_worker(worker, as_drawn)
        self.claim(worker)
        for task_id, task in self.m_tasks.items():
            if task.worker == worker[0] and task.status == "claimed":
                self.report(task_id, None, "running", "right", 1)

    @rule(
        task_id=tasks,
        status=st.sampled_from(["completed", "failed", "cancelled"]),
        as_drawn=RARELY,
    )
    def lose_the_lease_and_report(self, task_id, status, as_drawn):
        task_id = self.unfinished(task_id, as_drawn)
        self.lease_ends(task_id)
        self.sweep()
        self.report(task_id, None, status, "right", 2)
        for worker_id, worker in list(self.m_workers.items()):
            self.claim((worker_id, worker.owner))
        self.report(task_id, None, status, "old", 1)

    @rule(task_id=tasks, worker=workers)
    def run_until_it_fails(self, task_id, worker):
        """Let the leases of a task expire until it has no retry left."""
        for _ in range(RETRIES + 1):
            self.claim_and_start(worker, False)
            self.lease_ends(self.unfinished(task_id, False))
            self.sweep()

    @rule(
        target=tasks,
        caller=st.sampled_from(["alice", "bob"]),
        name=st.sampled_from(NAMES),
        key=st.sampled_from(["k", "l"]),
        numbers=st.permutations([1, 2]),
    )
    def submit_with_a_key_that_is_taken(self, caller, name, key, numbers):
        results = [self.submit(caller, name, key, number) for number in numbers]
        return multiple(*(task_id for task_id in results if isinstance(task_id, str)))

    @rule(task_id=tasks)
    def lease_ends(self, task_id):
        """Let the lease of one task expire, as after heartbeats that did not list it."""
        task = self.m_tasks[task_id]
        Task.objects.filter(pk=task_id, status__in=LEASED).update(lease_expires_at=PAST)
        task.lease_expired = task.status in LEASED

    @rule()
    def sweep(self):
        expected = {"requeued": 0, "retried": 0, "failed": 0, "workers": 0, "jobs": 0}
        for task in self.m_tasks.values():
            if task.status in LEASED and task.lease_expired:
                before = task.status
                task.abandon()
                outcome = "failed" if task.status == "failed" else "retried"
                expected["requeued" if before == "claimed" else outcome] += 1
        for worker_id in [pk for pk, worker in self.m_workers.items() if worker.stale]:
            del self.m_workers[worker_id]
            expected["workers"] += 1
        for name, job in self.m_jobs.items():
            offered = any(name in worker.jobs for worker in self.m_workers.values())
            busy = any(t.name == name and t.status not in ENDED for t in self.m_tasks.values())
            if not (job.retired or offered or busy):
                job.retired = True
                expected["jobs"] += 1
        report = sweep()
        assert {name: getattr(report, name) for name in expected} == expected
        self.seen.update(expected)

    # -- invariants after every step

    @invariant()
    def rows_agree(self):
        tasks = {
            str(task.pk): (task.status, task.attempt, task.retries_left, task.worker_id)
            for task in Task.objects.all()
        }
        assert tasks == {
            pk: (task.status, task.attempt, task.retries, task.worker)
            for pk, task in self.m_tasks.items()
        }
        links = {(link.worker_id, link.job.name) for link in WorkerJobLink.objects.all()}
        assert links == {(pk, name) for pk, w in self.m_workers.items() for name in w.jobs}
        assert set(Worker.objects.values_list("pk", flat=True)) == set(self.m_workers)
        jobs = {job.name: (job.schema, job.retired_at is not None) for job in Job.objects.all()}
        assert jobs == {name: (job.schema, job.retired) for name, job in self.m_jobs.items()}

    @invariant()
    def only_held_tasks_have_a_lease(self):
        for task in Task.objects.all():
            assert (task.lease_expires_at is not None) == (task.status in LEASED)
            assert (task.completed_at is not None) == (task.status in ENDED)


@pytest.fixture
def life(people, settings_of):
    settings_of(task_max_retries=RETRIES)

    class LifeWithPeople(Life):
        pass

    LifeWithPeople.seen = Counter()
    LifeWithPeople.people = {name: people(name) for name in ("alice", "bob", "carol")}
    return LifeWithPeople


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_server_agrees_with_a_plain_model_over_random_steps(life):
    run_state_machine_as_test(life)
    missing = [outcome for outcome in REQUIRED_OUTCOMES if not life.seen[outcome]]
    assert not missing, (missing, life.seen)


def test_without_the_fence_the_server_disagrees_with_the_model(life, monkeypatch):
    """Control of the test above."""
    from zndraw_joblib.api import tasks

    parse = tasks.parse_report

    def parse_without_attempt(task_id, body):
        return parse(task_id, body)._replace(attempt=None)

    monkeypatch.setattr(tasks, "parse_report", parse_without_attempt)
    without_shrinking = settings(phases=[Phase.generate], report_multiple_bugs=False)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(life, settings=without_shrinking)
