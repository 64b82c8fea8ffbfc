"""Claims against the stand-in: their limits, their retries, and the end of a task stream."""

from __future__ import annotations

import threading
import time

import httpx
import pytest

from tests.client.stand_in import Rotate, refusal, serve, task, until
from zndraw_joblib.client import NotAuthenticatedError, ServerError, ThrottledError, reports

CLAIM = "POST /tasks/claim"


def claims(server):
    return [call[2] for call in server.sent("POST", "/tasks/claim")]


def test_one_claim_starts_a_task_for_each_free_thread(server, manager):
    server.queue += [task(str(i)) for i in range(8)]
    together = threading.Barrier(4, timeout=10)
    serve(server, manager, 8, lambda claimed: together.wait(), concurrency=4)
    assert claims(server)[0] == {"worker_id": "w1", "limit": 4, "start": True}
    assert server.tasks == {str(i): "completed" for i in range(8)}


def test_idle_threads_share_one_long_poll(server, manager, running):
    running(concurrency=4)
    until(lambda: len(claims(server)) == 2)
    time.sleep(0.1)
    assert claims(server) == [
        {"worker_id": "w1", "limit": 4, "start": True},
        {"worker_id": "w1", "limit": 4},
    ]


def test_a_busy_thread_does_not_keep_others_from_claiming(server, manager, running):
    go = threading.Event()
    server.queue += [task("slow"), *(task(str(i)) for i in range(5))]
    running(lambda claimed: go.wait(10) if claimed.id == "slow" else None, concurrency=2)
    until(lambda: all(server.tasks.get(str(i)) == "completed" for i in range(5)))
    assert server.tasks["slow"] == "running"
    go.set()


def test_a_claim_whose_answer_is_lost_is_not_repeated(server, manager):
    """Control: t is claimed twice when `Claims.send` retries like other requests."""
    manager.register(Rotate)
    for error in (httpx.ReadTimeout("late"), httpx.Response(502)):
        server.fail[CLAIM] = [error]
        with pytest.raises((httpx.ReadTimeout, ServerError)):
            manager.claim()
    assert len(claims(server)) == 2
    server.fail[CLAIM] = [httpx.ConnectError("no"), httpx.Response(503)]
    server.queue.append(task("t"))
    assert manager.claim().id == "t"


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_stop_ends_the_pause_before_the_next_claim(server, manager, running, prefetch):
    """Control: the worker does not end when `Claimer._send` retries a claim by itself."""
    server.fail[CLAIM] = [refusal("throttled", 429, **{"Retry-After": "3600"})]
    thread = running(prefetch=prefetch)
    until(lambda: claims(server))
    manager.stop()
    thread.join(5)
    assert not thread.is_alive()
    assert len(claims(server)) == 1


def test_a_task_stream_raises_an_error_and_can_be_used_further(server, manager):
    manager.register(Rotate)
    server.fail[CLAIM] = [refusal("not-authenticated", 401)]
    with manager.listen() as stream:
        with pytest.raises(NotAuthenticatedError):
            next(stream)
        server.queue.append(task("a"))
        assert next(stream).id == "a"
    assert stream.stopped


def test_a_task_stream_raises_after_six_failed_claims(server, manager, monkeypatch):
    monkeypatch.setattr("zndraw_joblib.client.retry.backoff", lambda attempt: 0.001)
    manager.register(Rotate)
    server.fail[CLAIM] = [refusal("throttled", 429) for _ in range(7)]
    stream = manager.listen()
    with pytest.raises(ThrottledError):
        next(stream)
    assert len(claims(server)) == 6
    server.queue.append(task("a"))
    assert next(stream).id == "a"


def test_a_stop_ends_a_task_stream_for_all_threads(server, manager):
    """Control: a thread waits for ever when `__next__` does not put None back."""
    manager.register(Rotate)
    stream = manager.listen()
    threads = [threading.Thread(target=list, args=(stream,), daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: claims(server))
    manager.stop()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    assert list(manager.listen()) == []


def test_threads_share_a_task_stream(server, manager):
    manager.register(Rotate)
    server.queue += [task(str(i)) for i in range(6)]
    stream, ids = manager.listen(), []

    def take():
        ids.extend(next(stream).id for _ in range(2))

    threads = [threading.Thread(target=take, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(ids) == [str(i) for i in range(6)]


def test_a_single_thread_does_not_wait_for_reports_of_others(server, manager, monkeypatch):
    monkeypatch.setattr(reports, "GATHER_SECONDS", 20.0)
    server.queue += [task(str(i)) for i in range(10)]
    started = time.monotonic()
    serve(server, manager, 10, prefetch=10)
    assert time.monotonic() - started < 10
