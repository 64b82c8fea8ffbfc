"""Results, progress and retries of the SDK against a server process, over HTTP."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
from pydantic import BaseModel

from tests.servers import server, until
from zndraw_joblib.client import Api, Cancelled, ClaimedTask, GiveUp, JobManager, RetryLater, files
from zndraw_joblib.client.api import path, send
from zndraw_joblib.client.functions import model_of
from zndraw_joblib.models import Job, Task

pytestmark = pytest.mark.django_db(transaction=True)


class Energies(BaseModel):
    values: list[float]
    unit: str = "eV"


@pytest.fixture(scope="module")
def url(django_db_setup, django_db_blocker):
    """One server for all tests, because its start takes longer than a test."""
    limits = {"ZNDRAW_JOBLIB_MAX_RESULT_BYTES": "1000"}
    with django_db_blocker.unblock(), server(**limits) as address:
        yield address


@pytest.fixture
def manager(url, bob):
    with Api(url, bob.token) as api:
        yield JobManager(api, heartbeat_interval=0.1, long_poll=1)


@contextmanager
def serving(manager, **options):
    thread = threading.Thread(target=manager.serve, kwargs=options, daemon=True)
    thread.start()
    try:
        yield
    finally:
        manager.stop()
        thread.join(20)
        assert not thread.is_alive()


def ended(manager, function, **values):
    """The row of a task of a function, after its end."""
    instance = model_of(function)(**values)
    task_id = manager.submit(instance, room="open", job_room="open")
    manager.wait(task_id, timeout=20)
    return Task.objects.get(pk=task_id)


def test_the_value_of_a_function_arrives_as_its_return_type(manager):
    @manager.job(room="open")
    def energies(count: int, copy: bool = False, *, task: ClaimedTask) -> Energies:
        for number in task.track(range(count)):
            task.progress(None, f"step {number}")
        return Energies(values=list(np.full(count, float(copy))))

    with serving(manager, prefetch=5, concurrency=2):
        handle = manager.send(energies, 3, copy=True, room="open")
        assert handle.result(timeout=20) == Energies(values=[1.0, 1.0, 1.0])
        done = Task.objects.get()
        assert done.result == {"values": [1.0, 1.0, 1.0], "unit": "eV"}
        assert (done.progress, done.message) == (1.0, "step 2")
        large = ended(manager, energies, count=400)
        assert (large.status, large.result) == ("failed", None)
        assert "and the server accepts 1000. Upload it as a file: task.upload(" in large.error


def test_retries_follow_the_registration_and_the_exception(manager):
    attempts = []

    @manager.job(room="open", retry={"max_retries": 2, "backoff_seconds": 0}, durable=True)
    def flaky(kind: str, task: ClaimedTask) -> int:
        attempts.append(kind)
        if kind == "give up":
            raise GiveUp("no such file")
        if task.attempt < 3:
            raise RetryLater(0.01, "busy")
        return task.attempt

    assert Job.objects.get().durable
    with serving(manager):
        failed = ended(manager, flaky, kind="give up")
        assert (failed.status, failed.attempt) == ("failed", 1)
        assert failed.error.startswith("GiveUp: no such file")
        done = ended(manager, flaky, kind="retry")
        assert (done.status, done.attempt, done.result) == ("completed", 3, 3)
    assert attempts == ["give up", "retry", "retry", "retry"]


@pytest.mark.parametrize("by", ["this manager", "another"])
def test_a_cancel_ends_a_running_task_at_its_next_checkpoint(manager, by):
    """Control: with `this manager` the task never ends when `cancelled` asks for marks alone."""
    outcome = []
    began = threading.Event()

    @manager.job(room="open")
    def endless(task: ClaimedTask) -> None:
        began.set()
        try:
            while True:
                task.checkpoint()
                time.sleep(0.01)
        except Cancelled:
            outcome.append("cancelled")
            raise

    with serving(manager):
        task_id = manager.submit(model_of(endless)(), room="open", job_room="open")
        assert began.wait(10)
        (manager if by == "this manager" else JobManager(manager.api)).cancel(task_id)
        until(lambda: outcome == ["cancelled"])
    assert Task.objects.get().status == "cancelled"


def test_a_task_writes_its_log_although_the_server_is_asked_once_a_second(manager):
    @manager.job(room="open")
    def talk(task: ClaimedTask) -> None:
        handler = task.logging_handler()
        logger = logging.getLogger("tests.talk")
        logger.addHandler(handler)
        try:
            for number in range(50):
                task.log(f"line {number} ä")
                logger.warning("record %d", number)
        finally:
            logger.removeHandler(handler)

    with serving(manager):
        done = ended(manager, talk)
    assert done.status == "completed"
    url = path("tasks", str(done.pk), "log")
    log = send(manager.api, "GET", url, read=lambda answer: answer.json())
    assert log["text"] == "".join(f"line {n} ä\nrecord {n}\n" for n in range(50))
    assert log["ended"]


def test_a_task_uploads_files_and_returns_their_descriptions(manager, tmp_path):
    @manager.job(room="open")
    def store(task: ClaimedTask) -> list[dict]:
        (tmp_path / "a.txt").write_text("text")
        return [task.upload(tmp_path / "a.txt"), task.upload(b"data", "b.bin")]

    with serving(manager):
        done = ended(manager, store)
    assert done.status == "completed", done.error
    assert [(one["name"], one["size"]) for one in done.result] == [("a.txt", 4), ("b.bin", 4)]
    assert files.download(manager.api, str(done.pk), "a.txt") == b"text"
