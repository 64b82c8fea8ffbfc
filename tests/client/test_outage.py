"""Long outages of the server, simulated by the stand-in: no result of a worker is lost."""

from __future__ import annotations

import itertools
import threading
import time

import httpx
import pytest

from tests.client.stand_in import Rotate, bodies, granted, refusal, task, until, use
from zndraw_joblib.client import (
    ApiError,
    ForbiddenError,
    NotAuthenticatedError,
    ServerError,
    TaskInfo,
    TaskNotFoundError,
    heartbeats,
    reports,
    retry,
    waiting,
)


def failures():
    """An endless cycle of failures, as of a server that is down or starts."""
    return itertools.cycle(
        [
            lambda: httpx.ConnectError("refused"),
            lambda: httpx.ReadTimeout("late"),
            lambda: httpx.Response(500),
            lambda: httpx.Response(502),
            lambda: httpx.Response(503),
            lambda: refusal("throttled", 429),
        ]
    )


class Outage:
    """While `lasts` is set every report fails; `tried` has their times, paths and bodies."""

    def __init__(self, server, manager):
        self.lasts, self.tried, self.answers = threading.Event(), [], failures()
        self.server = server
        use(manager, self)

    def __call__(self, request):
        if self.lasts.is_set() and "/tasks" in request.url.path and request.method == "PATCH":
            self.tried.append((time.monotonic(), request.url.path, request.content))
            answer = next(self.answers)()
            if isinstance(answer, Exception):
                raise answer
            return answer
        return self.server(request)


@pytest.fixture
def outage(server, manager, monkeypatch):
    """An outage during which the SDK's pauses are a five-hundredth as long."""
    real = retry.backoff
    monkeypatch.setattr(retry, "backoff", lambda attempt: real(attempt) / 500)
    return Outage(server, manager)


def test_a_failed_heartbeat_is_retried_before_the_next_is_due(server, manager, monkeypatch):
    monkeypatch.setattr(heartbeats, "LONGEST_PAUSE", 0.05)
    pauses = itertools.chain([0.01], itertools.repeat(30.0))
    monkeypatch.setattr(heartbeats.Heartbeats, "_pause", lambda self: next(pauses))
    url = f"PATCH /workers/{manager.create_worker()}"
    server.fail[url] = [httpx.Response(500)]
    with manager:
        until(lambda: len(server.sent("PATCH", "/workers")) >= 2)


def renewed(server):
    """Ids of the tasks in the latest heartbeat."""
    heartbeats = server.sent("PATCH", "/workers")
    return [one["id"] for one in heartbeats[-1][2]["tasks"]] if heartbeats else None


@pytest.mark.parametrize("prefetch", [0, 1])
def test_a_result_is_reported_after_an_outage_of_any_length(
    server, manager, outage, running, prefetch, caplog
):
    """Control: a is given up after six attempts when `_deliver` reports without `lasting`."""
    server.queue += [task("a"), task("b")]
    running(lambda claimed: outage.lasts.set() if claimed.id == "a" else None, prefetch=prefetch)
    until(lambda: len(outage.tried) > 40)
    # Heartbeats renew the lease of the task, and of the prefetched one.
    held = ["a", "b"] if prefetch else ["a"]
    heartbeats = len(server.sent("PATCH", "/workers"))
    until(lambda: len(server.sent("PATCH", "/workers")) > heartbeats + 1)
    assert renewed(server) == held
    assert "a" not in server.tasks or server.tasks["a"] == "running"
    outage.lasts.clear()
    until(lambda: server.tasks == {"a": "completed", "b": "completed"})
    until(lambda: renewed(server) == [])
    assert "could not report" not in caplog.text


def test_reports_of_several_threads_join_one_batch_and_all_arrive(server, manager, outage, running):
    """Control: b, c and d never join when `_send_until_settled` takes the waiting reports once."""
    server.queue += [task(x) for x in "abcd"]
    go = {x: threading.Event() for x in "abcd"}
    running(lambda claimed: go[claimed.id].wait(10), concurrency=4)
    until(lambda: server.tasks == dict.fromkeys("abcd", "running"))
    outage.lasts.set()
    go["a"].set()
    until(lambda: len(outage.tried) > 20)
    for x in "bcd":
        go[x].set()
    until(lambda: all(x in outage.tried[-1][2].decode() for x in ('"a"', '"b"', '"c"', '"d"')))
    outage.lasts.clear()
    until(lambda: server.tasks == dict.fromkeys("abcd", "completed"))
    assert [len(bodies(server, x)) for x in "abcd"] == [1] * 4


def test_a_report_outside_serve_has_six_attempts_also_in_a_batch_with_lasting_ones(
    server, manager, outage, running
):
    server.queue += [task("a")]
    running(lambda claimed: outage.lasts.set())
    until(lambda: len(outage.tried) > 20)
    (other,) = granted("z")
    with pytest.raises((ApiError, httpx.TransportError)):
        manager.complete(other)
    assert sum('"z"' in content.decode() for _, _, content in outage.tried) <= retry.ATTEMPTS
    outage.lasts.clear()
    until(lambda: server.tasks == {"a": "completed"})
    assert manager.complete(other).status == "completed"


def test_a_report_outside_serve_has_six_attempts(server, manager, outage):
    outage.answers = itertools.repeat(lambda: httpx.ConnectError("refused"))
    outage.lasts.set()
    for report in (manager.start, manager.complete):
        with pytest.raises(httpx.ConnectError):
            report(granted("a")[0])
        assert len(outage.tried) == retry.ATTEMPTS == 6
        outage.tried.clear()
    outage.answers = itertools.repeat(lambda: refusal("server-error", 500))
    with pytest.raises(ApiError):
        manager.fail(granted("a")[0], "why")
    assert len(outage.tried) == 1


@pytest.mark.parametrize(
    ("slug", "status"),
    [
        ("lease-lost", 409),
        ("invalid-task-transition", 409),
        ("forbidden", 403),
        ("task-not-found", 404),
    ],
)
def test_a_report_on_a_lost_task_is_not_retried(server, manager, outage, running, slug, status):
    server.queue += [task("a"), task("b")]
    server.fail["PATCH /tasks/a"] = [refusal(slug, status)]
    running(lambda claimed: outage.lasts.set() if claimed.id == "a" else None)
    until(lambda: len(outage.tried) > 10)
    outage.lasts.clear()
    until(lambda: server.tasks.get("b") == "completed")
    assert len(bodies(server, "a")) == 1
    until(lambda: renewed(server) == [])


REFUSALS = [
    ("validation-error", 400),
    ("payment-required", 402),
    ("conflict", 409),
    ("content-too-large", 413),
    ("unsupported-media-type", 415),
    ("validation-error", 422),
    ("locked", 423),
]


@pytest.mark.parametrize(("slug", "status"), REFUSALS)
@pytest.mark.parametrize("prefetch", [0, 1])
def test_a_refused_result_ends_as_a_failed_task_that_names_the_refusal(
    server, manager, running, slug, status, prefetch
):
    """Control: a is never ended when `_deliver` only drops it."""
    server.queue += [task("a"), task("b")]
    server.refuse_once["a", "completed"] = refusal(slug, status)
    running(prefetch=prefetch)
    until(lambda: server.tasks == {"a": "failed", "b": "completed"})
    (body,) = [body for body in bodies(server, "a") if body["status"] == "failed"]
    assert body["attempt"] == 1
    assert body["error"] == f"The result of this task was refused: {status} T: why"
    until(lambda: renewed(server) == [])


def test_a_task_whose_every_end_is_refused_is_dropped(server, manager, running, caplog):
    server.queue += [task("a"), task("b")]
    server.fail["PATCH /tasks/a"] = [refusal("validation-error", 400)] * 9
    running()
    until(lambda: server.tasks.get("b") == "completed")
    until(lambda: renewed(server) == [])
    assert [body["status"] for body in bodies(server, "a")] == ["completed", "failed"]
    assert "could not report task a as failed" in caplog.text


def test_a_report_that_makes_the_server_fail_does_not_block_others(
    server, manager, outage, running
):
    """Control: b is never reported when 500 is not in `_SEND_ALONE`."""
    server.queue += [task("a"), task("b")]
    go, bad = threading.Event(), threading.Event()

    def broken(request):
        sent = request.url.path.encode() + request.content
        if b"/tasks/a" in sent or (b"/tasks[" in sent and b'"id":"a"' in sent):
            bad.set()
            return httpx.Response(500)
        return server(request)

    use(manager, broken)
    running(lambda claimed: go.wait(10) if claimed.id == "b" else None, concurrency=2)
    assert bad.wait(10)
    go.set()
    until(lambda: server.tasks.get("b") == "completed")
    use(manager, server)
    until(lambda: server.tasks.get("a") == "completed")


def test_a_stopped_worker_delivers_a_report_when_the_outage_ends_in_time(
    server, manager, outage, running
):
    """Control: a is given up when `_ends` does not add `GIVE_UP_SECONDS` to the stop's time."""
    server.queue += [task("a")]
    thread = running(lambda claimed: outage.lasts.set())
    until(lambda: len(outage.tried) > 10)
    manager.stop()
    until(lambda: len(outage.tried) > 40)
    assert thread.is_alive()
    outage.lasts.clear()
    thread.join(10)
    assert not thread.is_alive()
    assert server.tasks == {"a": "completed"}
    assert server.calls[-1][:2] == ("DELETE", "/workers/w1")


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_stopped_worker_ends_although_the_outage_lasts(
    server, manager, outage, running, monkeypatch, caplog, concurrency
):
    """Control: the worker never ends when `_settle` does not check the time."""
    monkeypatch.setattr(reports, "GIVE_UP_SECONDS", 0.4)
    # A Retry-After beyond the patience of a stopped worker.
    later = {"Retry-After": "3600"}
    outage.answers = itertools.repeat(lambda: refusal("throttled", 429, **later))
    server.queue += [task(x) for x in "abc"[:concurrency]]
    together = threading.Barrier(concurrency, action=outage.lasts.set)
    thread = running(lambda claimed: together.wait(10), concurrency=concurrency)
    until(lambda: outage.tried)
    manager.stop()
    stopped_at = time.monotonic()
    thread.join(10)
    assert not thread.is_alive()
    assert 0.3 < time.monotonic() - stopped_at < 5
    assert caplog.text.count("could not report on task") == concurrency
    assert server.calls[-1][:2] == ("DELETE", "/workers/w1")


def test_a_task_that_ends_after_the_stop_has_the_same_time_for_its_report(
    server, manager, outage, running, monkeypatch
):
    """Control: the report is tried once when `_ends` counts from the stop alone."""
    monkeypatch.setattr(reports, "GIVE_UP_SECONDS", 0.3)
    server.queue += [task("a")]
    began, go = threading.Event(), threading.Event()

    def execute(claimed):
        began.set()
        assert go.wait(10)

    thread = running(execute)
    assert began.wait(10)
    manager.stop()
    time.sleep(0.4)
    outage.lasts.set()
    go.set()
    until(lambda: len(outage.tried) > 3)
    outage.lasts.clear()
    thread.join(10)
    assert server.tasks == {"a": "completed"}


def test_a_report_is_retried_after_the_seconds_of_retry_after(server, manager, outage, running):
    server.queue += [task("a")]
    outage.answers = itertools.repeat(
        lambda: refusal("service-unavailable", 503, **{"Retry-After": "1"})
    )
    running(lambda claimed: outage.lasts.set())
    until(lambda: len(outage.tried) == 2)
    outage.lasts.clear()
    (first, _, _), (second, _, _) = outage.tried
    assert 0.9 < second - first < 3
    until(lambda: server.tasks == {"a": "completed"})


@pytest.mark.parametrize("method", ["claim", "heartbeat"])
def test_a_failed_replacement_of_the_worker_is_retried_as_a_whole(server, manager, method):
    """Control: w2 stays without its job when `replace_worker` does not undo a failed attempt."""
    manager.register(Rotate)
    request = "POST /tasks/claim" if method == "claim" else "PATCH /workers/w1"
    server.fail[request] = [refusal("worker-not-found", 404) for _ in range(2)]
    server.fail["PUT /rooms/@global/jobs"] = [refusal("server-error", 500)]
    with pytest.raises(ServerError):
        getattr(manager, method)()
    assert manager.worker_id == "w1"
    getattr(manager, method)()
    assert manager.worker_id == "w3"
    assert [call[2]["worker_id"] for call in server.sent("PUT")] == ["w1", "w2", "w3"]


def test_an_error_text_that_is_not_json_does_not_block_other_reports(server, manager):
    assert isinstance(manager.fail(granted("a")[0], "\ud800"), TaskInfo)
    assert isinstance(manager.complete(granted("b")[0]), TaskInfo)


@pytest.fixture
def two_ids_a_lookup(monkeypatch):
    """Limits a lookup to two ids."""
    monkeypatch.setattr(waiting, "MAX_LOOKUP", 2)


LOOKUP = "POST /tasks/lookup"


def test_a_wait_continues_after_an_outage(server, manager, outage, two_ids_a_lookup):
    """Control: ConnectError is raised when `_Lookups._send` raises every error."""
    ids = [f"t{i}" for i in range(5)]
    server.fail[LOOKUP] = [one() for one in itertools.islice(failures(), 12)]
    server.tasks.update(dict.fromkeys(["t2", "t3", "t4"], "completed"))
    ends = manager.as_completed(ids, timeout=30)
    assert {next(ends).id for _ in range(3)} == {"t2", "t3", "t4"}
    server.fail[LOOKUP] += [one() for one in itertools.islice(failures(), 12)]
    server.end("t0", "completed")
    server.end("t1", "completed")
    assert {one.id for one in ends} == {"t0", "t1"}
    assert not any(server.fail.values())


@pytest.mark.parametrize(
    ("slug", "status", "error"),
    [("not-authenticated", 401, NotAuthenticatedError), ("forbidden", 403, ForbiddenError)],
)
def test_a_refused_lookup_ends_a_wait(server, manager, outage, slug, status, error):
    server.fail[LOOKUP] = [httpx.ConnectError("refused"), refusal(slug, status)]
    with pytest.raises(error):
        list(manager.as_completed([f"t{i}" for i in range(4)], timeout=10))


def test_a_task_that_is_not_found_ends_a_wait_after_an_outage(
    server, manager, outage, two_ids_a_lookup
):
    server.hidden.add("t3")
    server.fail[LOOKUP] = [httpx.ConnectError("refused")]
    server.fail["GET /tasks/t3"] = [httpx.ConnectError("refused")]
    with pytest.raises(TaskNotFoundError):
        list(manager.as_completed([f"t{i}" for i in range(4)], timeout=10))


def test_a_wait_ends_at_its_timeout_during_an_outage(server, manager):
    server.fail[LOOKUP] = [httpx.Response(503, headers={"Retry-After": "3600"})]
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        list(manager.as_completed(["t0", "t1", "t2"], timeout=0.3))
    assert time.monotonic() - started < 5
    # No lookup is sent before the time in Retry-After.
    assert len(server.sent("POST", "/tasks/lookup")) == 1
