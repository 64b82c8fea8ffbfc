"""A server that is away for long, against the stand-in: nothing that was done is lost."""

from __future__ import annotations

import itertools
import threading
import time

import httpx
import pytest

from tests.client.stand_in import Rotate, bodies, granted, refusal, task, until
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
    """How a server that is away or starts answers, over and over."""
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
    """While it lasts no report gets through; `tried` holds those that were tried."""

    def __init__(self, server, manager):
        self.lasts, self.tried, self.answers = threading.Event(), [], failures()
        self.server = server
        manager.api.http = httpx.Client(transport=httpx.MockTransport(self))

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
    """An outage of which 5 s pass in 10 ms."""
    real = retry.backoff
    monkeypatch.setattr(retry, "backoff", lambda attempt: real(attempt) / 500)
    return Outage(server, manager)


def test_a_heartbeat_that_failed_is_tried_again_before_the_next_is_due(
    server, manager, monkeypatch
):
    monkeypatch.setattr(heartbeats, "LONGEST_PAUSE", 0.05)
    pauses = itertools.chain([0.01], itertools.repeat(30.0))
    monkeypatch.setattr(heartbeats.Heartbeats, "_pause", lambda self: next(pauses))
    url = f"PATCH /workers/{manager.create_worker()}"
    server.fail[url] = [httpx.Response(500)]
    with manager:
        until(lambda: len(server.sent("PATCH", "/workers")) >= 2)


def renewed(server):
    """Ids of the tasks of the latest heartbeat."""
    beats = server.sent("PATCH", "/workers")
    return [one["id"] for one in beats[-1][2]["tasks"]] if beats else None


@pytest.mark.parametrize("prefetch", [0, 1])
def test_a_result_is_reported_however_long_the_server_was_away(
    server, manager, outage, running, prefetch, caplog
):
    """Control: a is given up after six attempts when `_deliver` reports without `lasting`."""
    server.queue += [task("a"), task("b")]
    running(lambda claimed: outage.lasts.set() if claimed.id == "a" else None, prefetch=prefetch)
    until(lambda: len(outage.tried) > 40)
    # Its lease is kept meanwhile, and that of the task whose start goes with it.
    held = ["a", "b"] if prefetch else ["a"]
    beats = len(server.sent("PATCH", "/workers"))
    until(lambda: len(server.sent("PATCH", "/workers")) > beats + 1)
    assert renewed(server) == held
    assert "a" not in server.tasks or server.tasks["a"] == "running"
    outage.lasts.clear()
    until(lambda: server.tasks == {"a": "completed", "b": "completed"})
    until(lambda: renewed(server) == [])
    assert "could not report" not in caplog.text


def test_reports_of_several_threads_wait_together_and_all_arrive(server, manager, outage, running):
    """Control: b, c and d never come along when `_send_until_settled` takes what waits once."""
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


def test_a_report_outside_serve_is_bounded_also_beside_lasting_ones(
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


def test_a_report_outside_serve_is_tried_six_times(server, manager, outage):
    outage.answers = itertools.repeat(lambda: httpx.ConnectError("refused"))
    outage.lasts.set()
    for report in (manager.start, manager.complete):
        with pytest.raises(httpx.ConnectError):
            report(granted("a")[0])
        assert len(outage.tried) == retry.ATTEMPTS == 6
        outage.tried.clear()
    outage.answers = itertools.repeat(lambda: httpx.Response(500))
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
        ("not-authenticated", 401),
        ("validation-error", 422),
    ],
)
def test_a_refusal_ends_the_repeating(server, manager, outage, running, slug, status):
    server.queue += [task("a"), task("b")]
    server.fail["PATCH /tasks/a"] = [refusal(slug, status)]
    running(lambda claimed: outage.lasts.set() if claimed.id == "a" else None)
    until(lambda: len(outage.tried) > 10)
    outage.lasts.clear()
    until(lambda: server.tasks.get("b") == "completed")
    assert len(bodies(server, "a")) == 1
    until(lambda: renewed(server) == [])


def test_a_report_that_makes_the_server_fail_holds_up_no_others(server, manager, outage, running):
    """Control: b is never reported when 500 is not in `_SEND_ALONE`."""
    server.queue += [task("a"), task("b")]
    go, bad = threading.Event(), threading.Event()

    def broken(request):
        about = request.url.path.encode() + request.content
        if b"/tasks/a" in about or (b"/tasks[" in about and b'"id":"a"' in about):
            bad.set()
            return httpx.Response(500)
        return server(request)

    manager.api.http = httpx.Client(transport=httpx.MockTransport(broken))
    running(lambda claimed: go.wait(10) if claimed.id == "b" else None, concurrency=2)
    assert bad.wait(10)
    go.set()
    until(lambda: server.tasks.get("b") == "completed")
    manager.api.http = httpx.Client(transport=httpx.MockTransport(server))
    until(lambda: server.tasks.get("a") == "completed")


def test_a_stop_lets_a_report_arrive_that_the_server_takes_in_time(
    server, manager, outage, running
):
    """Control: a is given up when `_ends` knows no time to give up but that of the stop."""
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
def test_a_stopped_worker_ends_although_the_server_stays_away(
    server, manager, outage, running, monkeypatch, caplog, concurrency
):
    """Control: it never ends when `_settle` does not look at the time."""
    monkeypatch.setattr(reports, "GIVE_UP_SECONDS", 0.4)
    # It may ask for more patience than a stopped worker has.
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


def test_work_that_ends_after_the_stop_is_reported_for_as_long(
    server, manager, outage, running, monkeypatch
):
    """Control: it is tried once when `_ends` counts from the stop alone."""
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


def test_reports_are_repeated_after_retry_after(server, manager, outage, running):
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


@pytest.mark.parametrize("how", ["claim", "heartbeat"])
def test_a_new_registration_is_made_whole_although_the_server_goes_away(server, manager, how):
    """Control: w2 is kept without its job when `replace_worker` does not take it back."""
    manager.register(Rotate)
    ask = "POST /tasks/claim" if how == "claim" else "PATCH /workers/w1"
    server.fail[ask] = [refusal("worker-not-found", 404) for _ in range(2)]
    server.fail["PUT /rooms/@global/jobs"] = [httpx.Response(500)]
    with pytest.raises(ServerError):
        getattr(manager, how)()
    assert manager.worker_id == "w1"
    getattr(manager, how)()
    assert manager.worker_id == "w3"
    assert [call[2]["worker_id"] for call in server.sent("PUT")] == ["w1", "w2", "w3"]


def test_an_error_text_without_json_does_not_block_other_reports(server, manager):
    with pytest.raises(ValueError, match="surrogate"):
        manager.fail(granted("a")[0], "\ud800")
    assert isinstance(manager.complete(granted("b")[0]), TaskInfo)


@pytest.fixture
def pairs(monkeypatch):
    """At most two ids in a lookup."""
    monkeypatch.setattr(waiting, "MAX_LOOKUP", 2)


LOOKUP = "POST /tasks/lookup"


def test_ends_are_found_after_an_outage(server, manager, outage, pairs):
    """Control: ConnectError comes out when `_Lookups._send` raises every error."""
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
def test_a_refusal_ends_a_wait(server, manager, outage, slug, status, error):
    server.fail[LOOKUP] = [httpx.ConnectError("refused"), refusal(slug, status)]
    with pytest.raises(error):
        list(manager.as_completed([f"t{i}" for i in range(4)], timeout=10))


def test_a_task_that_is_not_found_ends_a_wait_after_an_outage(server, manager, outage, pairs):
    server.hidden.add("t3")
    server.fail[LOOKUP] = [httpx.ConnectError("refused")]
    server.fail["GET /tasks/t3"] = [httpx.ConnectError("refused")]
    with pytest.raises(TaskNotFoundError):
        list(manager.as_completed([f"t{i}" for i in range(4)], timeout=10))


def test_an_outage_does_not_outlast_the_timeout(server, manager):
    server.fail[LOOKUP] = [httpx.Response(503, headers={"Retry-After": "3600"})]
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        list(manager.as_completed(["t0", "t1", "t2"], timeout=0.3))
    assert time.monotonic() - started < 5
    # Nor is the server asked before the time that it names.
    assert len(server.sent("POST", "/tasks/lookup")) == 1
