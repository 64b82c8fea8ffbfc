"""The worker against the stand-in: requests for each task, prefetch, batched reports, stops."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import httpx
import pytest

from tests.client.stand_in import (
    NOW,
    Lost,
    Rotate,
    bodies,
    granted,
    hold_back,
    refusal,
    serve,
    task,
    until,
    use,
)
from zndraw_joblib.client import (
    Api,
    InvalidTaskTransitionError,
    JobManager,
    LeaseLostError,
    NotAuthenticatedError,
    TaskInfo,
    TaskNotFoundError,
)
from zndraw_joblib.client.reports import Report
from zndraw_joblib.lifecycle import TaskStatus


def counts(server):
    """Numbers of short claims, of long polls and of reports."""
    short = [c for c in server.sent("POST", "/tasks/claim") if c[2].get("start")]
    return Counter(
        short=len(short),
        long=len(server.sent("POST", "/tasks/claim")) - len(short),
        reports=len(server.sent("PATCH", "/tasks")),
    )


def test_claim_many_claims_up_to_the_limit_in_one_request(server, manager):
    manager.register(Rotate)
    server.queue += [task(x) for x in "abc"]
    assert [one.id for one in manager.claim_many(2)] == ["a", "b"]
    assert server.sent("POST", "/tasks/claim")[0][2] == {"worker_id": "w1", "limit": 2}
    (last,) = manager.claim_many(1000, start=True)
    assert (last.id, last.status) == ("c", "running")
    # The limit is cut to the server's maximum.
    assert server.sent("POST", "/tasks/claim")[1][2]["limit"] == 500
    assert manager.claim_many(2) == []
    manager.heartbeat()
    held = server.sent("PATCH", "/workers")[-1][2]["tasks"]
    assert [one["id"] for one in held] == ["a", "b", "c"]


def test_a_heartbeat_for_many_tasks_is_split_into_several_requests(server, manager):
    manager.register(Rotate)
    server.queue += [task(str(i)) for i in range(1100)]
    claimed = [one for _ in range(3) for one in manager.claim_many(500)]
    for part in ("0", "600"):
        answer = {"id": "w1", "last_heartbeat": NOW, "cancelled": [part]}
        server.fail.setdefault("PATCH /workers/w1", []).append(httpx.Response(200, json=answer))
    reply = manager.heartbeat()
    assert [len(c[2]["tasks"]) for c in server.sent("PATCH", "/workers")] == [500, 500, 100]
    assert reply.cancelled == ["0", "600"]
    assert [one.id for one in claimed if manager.should_stop(one)] == ["0", "600"]


def test_a_task_takes_two_requests_while_tasks_are_pending(server, manager):
    server.queue += [task(str(i)) for i in range(5)]
    serve(server, manager, 5)
    sent = counts(server)
    assert sent["reports"] == 5
    # The sixth claim returned no task, so a long poll followed.
    assert sent["short"] == 6
    assert sent["long"] <= 1
    assert set(server.tasks.values()) == {"completed"}


def test_a_long_poll_does_not_start_the_task(server, manager, running):
    running()
    until(lambda: counts(server)["long"] == 1)
    server.queue.append(task("a"))
    server.release()
    until(lambda: server.tasks.get("a") == "completed")
    assert [body["status"] for body in bodies(server, "a")] == ["running", "completed"]
    assert all("prefer" not in c[2] for c in server.calls if c[2])


def test_a_task_that_a_claim_started_during_a_stop_is_run(server, manager):
    """If it were dropped, deleting the worker would end it as failed.

    Control: fails when leaving does not wait for claims with `start` (`Grants.wait_until_none`).
    """
    manager.register(Rotate)
    server.queue.append(task("a"))
    claiming, go = hold_back(server, manager, lambda sent: sent.url.path.endswith("/claim"))
    with manager:
        thread = threading.Thread(target=manager.serve, daemon=True)
        thread.start()
        assert claiming.wait(10)
        manager.stop()
        threading.Timer(0.3, go.set).start()
        # Leaving the block waits for the claim, too.
    thread.join(10)
    assert not thread.is_alive()
    assert server.tasks == {"a": "completed"}
    assert server.calls[-1][:2] == ("DELETE", "/workers/w1")


def test_prefetch_claims_ahead_and_reports_an_end_together_with_the_next_start(server, manager):
    server.queue += [task(str(i), payload={"angle": i}) for i in range(9)]
    serve(server, manager, 9, prefetch=8)
    claims = server.sent("POST", "/tasks/claim")
    # One task for the idle thread and eight ahead; later claims fill up once half of them are used.
    assert claims[0][2] == {"worker_id": "w1", "limit": 9}
    assert all("start" not in c[2] for c in claims)
    assert len(claims) <= 3
    assert Rotate.ran == list(range(9))
    assert server.tasks == {str(i): "completed" for i in range(9)}
    sent = [c[2] for c in server.sent("PATCH", "/tasks")]
    assert sent[0] == {"status": "running", "attempt": 1}
    assert [[(one["id"], one["status"]) for one in pair] for pair in sent[1:-1]] == [
        [(str(i), "completed"), (str(i + 1), "running")] for i in range(8)
    ]
    assert sent[-1] == {"status": "completed", "attempt": 1}


def test_heartbeats_renew_prefetched_tasks(server, manager, running):
    server.queue += [task(x) for x in "abc"]
    go = threading.Event()
    running(lambda claimed: go.wait(10), prefetch=2)
    renewed = [{"id": x, "attempt": 1} for x in "abc"]
    until(lambda: {"tasks": renewed} in [c[2] for c in server.sent("PATCH", "/workers")])
    go.set()


def test_a_cancelled_prefetched_task_is_not_run(server, manager, running):
    """Control: b runs when `Worker._take_queued` does not look at the grants."""
    server.queue += [task(x) for x in "abcd"]
    server.refused["d"] = "invalid-task-transition"
    go, ran = threading.Event(), []

    def execute(claimed):
        ran.append(claimed.id)
        assert go.wait(10)

    running(execute, prefetch=3)
    until(lambda: ran)
    answer = {"id": "w1", "last_heartbeat": NOW, "cancelled": ["b"], "lost": []}
    server.fail["PATCH /workers/w1"] = [httpx.Response(200, json=answer)]
    until(lambda: any(manager.should_stop(one) for one in granted("b")))
    go.set()
    # A heartbeat has listed b as cancelled; for d only the refusal of its start shows it.
    until(lambda: server.tasks.get("c") == "completed" and bodies(server, "d"))
    assert ran == ["a", "c"]
    assert bodies(server, "b") == []
    until(lambda: server.sent("PATCH", "/workers")[-1][2] == {"tasks": []})


def test_a_stop_drops_prefetched_tasks_and_lets_the_running_one_finish(server, manager, running):
    server.queue += [task(x) for x in "abc"]
    began, go = threading.Event(), threading.Event()

    def execute(claimed):
        began.set()
        assert go.wait(10)

    thread = running(execute, prefetch=2)
    assert began.wait(10)
    manager.stop()
    # Only the lease of the running task is renewed, so that the others can be granted again.
    heartbeat = {"tasks": [{"id": "a", "attempt": 1}]}
    until(lambda: [c[2] for c in server.sent("PATCH", "/workers")][-1:] == [heartbeat])
    assert thread.is_alive()
    go.set()
    thread.join(10)
    assert server.tasks == {"a": "completed"}
    assert server.calls[-1][:2] == ("DELETE", "/workers/w1")


def test_a_stop_ends_idle_prefetching_threads_at_once(server, manager, running):
    thread = running(prefetch=4, concurrency=3)
    until(lambda: counts(server)["long"] == 1)
    started = time.monotonic()
    manager.stop()
    thread.join(10)
    # Without the stop the long poll would end after 20 s.
    assert time.monotonic() - started < 5
    # A task that the long poll returns after the stop is dropped.
    server.queue.append(task("late"))
    server.release()
    until(lambda: not server.queue)
    until(lambda: not manager._grants.held())
    assert "late" not in server.tasks


def test_prefetched_tasks_run_concurrently(server, manager):
    server.queue += [task(str(i)) for i in range(6)]
    together = threading.Barrier(3, timeout=10)
    serve(server, manager, 6, lambda claimed: together.wait(), concurrency=3, prefetch=3)
    assert server.tasks == {str(i): "completed" for i in range(6)}


def test_a_prefetching_worker_retries_claims_while_the_server_is_unreachable(server, manager):
    server.fail["POST /tasks/claim"] = [httpx.ConnectError("no")] * 3 + [httpx.Response(502)]
    server.queue.append(task("a"))
    serve(server, manager, 1, prefetch=2)
    assert server.tasks == {"a": "completed"}


def test_a_prefetching_worker_raises_a_refusal_and_deletes_itself(server, manager):
    manager.register(Rotate)
    server.fail["POST /tasks/claim"] = [refusal("not-authenticated", 401)]
    with pytest.raises(NotAuthenticatedError):
        manager.serve(concurrency=2, prefetch=2)
    assert server.calls[-1][:2] == ("DELETE", "/workers/w1")


def test_a_prefetching_worker_polls_a_server_that_does_not_wait(server, manager, monkeypatch):
    monkeypatch.setattr("zndraw_joblib.client.claiming.INTERVAL", 0.05)
    server.honours_waits = False
    threading.Timer(0.3, server.queue.append, (task("a"),)).start()
    serve(server, manager, 1, prefetch=2)
    assert server.tasks == {"a": "completed"}
    assert 2 <= counts(server)["long"] < 40


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"prefetch": -1}])
def test_serve_needs_a_thread_and_a_prefetch_of_at_least_zero(manager, options):
    with pytest.raises(ValueError, match="at least"):
        manager.serve(**options)


def test_a_refused_report_of_an_old_attempt_does_not_drop_the_new_attempt(server, manager):
    """Control: fails when `Grants.drop` does not compare attempts."""
    manager.register(Rotate)
    server.queue += [task("a")]
    old = manager.claim()
    server.queue += [task("a", attempt=2)]
    new = manager.claim()
    assert manager.should_stop(old)
    assert not manager.should_stop(new)
    server.fail["PATCH /tasks/a"] = [refusal("lease-lost")]
    with pytest.raises(LeaseLostError):
        manager.complete(old)
    manager.heartbeat()
    assert server.sent("PATCH", "/workers")[-1][2] == {"tasks": [{"id": "a", "attempt": 2}]}


class Gate:
    """Blocks the first report until all others wait, so that they are sent as one batch."""

    def __init__(self, server, manager):
        self.held, self.go = threading.Event(), threading.Event()

        def transport(request):
            if request.method == "PATCH" and not self.held.is_set():
                self.held.set()
                assert self.go.wait(10)
            return server(request)

        self.reporter = manager._reporter
        use(manager, transport)

    def send(self, manager, calls):
        """Make each call in a thread of its own; returns the results or errors in their order."""
        results: list[Any] = [None] * len(calls)

        def call(index):
            try:
                results[index] = calls[index]()
            except BaseException as error:
                results[index] = error

        threads = [threading.Thread(target=call, args=(i,), daemon=True) for i in range(len(calls))]
        threads[0].start()
        assert self.held.wait(10)
        for number, thread in enumerate(threads[1:], 1):
            thread.start()
            until(lambda: len(self.reporter._waiting) == number)  # noqa: B023
        self.go.set()
        for thread in threads:
            thread.join(10)
        return results


def reports_on(manager, ids):
    return [lambda one=one: manager.complete(one) for one in granted(*ids)]


def test_concurrent_reports_are_sent_as_a_batch_with_an_outcome_each(server, manager):
    server.refused.update(c="lease-lost", d="invalid-task-transition", e="task-not-found")
    results = Gate(server, manager).send(manager, reports_on(manager, "abcdef"))
    assert [type(result) for result in results] == [
        *(TaskInfo, TaskInfo, LeaseLostError, InvalidTaskTransitionError),
        *(TaskNotFoundError, TaskInfo),
    ]
    assert [result.id for result in results if isinstance(result, TaskInfo)] == list("abf")
    assert (results[2].status, results[2].problem["detail"]) == (409, "why")
    single, batch = server.sent("PATCH", "/tasks")
    assert single[1] == "/tasks/a"
    assert batch[2] == [{"id": x, "status": "completed", "attempt": 1} for x in "bcdef"]


def test_a_batch_of_reports_is_retried_until_it_succeeds(server, manager):
    server.fail["PATCH /tasks"] = [Lost(), httpx.Response(503)]
    results = Gate(server, manager).send(manager, reports_on(manager, "abc"))
    assert [result.status for result in results] == ["completed"] * 3
    assert len(server.sent("PATCH", "/tasks")) == 4


@pytest.mark.parametrize("status", [400, 413, 422])
def test_the_reports_of_a_refused_batch_are_sent_one_by_one(server, manager, status):
    server.fail["PATCH /tasks"] = [httpx.Response(status, json={})]
    server.refused["c"] = "lease-lost"
    results = Gate(server, manager).send(manager, reports_on(manager, "abc"))
    assert [type(result) for result in results] == [TaskInfo, TaskInfo, LeaseLostError]
    assert [c[1] for c in server.sent("PATCH", "/tasks")] == [
        "/tasks/a",
        "/tasks",
        "/tasks/b",
        "/tasks/c",
    ]


def test_each_report_of_an_unauthenticated_batch_raises_the_error(server, manager):
    server.fail["PATCH /tasks"] = [refusal("not-authenticated", 401)]
    results = Gate(server, manager).send(manager, reports_on(manager, "abc"))
    assert isinstance(results[0], TaskInfo)
    assert [type(result) for result in results[1:]] == [NotAuthenticatedError] * 2
    assert manager.complete(granted("d")[0]).status == "completed"


def test_a_long_list_of_reports_is_split_into_batches(server):
    api = Api("http://x/", transport=httpx.MockTransport(server))
    manager = JobManager(api, batch_size=2)
    outcomes = manager.report([Report.on(one, TaskStatus.COMPLETED) for one in granted(*"abcde")])
    assert [outcome.id for outcome in outcomes if isinstance(outcome, TaskInfo)] == list("abcde")
    assert [c[1] for c in server.sent("PATCH", "/tasks")] == ["/tasks", "/tasks", "/tasks/e"]


def test_reports_of_other_threads_are_sent_after_the_sending_thread_is_interrupted(server, manager):
    """Control: two threads wait for ever when `Reporter.send` does not clear `_sending`."""
    gate = Gate(server, manager)
    inner = manager.api.http

    class Interrupted(httpx.Client):
        calls = 0

        def request(self, *args, **kwargs):
            Interrupted.calls += 1
            if Interrupted.calls == 2:
                raise KeyboardInterrupt
            return inner.request(*args, **kwargs)

    manager.api.http = Interrupted()
    results = gate.send(manager, reports_on(manager, "abcd"))
    done = [result for result in results if isinstance(result, TaskInfo)]
    # The thread that sent b, c and d was interrupted; the other two threads sent theirs again.
    assert len(done) == 3
    assert [type(one) for one in results if one not in done] == [KeyboardInterrupt]
