"""Processes that are started inside a task: they end as outside a worker and leave it alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.client.jobs import Double, Processes, sleep
from tests.client.stand_in import Rotate, task, use
from tests.servers import ROOT, process, server, until
from zndraw_joblib.client import Api, JobManager, forks
from zndraw_joblib.client.forks import reset_after_fork, signals_call
from zndraw_joblib.models import Task, Worker

KINDS = [
    *("pool", "pool-spawn", "pool-forkserver", "terminated", "interrupted", "ended", "exited"),
    *("executor", "command", "forked", "submits"),
]


@pytest.mark.django_db(transaction=True)
def test_tasks_may_start_processes_of_every_kind(root):
    """Control: without `_restore_handlers` the kinds pool and terminated hang; with a
    `ThreadPoolExecutor` the kinds ended and submits fail, because the children exit with 1."""
    with server() as url, Api(url, root.token) as api:
        environment = {"JOBLIB_URL": url, "JOBLIB_TOKEN": root.token}
        with process("-m", "tests.client.jobs", **environment) as child:
            until(lambda: Worker.objects.exists() and Worker.objects.get().links.count() == 2)
            manager = JobManager(api)
            ids = manager.submit_many([Processes(kind=kind) for kind in KINDS], room="open")
            unfinished = {"pending", "claimed", "running"}
            until(lambda: not Task.objects.filter(pk__in=ids, status__in=unfinished).exists(), 60)
            tasks = Task.objects.filter(pk__in=ids)
            errors = {task.payload["kind"]: task.error for task in tasks}
            assert errors == dict.fromkeys(KINDS)
            # The task that a child submitted, and that the worker still runs.
            (doubled,) = Task.objects.filter(job__name="Double")
            assert manager.wait(str(doubled.pk), timeout=20).status == "completed"
            assert set(Task.objects.values_list("attempt", flat=True)) == {1}
            assert Worker.objects.count() == 1
            assert manager.wait(manager.submit(Double(number=1), room="open"), 20).status
            child.send_signal(signal.SIGTERM)
            assert child.wait(15) == 0
    assert not Worker.objects.exists()


def test_an_interrupt_during_a_fork_is_not_lost():
    """Control: without the timer of `_after_fork` the child sleeps on and ends with 4; with a
    signal to the timer's own thread the sleep is not cut short and it ends with 5."""

    class Slow:
        def after_fork(self):
            time.sleep(0.3)

    slow = Slow()
    reset_after_fork(slow)
    with signals_call(lambda: None):
        child = os.fork()
        if child == 0:
            begun = time.monotonic()
            with suppress(BaseException):
                try:
                    time.sleep(5)
                except KeyboardInterrupt:
                    os._exit(3 if time.monotonic() - begun < 4 else 5)
            os._exit(4)
        time.sleep(0.1)
        os.kill(child, signal.SIGINT)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


def in_child(function: Callable[[], Any]) -> int:
    """Call a function in a forked child; returns the child's exit code."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = function() or 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_child_has_the_handlers_from_before_the_worker():
    """Control: the child ends with 1 when `_restore_handlers` does nothing."""

    def own(number, frame):
        os._exit(7)

    before = signal.signal(signal.SIGTERM, own)
    try:
        stopped = threading.Event()
        with signals_call(stopped.set):
            assert signal.getsignal(signal.SIGTERM) is not own
            assert in_child(lambda: signal.getsignal(signal.SIGTERM) is not own) == 0
            assert in_child(lambda: os.kill(os.getpid(), signal.SIGTERM)) == 7
            os.kill(os.getpid(), signal.SIGTERM)
            assert stopped.wait(5)
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_reaches_a_child_that_was_forked_just_before():
    """Control: most of the children sleep on when `_block_signals` does nothing."""
    fork = multiprocessing.get_context("fork")

    def start_and_terminate():
        for _ in range(20):
            child = fork.Process(target=sleep, args=(60,))
            child.start()
            child.terminate()
            child.join(10)
            codes.append(child.exitcode)
            child.kill()

    codes: list[int | None] = []
    with signals_call(lambda: None):
        thread = threading.Thread(target=start_and_terminate)
        thread.start()
        thread.join()
    assert codes == [-signal.SIGTERM] * 20
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_signal_in_a_child_that_python_did_not_see_forked_has_its_usual_effect():
    """C code may fork; Python then calls no function in the child."""
    with signals_call(lambda: None):
        handler = signal.getsignal(signal.SIGTERM)

        def child():
            signal.signal(signal.SIGTERM, handler)
            forks._replaced[signal.SIGTERM] = (handler, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)
            return 1

        assert in_child(child) == -signal.SIGTERM


def test_a_child_of_a_manager_has_neither_its_worker_nor_its_tasks(server, manager):
    """Control: the child deletes w1 when `JobManager.after_fork` does nothing."""
    manager.register(Rotate)
    server.queue.append(task("a"))
    with manager:
        assert manager.claim().id == "a"

        def child():
            calls = len(server.calls)
            manager.__exit__(None, None, None)
            assert server.calls[calls:] == []
            server.queue.append(task("b"))
            assert manager.claim().id == "b"
            # The child has made a worker of its own, which offers the same job.
            made = [call[:2] for call in server.calls[calls:]]
            assert made[:2] == [("POST", "/workers"), ("PUT", "/rooms/@global/jobs")]
            assert manager.worker_id == "w2"
            return 0

        assert in_child(child) == 0
        manager.complete("a")
    assert server.calls[-1][:2] == ("DELETE", "/workers/w1")


def test_a_child_sends_its_requests_over_connections_of_its_own():
    """Control: the clients are the same when `Api.after_fork` does nothing."""
    with Api("http://x") as api:
        client = api.http
        assert in_child(lambda: int(api.http is client)) == 0
        assert api.http is client


def test_a_child_may_use_a_manager_whose_thread_was_sending(server, manager):
    """The lock of the sending thread stays locked in the child, where this thread is missing."""
    manager.register(Rotate)
    sending, go = threading.Event(), threading.Event()

    def slow(request):
        sending.set()
        assert go.wait(10)
        return server(request)

    use(manager, slow)
    thread = threading.Thread(target=manager.complete, args=("a",))
    thread.start()
    assert sending.wait(10)

    def child():
        use(manager, server)
        return int(manager.complete("b").status != "completed")

    assert in_child(child) == 0
    go.set()
    thread.join(10)


SPAWNING = """
import multiprocessing
import httpx
from pydantic import BaseModel
from tests.client.stand_in import Server
from zndraw_joblib.client import Api, JobManager

server = Server()
manager = JobManager(Api("http://x", transport=httpx.MockTransport(server)))


@manager.register
class Plain(BaseModel):
    pass


def calls(_):
    registered = len(server.calls), list(manager)
    manager.claim()
    return registered, [call[:2] for call in server.calls]


if __name__ == "__main__":
    for method in ("spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            print(pool.map(calls, [0]))
"""


def test_a_spawned_process_that_imports_the_script_again_makes_no_worker(tmp_path):
    """It makes one at its first claim, because it may be a worker process of its own."""
    script = tmp_path / "script.py"
    script.write_text(SPAWNING)
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    made = [("POST", "/workers"), ("PUT", "/rooms/@global/jobs"), ("POST", "/tasks/claim")]
    expected = [((0, ["@global:modifiers:Plain"]), made)]
    assert done.stdout.splitlines() == [repr(expected)] * 2
