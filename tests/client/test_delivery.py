"""The thread that delivers a worker's reports: its failures, interrupts, and withdrawn reports."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from tests.client.stand_in import Rotate, hold_back, refusal, task, until, use


def is_report(request, status=b""):
    return request.method == "PATCH" and "/tasks" in request.url.path and status in request.content


def served(manager, *arguments, **options):
    """Serve in a thread; returns the thread and a list that gets the error of `serve`."""
    manager.register(Rotate)
    errors = []

    def run():
        try:
            manager.serve(*arguments, **options)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, errors


def test_a_report_that_fails_again_and_again_holds_no_other_back(server, manager, running):
    """Control: b stays running if a request waits until all reports of the last have settled."""
    server.queue += [task("a"), task("b")]
    always = refusal("internal-error", 500)

    def failing(request):
        if is_report(request, b'"completed"'):
            if request.url.path.endswith("/tasks/a"):
                return always
            if b'"a"' in request.content:
                return always
        return server(request)

    use(manager, failing)
    running(prefetch=1)
    until(lambda: server.tasks.get("b") == "completed")
    assert server.tasks["a"] == "running"
    use(manager, server)
    until(lambda: server.tasks["a"] == "completed")


def test_an_unexpected_error_of_the_delivering_thread_ends_the_worker(server, manager, caplog):
    """Control: `serve` waits for ever for the ends of tasks that nobody reports."""
    server.queue += [task("a"), task("b")]
    manager.register(Rotate)

    def broken(request):
        if is_report(request):
            raise ValueError("no such thing")
        return server(request)

    use(manager, broken)
    with pytest.raises(ValueError, match="no such thing"):
        manager.serve(prefetch=1)
    assert manager._grants.held() == []
    (record,) = [one for one in caplog.records if "delivers reports" in one.getMessage()]
    assert record.worker_id == "w1"


def test_a_task_granted_after_the_end_of_the_delivery_is_dropped(server, manager):
    """Control: `serve` waits for ever if `Worker._run_in_thread` runs it all the same."""
    claiming, failed = threading.Event(), threading.Event()

    def broken(request):
        if is_report(request):
            assert claiming.wait(10)
            failed.set()
            raise ValueError("no such thing")
        starts = request.url.path.endswith("/claim") and b'"start"' in request.content
        if starts and "a" not in [one["id"] for one in server.queue]:
            claiming.set()
            assert failed.wait(10)
            time.sleep(0.2)
            server.queue.append(task("b"))
        return server(request)

    use(manager, broken)
    server.queue.append(task("a"))
    thread, errors = served(manager, lambda claimed: None, concurrency=2)
    thread.join(10)
    assert not thread.is_alive()
    assert [str(error) for error in errors] == ["no such thing"]
    assert manager._grants.held() == []
    # Their marks are gone too, so that a later cancel is noticed.
    assert manager._grants._ending == set()


def test_an_error_while_an_end_is_posted_ends_the_worker(server, manager, monkeypatch):
    """Control: the thread is gone in silence, and `serve` does not return after a stop."""
    server.queue.append(task("a"))
    explanation = manager._pulse.explanation
    calls = []

    def failing(claimed):
        if threading.current_thread().name.startswith("joblib-work"):
            calls.append(claimed.id)
            if len(calls) == 2:
                raise OSError("a log handler of the site")
        return explanation(claimed)

    monkeypatch.setattr(manager._pulse, "explanation", failing)
    thread, errors = served(manager, lambda claimed: None, prefetch=1)
    thread.join(10)
    assert not thread.is_alive()
    assert [str(error) for error in errors] == ["a log handler of the site"]
    assert manager._grants.held() == []


def test_a_start_that_is_accepted_after_an_interrupt_holds_nothing(server, manager):
    """Control: the manager waits for ever for a task that no thread runs."""
    reporting, go = hold_back(server, manager, lambda sent: is_report(sent, b'"running"'))

    def interrupt_twice():
        assert reporting.wait(10)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)

    server.queue.append(task("a"))
    manager.register(Rotate)
    interrupts = threading.Thread(target=interrupt_twice)
    interrupts.start()
    with manager:
        with pytest.raises(KeyboardInterrupt):
            manager.serve(lambda claimed: None, prefetch=1)
        interrupts.join()
        server.release()
        go.set()
        until(lambda: not manager._grants.held())
    assert server.calls[-1][:2] == ("DELETE", "/workers/w1")


def test_an_interrupted_report_is_not_sent_with_a_later_one(server, manager):
    """Control: the report of z also completes y."""
    sending, go = hold_back(server, manager, lambda sent: sent.url.path.endswith("/tasks/x"))
    first = threading.Thread(target=manager.complete, args=("x",))
    first.start()
    assert sending.wait(10)
    main = threading.main_thread().ident
    timer = threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        manager.complete("y")
    timer.join()
    go.set()
    first.join(10)
    manager.complete("z")
    assert server.tasks == {"x": "completed", "z": "completed"}
    assert manager._grants._ending == set()
