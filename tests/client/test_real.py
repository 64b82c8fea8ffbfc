"""The SDK against a server process, over HTTP."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from contextlib import ExitStack
from typing import Any, ClassVar, cast

import httpx
import pytest
from pydantic import BaseModel, Field, create_model

from tests import servers
from tests.client.instances import SENT
from tests.client.jobs import Double
from tests.servers import process, server, until
from zndraw_joblib.client import (
    Api,
    ApiError,
    InvalidPayloadError,
    InvalidTaskTransitionError,
    JobManager,
    LeaseLostError,
    PartlySubmittedError,
    RequestInvalidError,
    TaskInfo,
    TaskNotFoundError,
    retry,
)
from zndraw_joblib.client.differences import difference
from zndraw_joblib.client.reports import Report
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.models import Task, Worker

pytestmark = pytest.mark.django_db(transaction=True)


class Rotate(BaseModel):
    category: ClassVar[str] = "modifiers"
    angle: float = Field(0, le=10_000)

    def run(self):
        pass


class CountingTransport(httpx.HTTPTransport):
    """Counts requests, and loses one response for each request listed in `lose`."""

    def __init__(self):
        super().__init__()
        self.counts, self.lose = Counter(), []

    def handle_request(self, request):
        key = f"{request.method} {request.url.path.removeprefix('/v1/joblib')}"
        self.counts[key] += 1
        answer = super().handle_request(request)
        if key in self.lose:
            self.lose.remove(key)
            answer.read()
            raise httpx.ReadError("the answer was lost")
        return answer


@pytest.fixture
def url():
    with server() as address:
        yield address


@pytest.fixture
def client(url, bob):
    """A factory of managers, each with a transport of its own."""
    with ExitStack() as apis:

        def make(**options):
            transport = CountingTransport()
            api = apis.enter_context(Api(url, bob.token, transport=transport))
            manager = JobManager(api, **options)
            cast("Any", manager).transport = transport
            return manager

        yield make


@pytest.fixture
def worker(client):
    """A manager whose worker is registered for the job in the room `open`."""
    manager = client(heartbeat_interval=0.2)
    manager.register(room="open")(Rotate)
    return manager


URL = "POST /rooms/open/tasks/open:modifiers:Rotate"


def test_submit_many_submits_each_task_once_in_order_although_responses_are_lost(client, worker):
    manager = client()
    manager.transport.lose += [URL, URL]
    angles = list(range(1100))
    ids = manager.submit_many([Rotate(angle=a) for a in angles], room="open", job_room="open")
    assert manager.transport.counts[URL] == 5
    stored = {str(t.pk): t.payload["angle"] for t in Task.objects.order_by("created_at", "pk")}
    assert [stored[task_id] for task_id in ids] == angles
    assert list(stored) == ids


def test_a_refused_later_request_does_not_undo_the_accepted_ones(client, worker):
    loose = create_model("Rotate", angle=(object, 0))
    instances = [loose(angle="wrong" if i == 700 else i) for i in range(1200)]
    with pytest.raises(PartlySubmittedError) as caught:
        client().submit_many(instances, room="open", job_room="open")
    ids = caught.value.task_ids
    assert [task_id is not None for task_id in ids] == [i < 500 for i in range(1200)]
    cause = caught.value.__cause__
    assert isinstance(cause, InvalidPayloadError)
    assert [error["pointer"] for error in cause.errors] == ["/700/payload/angle"]
    assert {str(pk) for pk in Task.objects.values_list("pk", flat=True)} == set(ids[:500])


def test_a_worker_without_prefetch_sends_two_requests_a_task(client, worker):
    instances = [Rotate(angle=a) for a in range(40)]
    ids = client().submit_many(instances, room="open", job_room="open")
    thread = threading.Thread(target=worker.serve, daemon=True)
    thread.start()
    try:
        assert {task.status for task in client().as_completed(ids, timeout=30)} == {"completed"}
        counts = worker.transport.counts
        reports = sum(n for key, n in counts.items() if key.startswith("PATCH /tasks"))
        # Besides the 40: one short claim without a task, and the long poll after it.
        assert reports == 40
        assert counts["POST /tasks/claim"] <= 42
        for ordered in (True, False):
            results = client().map(
                instances, room="open", job_room="open", timeout=30, ordered=ordered
            )
            assert list(results) == [None] * len(instances)
    finally:
        worker.stop()
        thread.join(20)
    assert not Worker.objects.exists()


def test_a_worker_gets_instances_of_all_kinds_as_they_were_submitted(client):
    worker, arrived = client(), {}
    for instance in SENT:
        worker.register(room="open")(type(instance))
    ids = client().submit_many(SENT, room="open", job_room="open")

    def execute(task, instance):
        arrived[task.id] = instance
        if len(arrived) == len(SENT):
            worker.stop()

    worker.serve(execute, prefetch=50)
    for task_id, instance in zip(ids, SENT, strict=True):
        assert type(arrived[task_id]) is type(instance)
        assert difference(instance, arrived[task_id]) is None


def test_waits_raise_for_unknown_tasks_and_malformed_ids(client, worker):
    manager = client()
    known = manager.submit(Rotate(angle=1), room="open", job_room="open")
    unknown = "00000000-0000-7000-8000-000000000000"
    with pytest.raises(TaskNotFoundError):
        manager.wait(unknown, timeout=20)
    with pytest.raises(TaskNotFoundError):
        list(manager.as_completed([known, unknown], timeout=20))
    with pytest.raises(RequestInvalidError):
        list(manager.as_completed([known, "t1"], timeout=20))


def test_waits_see_the_ends_of_tasks_beyond_the_first_lookup(client, worker):
    """The newest of 1,100 tasks end first, and a lookup has 500 ids at most."""
    manager = client()
    ids = manager.submit_many([Rotate(angle=a) for a in range(1100)], room="open", job_room="open")
    newest = ids[-3:]
    for task_id in newest:
        manager.cancel(task_id)
    ends = manager.as_completed(ids, timeout=30)
    assert {next(ends).id for _ in range(3)} == set(newest)


def test_a_worker_with_prefetch_sends_little_more_than_a_request_a_task(client, worker):
    ids = client().submit_many([Rotate(angle=a) for a in range(40)], room="open", job_room="open")
    thread = threading.Thread(target=worker.serve, kwargs={"prefetch": 20}, daemon=True)
    thread.start()
    try:
        assert {task.status for task in client().as_completed(ids, timeout=30)} == {"completed"}
    finally:
        worker.stop()
        thread.join(20)
    counts = worker.transport.counts
    reports = sum(n for key, n in counts.items() if key.startswith("PATCH /tasks"))
    assert reports + counts["POST /tasks/claim"] <= 50
    assert set(Task.objects.values_list("attempt", flat=True)) == {1}


def test_prefetched_tasks_have_renewed_leases_and_are_requeued_at_the_end(client, worker):
    manager = client()
    ids = manager.submit_many([Rotate(angle=a) for a in range(4)], room="open", job_room="open")
    go, ran = threading.Event(), []

    def execute(task):
        ran.append(task.id)
        if len(ran) == 1:
            assert go.wait(20)
        else:
            worker.stop()

    thread = threading.Thread(
        target=worker.serve, args=(execute,), kwargs={"prefetch": 3}, daemon=True
    )
    thread.start()
    until(lambda: ran)
    held = Task.objects.filter(status="claimed")
    assert held.count() == 3
    before = held.get(pk=ids[3]).lease_expires_at
    until(lambda: held.get(pk=ids[3]).lease_expires_at > before)
    manager.cancel(ids[1])
    # Until a heartbeat has listed the cancelled task.
    until(lambda: worker._grants._stopped)
    go.set()
    thread.join(20)
    assert not thread.is_alive()
    assert ran == [ids[0], ids[2]]
    statuses = [manager.task(task_id).status for task_id in ids]
    assert statuses == ["completed", "cancelled", "completed", "pending"]
    assert not Worker.objects.exists()


def test_each_report_in_a_batch_has_its_own_outcome(client, worker):
    manager = client()
    manager.submit_many([Rotate(angle=a) for a in range(4)], room="open", job_room="open")
    tasks = worker.claim_many(4, start=True)
    assert [task.payload["angle"] for task in tasks] == [0, 1, 2, 3]
    manager.cancel(tasks[1].id)
    batch = [Report.on(task, TaskStatus.COMPLETED) for task in tasks]
    batch[2] = Report(tasks[2].id, TaskStatus.COMPLETED, attempt=7)
    batch.append(Report("00000000-0000-7000-8000-000000000000", TaskStatus.COMPLETED))
    worker.transport.lose.append("PATCH /tasks")
    outcomes = worker.report(batch)
    assert worker.transport.counts["PATCH /tasks"] == 2
    assert [type(outcome) for outcome in outcomes] == [
        *(TaskInfo, InvalidTaskTransitionError, LeaseLostError, TaskInfo),
        TaskNotFoundError,
    ]
    assert outcomes[3].status == "completed"
    assert [outcome.status for outcome in outcomes if isinstance(outcome, ApiError)] == [
        *(409, 409),
        404,
    ]
    held = {task.id for task in worker._grants.held()}
    # The task whose report had a wrong attempt stays held.
    assert held == {tasks[2].id}


def test_a_report_that_is_too_large_for_the_server_ends_as_a_failed_task(bob):
    """Control: the task is running at the end when `Worker._deliver` drops a refused report."""
    with server(ZNDRAW_JOBLIB_MAX_BODY_BYTES="2000") as url, Api(url, bob.token) as api:
        manager = JobManager(api)
        manager.register(room="open")(Rotate)
        ids = manager.submit_many([Rotate(angle=a) for a in range(4)], room="open", job_room="open")

        def execute(task, instance):
            if instance.angle == 0:
                raise ValueError("A\x00\ud800")
            raise ValueError("x" * 5000)

        thread = threading.Thread(
            target=manager.serve, args=(execute,), kwargs={"concurrency": 4}, daemon=True
        )
        thread.start()
        ends = {task.payload["angle"]: task for task in manager.as_completed(ids, timeout=30)}
        manager.stop()
        thread.join(20)
    assert {task.status for task in ends.values()} == {"failed"}
    assert ends[0].error.startswith("ValueError: A\ufffd\ufffd\n")
    for angle in (1, 2, 3):
        assert ends[angle].error.startswith("The result of this task was refused: 413")


def test_a_worker_process_finishes_its_running_tasks_on_sigterm(url, root, client):
    environment = {"JOBLIB_URL": url, "JOBLIB_TOKEN": root.token, "JOBLIB_PREFETCH": "4"}
    with process("-m", "tests.client.jobs", **environment) as child:
        until(lambda: Worker.objects.exists() and Worker.objects.get().links.exists())
        ids = client().submit_many([Double(number=n, seconds=1) for n in range(8)], room="open")
        until(lambda: Task.objects.filter(status="running").count() == 2)
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) == 0, child.log.read_text()
    statuses = Counter(Task.objects.values_list("status", flat=True))
    assert statuses == {"completed": 2, "pending": 6}
    assert len(ids) == 8


def test_a_worker_process_ends_although_sigterm_does_not_wake_its_main_thread(url, root):
    environment = {"JOBLIB_URL": url, "JOBLIB_TOKEN": root.token}
    with process("-m", "tests.unwoken", "tests.client.jobs", **environment) as child:
        until(lambda: Worker.objects.exists() and Worker.objects.get().links.exists())
        time.sleep(0.5)
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 0, child.log.read_text()
    assert not Worker.objects.exists()


def test_a_result_is_reported_after_the_server_was_killed_and_restarted(
    url, bob, worker, client, monkeypatch
):
    """The server is down for longer than six attempts take."""
    monkeypatch.setattr(retry, "backoff", lambda attempt: 0.05)
    task_id = client().submit(Rotate(angle=1), room="open", job_room="open")

    def kill(task):
        os.kill(url.pid, signal.SIGKILL)

    thread = threading.Thread(target=worker.serve, args=(kill,), daemon=True)
    thread.start()
    try:
        report = f"PATCH /tasks/{task_id}"
        until(lambda: worker.transport.counts[report] > 10)
        monkeypatch.setattr(servers, "free_port", lambda: httpx.URL(url).port)
        with server():
            assert client().wait(task_id, timeout=20).status == "completed"
            worker.stop()
            thread.join(20)
    finally:
        worker.stop()
        thread.join(20)
    assert not thread.is_alive()
    assert Task.objects.get().attempt == 1


def test_a_cancel_reaches_a_busy_worker_at_once(bob):
    """Long before the next usual heartbeat, which is 20 s away."""
    spans = []
    with server() as url, Api(url, bob.token) as api, JobManager(api) as manager:
        manager.register(room="open")(Rotate)
        submitter = JobManager(api)
        for _ in range(3):
            task_id = submitter.submit(Rotate(), room="open", job_room="open")
            claimed = manager.claim(wait=10)
            manager.start(claimed)
            # The worker watches the task by then.
            time.sleep(1.3)
            began = time.monotonic()
            submitter.cancel(task_id)
            until(lambda claimed=claimed: manager.should_stop(claimed), 10)
            spans.append(time.monotonic() - began)
            manager.abandon(claimed)
    assert sorted(spans)[1] < 0.3, spans
