"""The whole life of jobs, workers and tasks against a plain model, step by step.

50 runs of 30 steps; ``make test PYTEST_ARGS="-k model --hypothesis-profile=full"`` does 500 of 50.
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
SELDOM = st.integers(0, 3).map(lambda number: number == 3)


@dataclass
class MTask:
    name: str
    submitter: str
    status: str = "pending"
    attempt: int = 0
    retries: int = RETRIES
    worker: str | None = None
    granted_to: str | None = None
    lease_over: bool = False

    def abandon(self):
        """What happens to the task of a worker that is gone."""
        if self.status == "running" and not self.retries:
            self.status = "failed"
            return
        if self.status == "running":
            self.retries -= 1
        self.status, self.worker, self.lease_over = "pending", None, False


@dataclass
class MWorker:
    owner: str
    stale: bool = False
    jobs: set = field(default_factory=set)


@dataclass
class MJob:
    schema: dict
    retired: bool = False


#: Answers, problems and outcomes of sweeps that a run without proves too little.
HAPPENS = (
    *(200, 201, 202, 204, "granted", "regranted", "requeued", "retried", "failed"),
    *("workers", "jobs", "forbidden", "lease-lost", "invalid-task-transition", "job-not-found"),
    *("worker-not-found", "schema-conflict", "idempotency-key-reused"),
)


class Life(RuleBasedStateMachine):
    """Every rule does one thing to the server and to the model and compares the answers."""

    people: dict = {}  # noqa: RUF012
    seen: Counter = Counter()  # noqa: RUF012

    workers = Bundle("workers")
    tasks = Bundle("tasks")

    def __init__(self):
        super().__init__()
        for model in (IdempotencyKey, RoomBacklog, Task, WorkerJobLink, Worker, Job):
            model.objects.all().delete()
        self.m_workers: dict[str, MWorker] = {}
        self.m_jobs: dict[str, MJob] = {}
        self.m_tasks: dict[str, MTask] = {}
        self.m_keys: dict[tuple, tuple] = {}

    # -- mostly what lives, or nearly every step would be about what is long gone

    def living(self, worker, seldom):
        if not seldom and worker[0] not in self.m_workers:
            return next(((pk, known.owner) for pk, known in self.m_workers.items()), worker)
        return worker

    def unfinished(self, task_id, seldom):
        if not seldom and self.m_tasks[task_id].status in ENDED:
            going = (pk for pk, task in self.m_tasks.items() if task.status not in ENDED)
            return next(going, task_id)
        return task_id

    # -- the model's rules

    def expected_report(self, task, status, attempt, who):
        """The answer's code and slug by the design, and whether the task moves."""
        runs = task.granted_to == who
        may = runs
        if status == "cancelled":
            may = task.submitter == who or (runs and task.status != "pending")
        current = attempt is None or attempt == task.attempt
        if may and current and task.status in SOURCES[status]:
            return 200, None, True
        if (may or runs) and not current:
            return 409, "lease-lost", False
        if not may:
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
        """Most of life happens where there is a job."""
        worker = self.make_worker("bob")
        self.register(worker, name, SCHEMAS[0])
        return worker

    @rule(target=workers, who=st.sampled_from(["bob", "carol"]))
    def make_worker(self, who):
        worker_id = self.people[who].worker()
        self.m_workers[worker_id] = MWorker(who)
        return worker_id, who

    @rule(
        worker=workers,
        name=st.sampled_from(NAMES),
        schema=st.sampled_from(SCHEMAS),
        seldom=SELDOM,
    )
    def register(self, worker, name, schema, seldom=True):
        worker_id, who = self.living(worker, seldom)
        answer = self.people[who].register(schema=schema, name=name, worker_id=worker_id)
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
        self.m_jobs[name] = MJob(schema)
        known.jobs.add(name)
        known.stale = False
        return None

    @rule(worker=workers, seldom=SELDOM)
    def heartbeat(self, worker, seldom):
        worker_id, who = self.living(worker, seldom)
        answer = self.people[who].send("patch", f"/workers/{worker_id}")
        known = self.m_workers.get(worker_id)
        if known is None:
            return self.check(answer, 404, "worker-not-found")
        self.check(answer, 200)
        known.stale = False
        for task in self.m_tasks.values():
            if task.worker == worker_id and task.status in LEASED:
                task.lease_over = False
        return None

    @rule(worker=workers, seldom=SELDOM)
    def delete_worker(self, worker, seldom):
        worker_id, who = self.living(worker, seldom)
        answer = self.people[who].send("delete", f"/workers/{worker_id}")
        if worker_id not in self.m_workers:
            return self.check(answer, 404, "worker-not-found")
        self.check(answer, 204)
        del self.m_workers[worker_id]
        for task in self.m_tasks.values():
            if task.worker == worker_id and task.status in LEASED:
                task.abandon()
        return None

    @rule(worker=workers, seldom=SELDOM)
    def worker_falls_silent(self, worker, seldom):
        """Its heartbeat and the leases of its tasks are over."""
        worker_id, _ = self.living(worker, seldom)
        Worker.objects.filter(pk=worker_id).update(last_heartbeat=PAST)
        Task.objects.filter(worker_id=worker_id, status__in=LEASED).update(lease_expires_at=PAST)
        if worker_id in self.m_workers:
            self.m_workers[worker_id].stale = True
        for task in self.m_tasks.values():
            if task.worker == worker_id and task.status in LEASED:
                task.lease_over = True

    # -- tasks

    @rule(
        target=tasks,
        who=st.sampled_from(["alice", "bob"]),
        name=st.sampled_from(NAMES),
        key=st.sampled_from([None, None, "k", "l"]),
        number=st.integers(1, 2),
    )
    def submit(self, who, name, key, number):
        headers = {} if key is None else {"idempotency-key": key}
        answer = self.people[who].send(
            "post",
            f"/rooms/open/tasks/open:modifiers:{name}",
            {"payload": {"n": number}},
            headers=headers,
        )
        kept = self.m_keys.get((who, name, key))
        if kept:
            if kept[0] != number:
                self.check(answer, 422, "idempotency-key-reused")
                return multiple()
            self.check(answer, 202)
            assert answer.json()["id"] == kept[1]
            return multiple()
        job = self.m_jobs.get(name)
        if job is None or job.retired:
            self.check(answer, 404, "job-not-found")
            return multiple()
        self.check(answer, 202)
        task_id = answer.json()["id"]
        assert task_id not in self.m_tasks
        self.m_tasks[task_id] = MTask(name, who)
        if key is not None:
            self.m_keys[who, name, key] = (number, task_id)
        return task_id

    @rule(worker=workers, seldom=SELDOM)
    def claim(self, worker, seldom=True):
        worker_id, who = self.living(worker, seldom)
        answer = self.people[who].send("post", "/tasks/claim", {"worker_id": worker_id})
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
        task.status, task.worker, task.granted_to = "claimed", worker_id, who
        task.attempt += 1
        task.lease_over = False
        self.seen["regranted" if task.attempt > 1 else "granted"] += 1
        return None

    @rule(
        task_id=tasks,
        who=st.sampled_from(["alice", "bob", "carol", None]),
        status=st.sampled_from(sorted(SOURCES)),
        attempt=st.sampled_from(["right", "right", "right", "old", "future", "none"]),
        times=st.integers(1, 2),
        seldom=SELDOM,
    )
    def report(self, task_id, who, status, attempt, times, seldom=True):
        """Report, perhaps twice; nobody in particular means whom the task was granted to."""
        task_id = self.unfinished(task_id, seldom)
        task = self.m_tasks[task_id]
        who = who or task.granted_to or "bob"
        number = {
            "right": task.attempt,
            "old": max(task.attempt - 1, 0),
            "future": task.attempt + 1,
            "none": None,
        }[attempt]
        body = {} if number is None else {"attempt": number}
        for _ in range(times):
            code, slug, moves = self.expected_report(task, status, number, who)
            self.check(self.people[who].report(task_id, status, **body), code, slug)
            if moves:
                task.status = status

    # What one step after the other would seldom come to.

    @initialize(target=tasks, name=st.sampled_from(NAMES), count=st.integers(1, 3))
    def begin_with_tasks(self, name, count):
        if name not in self.m_jobs:
            self.register(self.make_worker("carol"), name, SCHEMAS[0])
        return multiple(*(self.submit("alice", name, None, 1) for _ in range(count)))

    @rule(worker=workers, seldom=SELDOM)
    def claim_and_start(self, worker, seldom):
        worker = self.living(worker, seldom)
        self.claim(worker)
        for task_id, task in self.m_tasks.items():
            if task.worker == worker[0] and task.status == "claimed":
                self.report(task_id, None, "running", "right", 1)

    @rule(
        task_id=tasks,
        status=st.sampled_from(["completed", "failed", "cancelled"]),
        seldom=SELDOM,
    )
    def lose_the_lease_and_report(self, task_id, status, seldom):
        task_id = self.unfinished(task_id, seldom)
        self.lease_ends(task_id)
        self.sweep()
        self.report(task_id, None, status, "right", 2)
        for worker_id, worker in list(self.m_workers.items()):
            self.claim((worker_id, worker.owner))
        self.report(task_id, None, status, "old", 1)

    @rule(task_id=tasks, worker=workers)
    def run_until_it_fails(self, task_id, worker):
        """A task that takes every worker with it."""
        for _ in range(RETRIES + 1):
            self.claim_and_start(worker, False)
            self.lease_ends(self.unfinished(task_id, False))
            self.sweep()

    @rule(
        target=tasks,
        who=st.sampled_from(["alice", "bob"]),
        name=st.sampled_from(NAMES),
        key=st.sampled_from(["k", "l"]),
        numbers=st.permutations([1, 2]),
    )
    def submit_with_a_key_that_is_taken(self, who, name, key, numbers):
        made = [self.submit(who, name, key, number) for number in numbers]
        return multiple(*(task_id for task_id in made if isinstance(task_id, str)))

    @rule(task_id=tasks)
    def lease_ends(self, task_id):
        """The task's alone: its worker sent a heartbeat that did not list it."""
        task = self.m_tasks[task_id]
        Task.objects.filter(pk=task_id, status__in=LEASED).update(lease_expires_at=PAST)
        task.lease_over = task.status in LEASED

    @rule()
    def sweep(self):
        expected = {"requeued": 0, "retried": 0, "failed": 0, "workers": 0, "jobs": 0}
        for task in self.m_tasks.values():
            if task.status in LEASED and task.lease_over:
                was = task.status
                task.abandon()
                outcome = "failed" if task.status == "failed" else "retried"
                expected["requeued" if was == "claimed" else outcome] += 1
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

    # -- what must agree after every step

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
    def leases_are_with_those_that_are_held(self):
        for task in Task.objects.all():
            assert (task.lease_expires_at is not None) == (task.status in LEASED)
            assert (task.completed_at is not None) == (task.status in ENDED)


@pytest.fixture
def life(people, settings_of):
    settings_of(task_max_retries=RETRIES, max_workers_per_identity=1000)

    class Lived(Life):
        pass

    Lived.seen = Counter()
    Lived.people = {name: people(name) for name in ("alice", "bob", "carol")}
    return Lived


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_server_agrees_with_a_plain_model_over_random_lives(life):
    run_state_machine_as_test(life)
    # Runs in which these never happened prove nothing.
    missing = [happened for happened in HAPPENS if not life.seen[happened]]
    assert not missing, (missing, life.seen)


def test_without_the_fence_the_server_disagrees_with_the_model(life, monkeypatch):
    """Control: the model notices."""
    from zndraw_joblib.api import tasks

    parse = tasks.parse_report

    def forget(task_id, body):
        return parse(task_id, body)._replace(attempt=None)

    monkeypatch.setattr(tasks, "parse_report", forget)
    found_is_enough = settings(phases=[Phase.generate], report_multiple_bugs=False)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(life, settings=found_is_enough)
