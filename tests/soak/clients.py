"""The clients of a soak. Each is a process of its own, which may be killed at any time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar
from uuid import UUID

import httpx
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from pydantic import BaseModel

from tests.soak.log import Log
from zndraw_joblib.client import Api, ApiError, ClaimedTask, JobManager
from zndraw_joblib.client.exceptions import (
    ForbiddenError,
    InvalidTaskTransitionError,
    LeaseLostError,
)
from zndraw_joblib.exceptions import WorkerNotFound
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.models import Job, Task, Worker
from zndraw_joblib.names import JobName
from zndraw_joblib.services.register import offer
from zndraw_joblib.services.workers import deregister
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage.fields import json_dumps
from zndraw_joblib.storage.ids import new_ids
from zndraw_joblib.storage.rows import NewTask, Report, TaskRow

VERB_JOB = JobName("@global", "modifiers", "Verb")
ROOM = "soak"
UNREACHABLE = (DatabaseError, InterfaceError)
#: Tasks that are submitted at once.
BATCH = 50
#: Tasks that a worker claims at once.
CLAIM_LIMIT = 15
Grant = tuple[UUID, int]


def connect_alone() -> None:
    """Use one connection without a pool, and no channel layer, because these clients do not wait.

    The timeout of idle transactions is short, because a process that is stopped within one would
    block the others.
    """
    settings.CHANNEL_LAYERS = {}
    options = connection.settings_dict["OPTIONS"]
    options.pop("pool", None)
    options["options"] = "-c statement_timeout=30s -c idle_in_transaction_session_timeout=300ms"


@contextmanager
def ignore_outages(pause: float = 0.1) -> Iterator[None]:
    """Abandon the block when the database is unreachable; its outcome is unknown."""
    try:
        yield
    except UNREACHABLE:
        with suppress(Exception):
            connection.close()
        time.sleep(pause)


def payload(marker: str, slow: float) -> dict[str, Any]:
    """A payload: most tasks take no time, a share `slow` takes up to two leases.

    Half of the slow tasks run without heartbeats.
    """
    if random.random() > slow:
        return {"marker": marker, "hold": 0.0, "beats": False}
    lease = get_settings().worker_timeout_seconds
    return {
        "marker": marker,
        "hold": random.uniform(0, 2 * lease),
        "beats": random.random() < 0.5,
    }


def hold(seconds: float, beat: Callable[[], None] | None) -> None:
    """Work for this time; `beat` sends a heartbeat, None works without heartbeats."""
    end = time.monotonic() + seconds
    step = get_settings().worker_timeout_seconds / 4
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, step))
        if beat:
            beat()


def submit_by_verbs(log: Log, total: int, slow: float) -> None:
    """Submit until `total` tasks were acknowledged, and cancel one in a hundred."""
    connect_alone()
    retries = get_settings().task_max_retries
    acknowledged = 0
    while acknowledged < total:
        markers = [log.number() for _ in range(min(BATCH, total - acknowledged))]
        for marker in markers:
            log("submit", m=marker)
        with ignore_outages():
            job = Job.objects.live().named(VERB_JOB).first()
            payloads = [NewTask(payload(marker, slow)) for marker in markers]
            by_id = dict(zip(new_ids(len(markers)), payloads, strict=True))
            tasks = job and Task.objects.enqueue(job, ROOM, "soak", retries, by_id)
            if not tasks:  # The job is retired while no worker is registered for it.
                time.sleep(0.05)
                continue
            for marker, task in zip(markers, tasks, strict=True):
                log("submitted", m=marker, id=str(task.id))
            acknowledged += len(tasks)
            if random.random() < BATCH / 100:
                cancel = random.choice(tasks)
                number = log.number()
                log("report", r=number, id=str(cancel.id), a=None, s="cancelled")
                done = Task.objects.filter(pk=cancel.id).cancel("by its submitter")
                log("reported", r=number, ok=bool(done))


class VerbWorker:
    """A worker that claims, runs and reports by the verbs of the models."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.lease = get_settings().lease
        self.worker: Worker | None = None
        self.beaten = 0.0

    def run(self) -> None:
        """Work until killed."""
        connect_alone()
        while True:
            with ignore_outages():
                try:
                    if self.worker is None:
                        self.worker = Worker.objects.create(identity="soak")
                        offer(self.worker, VERB_JOB, {}, self.lease)
                        self.beaten = time.monotonic()
                    self.step(self.worker)
                except WorkerNotFound:
                    self.worker = None

    def step(self, worker: Worker) -> None:
        """Claim tasks and run them, the slow ones last and one after the other."""
        if time.monotonic() - self.beaten > self.lease.total_seconds() / 4:
            self.beat(worker)
        # Sometimes a single task, because claims of one and of many are different statements.
        limit = CLAIM_LIMIT if random.random() < 0.8 else 1
        granted = Task.objects.grant(worker.pk, "soak", self.lease, limit)
        tasks: dict[Grant, TaskRow] = {(task.id, task.attempt): task for task in granted}
        for task_id, attempt in tasks:
            self.log("granted", id=str(task_id), a=attempt)
        if not tasks:
            self.beat(worker)
            time.sleep(self.lease.total_seconds() / 2)
            return
        if random.random() < 0.005:
            # The worker deregisters while it holds tasks, and reports on them nevertheless.
            self.worker = None
            deregister(worker)
        started = self.report(list(tasks), TaskStatus.RUNNING)
        self.finish([grant for grant in started if not tasks[grant].payload["hold"]])
        for grant in started:
            if seconds := tasks[grant].payload["hold"]:
                beats = tasks[grant].payload["beats"]
                hold(seconds, (lambda: self.beat(worker)) if beats else None)
                self.finish([grant])

    def finish(self, grants: list[Grant]) -> None:
        """Complete most tasks, fail some, and repeat some reports."""
        cut = len(grants) if random.random() < 0.7 else random.randint(0, len(grants))
        self.report(grants[:cut], TaskStatus.COMPLETED)
        self.report(grants[cut:], TaskStatus.FAILED)
        if random.random() < 0.05:
            self.report(grants, TaskStatus.COMPLETED, again=True)

    def beat(self, worker: Worker) -> None:
        """Send a heartbeat that renews all leases of the worker."""
        if Worker.objects.record_heartbeat(worker.pk, "soak") is None:
            raise WorkerNotFound
        Task.objects.renew(worker.pk, self.lease, None)
        self.beaten = time.monotonic()

    def report(self, grants: list[Grant], status: TaskStatus, **extra: Any) -> list[Grant]:
        """Report on tasks in one statement; returns the grants whose report was accepted."""
        if not grants:
            return []
        numbers = [self.log.number() for _ in grants]
        for number, (task_id, attempt) in zip(numbers, grants, strict=True):
            self.log("report", r=number, id=str(task_id), a=attempt, s=status, **extra)
        # With the attempt, because the task may have been granted to this worker again.
        reports = [
            Report(
                task_id,
                status,
                attempt,
                f"of {self.log.name}",
                result=json_dumps(number) if status == TaskStatus.COMPLETED else None,
            )
            for number, (task_id, attempt) in zip(numbers, grants, strict=True)
        ]
        moved = Task.objects.move(reports, "soak")
        done = {(task.id, task.attempt) for task in moved}
        for number, grant in zip(numbers, grants, strict=True):
            self.log("reported", r=number, ok=grant in done)
        return [grant for grant in grants if grant in done]


class Http(BaseModel):
    """The job class of the clients that use HTTP."""

    category: ClassVar[str] = "modifiers"
    marker: str
    hold: float
    beats: bool


#: Errors of the SDK after its last attempt during an outage; the outcome is unknown.
CUT_OFF = (httpx.TransportError, ApiError, ValueError)


def submit_by_http(log: Log, url: str, token: str, total: int, slow: float) -> None:
    """Submit by the SDK until `total` tasks were acknowledged; cancel some and wait for some."""
    with Api(url, token) as api:
        manager = JobManager(api)
        acknowledged = 0
        while acknowledged < total:
            marker = log.number()
            log("submit", m=marker)
            try:
                task_id = manager.submit(Http(**payload(marker, slow)), room=ROOM)
            except CUT_OFF:
                time.sleep(0.1)
                continue
            log("submitted", m=marker, id=task_id)
            acknowledged += 1
            with suppress(*CUT_OFF, TimeoutError):
                if random.random() < 0.01:
                    number = log.number()
                    log("report", r=number, id=task_id, a=None, s="cancelled")
                    report_by_http(log, number, lambda: manager.cancel(task_id))  # noqa: B023
                if random.random() < 0.05:
                    ended = manager.wait(task_id, timeout=2)
                    log("waited", id=task_id, s=str(ended.status), result=ended.result)


def report_by_http(log: Log, number: str, call: Callable[[], Any]) -> bool:
    """Send a report and log its response; without a response nothing is logged."""
    try:
        call()
    except (LeaseLostError, ForbiddenError, InvalidTaskTransitionError):
        log("reported", r=number, ok=False)
        return False
    log("reported", r=number, ok=True)
    return True


def upload_by_http(log: Log, task: ClaimedTask) -> None:
    """Upload a file whose content is the number of the upload, and log the response."""
    number = log.number()
    log("upload", r=number, id=task.id, a=task.attempt)
    report_by_http(log, number, lambda: task.upload(number.encode(), "number"))


def work_by_http(log: Log, url: str, token: str) -> None:
    """Claim, run and report by the SDK until killed."""
    api = Api(url, token)
    manager = JobManager(api)
    beaten = 0.0

    def beat() -> None:
        nonlocal beaten
        with suppress(*CUT_OFF):
            manager.heartbeat()
            beaten = time.monotonic()

    while True:
        try:
            if not manager:
                manager.register(Http)
            if time.monotonic() - beaten > get_settings().worker_timeout_seconds / 3:
                beat()
            task = manager.claim(wait=1)
            if task is None:
                continue
            log("granted", id=task.id, a=task.attempt)

            def report(status: str, call: Callable[[str], Any], **extra: Any) -> bool:
                number = log.number()
                log("report", r=number, id=task.id, a=task.attempt, s=status, **extra)  # noqa: B023
                return report_by_http(log, number, lambda: call(number))

            if not report("running", lambda _: manager.start(task)):  # noqa: B023
                continue
            upload_by_http(log, task)
            hold(task.payload["hold"], beat if task.payload["beats"] else None)
            if random.random() < 0.05:
                report("failed", lambda _: manager.fail(task, f"of {log.name}"))  # noqa: B023
            else:
                report(
                    "completed",
                    lambda number: manager.complete(task, result=number),  # noqa: B023
                )
        except CUT_OFF:
            time.sleep(0.1)
