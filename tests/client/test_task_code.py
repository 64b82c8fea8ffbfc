"""Task code that raises whatever Python can raise: the task fails, and the worker goes on."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading

import pytest
from pydantic import BaseModel, field_validator

from tests.client.stand_in import Rotate, bodies, serve, task, until, use
from tests.servers import ROOT
from zndraw_joblib.client import heartbeats


class PanicException(BaseException):
    """As a Rust extension raises it."""


class Unprintable(Exception):
    def __str__(self):
        raise SystemExit("no text")

    __repr__ = __str__


class NoText(Exception):
    def __str__(self):
        return 7


class Locks(Exception):
    """Its text needs a thread that logs."""

    def __str__(self):
        thread = threading.Thread(target=logging.getLogger().warning, args=("from a thread",))
        thread.start()
        thread.join(10)
        return "stuck" if thread.is_alive() else "went on"


class FailingMeta(type):
    def __getattribute__(cls, name):
        if name == "__name__":
            raise LookupError
        return super().__getattribute__(name)


class Nameless(Exception, metaclass=FailingMeta):
    pass


def recurse():
    recurse()


def nested_group():
    error: Exception = ValueError("inner")
    for _ in range(5000):
        error = ExceptionGroup("outer", [error])
    return error


def cause_of_itself():
    error = ValueError("round")
    error.__cause__ = error
    return error


def exit_thread():
    """`sys.exit` in a thread of the task ends this thread only."""
    thread = threading.Thread(target=sys.exit, args=(3,))
    thread.start()
    thread.join()
    raise ValueError("after the thread")


#: Exceptions or functions that raise, and the beginning of the reported error.
FAILURES = {
    "plain-exit": (SystemExit(0), "SystemExit: 0"),
    "exit-with-text": (SystemExit("bye"), "SystemExit: bye"),
    "interrupt": (KeyboardInterrupt(), "KeyboardInterrupt: "),
    "cancelled": (asyncio.CancelledError("c"), "CancelledError: c"),
    "generator-exit": (GeneratorExit(), "GeneratorExit: "),
    "stop-iteration": (StopIteration(1), "StopIteration: 1"),
    "panic": (PanicException("panicked"), "PanicException: panicked"),
    "bare": (BaseException("bare"), "BaseException: bare"),
    "unprintable": (Unprintable(), "Unprintable: (no message, because str() raised SystemExit)"),
    "no-text": (NoText(), "NoText: (no message, because str() raised TypeError)"),
    "nameless": (Nameless("m"), "an exception without a name: m"),
    "locks": (Locks(), "Locks: went on"),
    "recursion": (recurse, "RecursionError: maximum recursion depth"),
    "memory": (MemoryError(), "MemoryError: "),
    "group": (ExceptionGroup("several", [ValueError("one")]), "ExceptionGroup: several"),
    "base-group": (BaseExceptionGroup("all", [SystemExit(1)]), "BaseExceptionGroup: all"),
    "nested-group": (nested_group(), "ExceptionGroup: outer (1 sub-exception)"),
    "cause-of-itself": (cause_of_itself(), "ValueError: round"),
    "huge": (ValueError("x" * 20_000_000), "ValueError: xxx"),
    "nul": (ValueError("A\x00B\ud800"), "ValueError: A\ufffdB\ufffd\n"),
    "thread": (exit_thread, "ValueError: after the thread"),
}


def raise_failure(claimed):
    failure = FAILURES[claimed.id][0] if claimed.id in FAILURES else None
    if isinstance(failure, BaseException):
        raise failure
    if failure is not None:
        failure()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("prefetch", [0, 3])
def test_every_exception_of_a_task_fails_this_task_alone(server, manager, prefetch):
    """Control: the worker ends after the first exit when `execute_task` calls a stop."""
    server.queue += [task(name) for name in [*FAILURES, "last"]]
    serve(server, manager, len(FAILURES) + 1, raise_failure, prefetch=prefetch)
    assert server.tasks == {**dict.fromkeys(FAILURES, "failed"), "last": "completed"}
    for name, (_, beginning) in FAILURES.items():
        (error,) = [b["error"] for b in bodies(server, name) if b["status"] == "failed"]
        assert error.startswith(beginning), name
        assert len(error.encode()) <= 8192
        assert "raceback" in error, name
    assert server.workers == 1


class FailingHandler(logging.Handler):
    def emit(self, record):
        raise SystemExit(record.getMessage())


def test_a_log_handler_that_fails_does_not_end_the_worker(server, manager):
    handler = FailingHandler(logging.ERROR)
    logging.getLogger("zndraw_joblib").addHandler(handler)
    try:
        server.queue += [task("exit-with-text"), task("last")]
        serve(server, manager, 2, raise_failure)
    finally:
        logging.getLogger("zndraw_joblib").removeHandler(handler)
    assert server.tasks == {"exit-with-text": "failed", "last": "completed"}


class Strict(BaseModel):
    angle: int

    @field_validator("angle")
    @classmethod
    def _refuse(cls, angle):
        if angle == 1:
            raise SystemExit("a validator")
        if angle == 2:
            raise LookupError("a validator")
        return angle

    def run(self):
        pass


def test_an_exception_of_a_validator_fails_this_task_alone(server, manager, running):
    """Control: the worker ends with the LookupError when only `ValidationError` is caught."""
    manager.register(Strict)
    name = "@global:modifiers:Strict"
    server.queue += [task(str(i), job_name=name, payload={"angle": i}) for i in (1, 2, 3)]
    running()
    until(lambda: server.tasks == {"1": "failed", "2": "failed", "3": "completed"})
    assert bodies(server, "1")[-1]["error"].startswith("SystemExit: a validator")
    assert bodies(server, "2")[-1]["error"].startswith("LookupError: ")


@pytest.mark.parametrize("error", [RuntimeError("broken"), SystemExit(0), KeyboardInterrupt()])
@pytest.mark.parametrize("broken", ["claim", "report", "heartbeat"])
def test_serve_raises_when_a_thread_of_the_worker_fails(server, manager, error, broken):
    """Control: serve never returns when `Claimer._run`, `Worker._work` or `Heartbeats._run` catch
    `Exception` only, because a thread that raises `SystemExit` ends in silence."""
    requests = {
        "claim": ("POST", "/tasks/claim"),
        "report": ("PATCH", "/tasks/a"),
        "heartbeat": ("PATCH", "/workers/w1"),
    }
    server.queue.append(task("a"))

    def transport(request):
        if (request.method, request.url.path.removeprefix("/v1/joblib")) == requests[broken]:
            raise error
        return server(request)

    manager.register(Rotate)
    use(manager, transport)
    if broken == "heartbeat" and isinstance(error, Exception):
        return  # Heartbeats are sent again after an `Exception`; see the next test.
    with pytest.raises(RuntimeError) as caught:
        manager.serve()
    assert error in (caught.value, caught.value.__cause__)
    assert server.calls[-1][:2] == ("DELETE", "/workers/w1")


def test_heartbeats_go_on_after_an_error_of_host_code(server, manager, monkeypatch, running):
    monkeypatch.setattr(heartbeats, "LONGEST_PAUSE", 0.01)
    real, failed = manager.api.get_headers, threading.Event()

    def get_headers():
        if threading.current_thread().name == "joblib-heartbeat" and not failed.is_set():
            failed.set()
            raise LookupError("no token")
        return real()

    manager.api.get_headers = get_headers
    running()
    until(failed.is_set)
    until(lambda: server.sent("PATCH", "/workers"))


def test_a_failing_heartbeat_thread_interrupts_a_stream(server, manager):
    manager.register(Rotate)

    def transport(request):
        if request.url.path.endswith("/workers/w1") and request.method == "PATCH":
            raise SystemExit
        return server(request)

    use(manager, transport)
    with pytest.raises(RuntimeError, match="ended with SystemExit"), manager:
        next(manager.listen())


SCRIPT = """
import httpx
from tests.client.stand_in import Rotate, Server, refusal
from zndraw_joblib.client import Api, JobManager

server = Server()
server.fail["POST /tasks/claim"] = [refusal("forbidden", 403)]
manager = JobManager(Api("http://x", transport=httpx.MockTransport(server)))
manager.register(Rotate)
manager.serve()
"""


def test_a_worker_that_ends_because_of_an_error_exits_with_1():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1
    assert "ForbiddenError" in done.stderr


ENDLESS = """
import threading
import httpx
from tests.client.stand_in import Rotate, Server, task
from zndraw_joblib.client import Api, JobManager

def execute(claimed):
    print("running", flush=True)
    threading.Event().wait()

server = Server()
server.queue.append(task("a"))
manager = JobManager(Api("http://x", transport=httpx.MockTransport(server)))
manager.register(Rotate)
manager.serve(execute)
"""


def test_a_second_interrupt_ends_a_worker_whose_task_does_not_end():
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as worker:
        try:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "running\n"
            worker.send_signal(signal.SIGINT)
            with pytest.raises(subprocess.TimeoutExpired):
                worker.wait(1)
            worker.send_signal(signal.SIGINT)
            assert worker.wait(10) == -signal.SIGINT
        finally:
            worker.kill()
