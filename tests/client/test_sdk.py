"""The SDK against the stand-in for the server: its requests, retries and errors."""

from __future__ import annotations

import pkgutil
import re
import subprocess
import sys
import threading
import time

import httpx
import pytest
from pydantic import BaseModel

from tests.client.stand_in import NOW, Rotate, bodies, refusal, serve, task
from zndraw_joblib import client
from zndraw_joblib.client import (
    Api,
    ApiError,
    ClaimedTask,
    JobManager,
    ServerError,
    TaskWaitTimeout,
    TooManyPendingError,
    exceptions,
)
from zndraw_joblib.text import clean_text, truncate_utf8


def slugs():
    return [cls for cls in ApiError.__subclasses__() if cls.slug]


@pytest.mark.parametrize("cls", slugs(), ids=lambda cls: cls.slug)
def test_problems_become_typed_errors(server, manager, cls):
    server.fail["GET /tasks/t"] = [refusal(cls.slug, 400, **{"Retry-After": "7"})]
    with pytest.raises(ApiError) as caught:
        manager.task("t")
    assert type(caught.value) is cls
    assert caught.value.status == 400
    assert caught.value.problem["detail"] == "why"
    assert caught.value.retry_after == 7
    assert "why" in str(caught.value)


def test_error_responses_without_a_problem_document_raise_too(server, manager, monkeypatch):
    monkeypatch.setattr("zndraw_joblib.client.retry.backoff", lambda attempt: 0.001)
    server.fail["GET /tasks/t"] = [httpx.Response(500, text="oops") for _ in range(6)]
    with pytest.raises(ServerError):
        manager.task("t")
    server.fail["GET /tasks/t"] = [httpx.Response(418, json=[]) for _ in range(6)]
    with pytest.raises(ApiError) as caught:
        manager.task("t")
    assert type(caught.value) is ApiError
    assert caught.value.problem == {}


def test_every_slug_of_the_contract_has_a_class():
    assert {cls.slug for cls in slugs()} >= {
        *("job-not-found", "worker-not-found", "task-not-found", "schema-conflict"),
        *("invalid-task-transition", "lease-lost", "invalid-category", "invalid-room-id"),
        *("invalid-payload", "forbidden", "validation-error", "not-authenticated", "throttled"),
    }
    assert exceptions.LeaseLostError.slug == "lease-lost"


def test_a_manager_is_a_mapping_of_the_registered_classes(server, manager):
    assert manager.register(Rotate) is Rotate

    @manager.register(room="room 1/?%")
    class Plain(BaseModel):
        pass

    assert list(manager) == ["@global:modifiers:Rotate", "room 1/?%:modifiers:Plain"]
    assert len(manager) == 2
    assert manager["@global:modifiers:Rotate"] is Rotate
    assert "@global:modifiers:Nope" not in manager
    one, two = server.sent("PUT")
    assert one[1] == "/rooms/@global/jobs"
    assert two[1] == "/rooms/room%201%2F%3F%25/jobs"
    assert one[2] == {
        "category": "modifiers",
        "name": "Rotate",
        "schema": Rotate.model_json_schema(),
        "worker_id": "w1",
    }
    assert server.workers == 1
    assert manager.worker_id == "w1"


def test_creating_a_worker_is_retried_only_when_the_server_created_none(server, manager):
    """After a lost response there may be a worker, which counts towards the limit of workers."""
    server.fail["POST /workers"] = [httpx.ReadTimeout("late"), httpx.Response(502)]
    for error in (httpx.ReadTimeout, ServerError):
        with pytest.raises(error):
            manager.create_worker()
    assert len(server.sent("POST", "/workers")) == 2
    server.fail["POST /workers"] = [
        httpx.ConnectError("no"),
        refusal("throttled", 429, **{"Retry-After": "0"}),
        refusal("service-unavailable", 503),
    ]
    assert manager.create_worker() == "w1"
    assert len(server.sent("POST", "/workers")) == 6


def test_submit_prefers_the_rooms_job_to_the_global_one(server, manager):
    assert manager.submit(Rotate(angle=3), room="r") == "t1"
    manager.register(room="r")(Rotate)
    manager.submit(Rotate(angle=3), room="r")
    manager.submit(Rotate(angle=3), room="r", job_room="@global")
    assert [c[1] for c in server.sent("POST", "/rooms")] == [
        "/rooms/r/tasks/@global:modifiers:Rotate",
        "/rooms/r/tasks/r:modifiers:Rotate",
        "/rooms/r/tasks/@global:modifiers:Rotate",
    ]
    assert server.sent("POST", "/rooms")[0][2] == {"payload": {"angle": 3}}


def test_a_submit_is_retried_with_its_idempotency_key(server, manager):
    url = "POST /rooms/r/tasks/@global:modifiers:Rotate"
    server.fail[url] = [httpx.ConnectError("no"), httpx.ReadTimeout("late"), httpx.Response(502)]
    assert manager.submit(Rotate(), room="r") == "t1"
    assert len(server.sent("POST", "/rooms")) == 4
    assert len(server.keys) == 4
    assert len(set(server.keys)) == 1
    manager.submit(Rotate(), room="r")
    assert len(set(server.keys)) == 2
    assert all(key.startswith('"') and key.endswith('"') for key in server.keys)


def test_a_submit_into_a_full_room_is_retried(server, manager):
    url = "POST /rooms/r/tasks/@global:modifiers:Rotate"
    document = {"type": "/v1/problems/too-many-pending", "title": "Too Many", "status": 429}
    full = httpx.Response(429, json=document, headers={"Retry-After": "0"})
    server.fail[url] = [full]
    assert manager.submit(Rotate(), room="r") == "t1"
    server.fail[url] = [full] * 6
    with pytest.raises(TooManyPendingError):
        manager.submit(Rotate(), room="r")


def test_heartbeats_are_sent_at_the_interval_of_the_server(server):
    server.interval = 0.05
    with JobManager(Api("http://x/", transport=httpx.MockTransport(server))) as manager:
        manager.create_worker()
        deadline = time.monotonic() + 10
        while len(server.sent("PATCH", "/workers")) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_report_is_retried_until_it_succeeds(server, manager):
    server.fail["PATCH /tasks/t"] = [httpx.ReadTimeout("x"), httpx.Response(502)]
    claimed = ClaimedTask(**{k: v for k, v in task("t").items() if k != "unknown"})
    assert manager.complete(claimed).status == "completed"
    bodies = [c[2] for c in server.sent("PATCH", "/tasks")]
    assert bodies == [{"status": "completed", "attempt": 1}] * 3


def test_a_remark_is_sent_beside_completed(server, manager):
    manager.complete("t", remark="two frames were skipped")
    assert bodies(server, "t") == [{"status": "completed", "error": "two frames were skipped"}]


def test_wait_returns_the_ended_task_or_times_out(server, manager):
    with pytest.raises(TaskWaitTimeout):
        manager.wait("t", timeout=0.3)
    polls = len(server.sent("POST"))
    server.fail["POST /tasks/lookup"] = [httpx.ReadError("dropped"), httpx.Response(503)]
    threading.Timer(0.2, server.end, ("t", "failed")).start()
    assert manager.wait("t", timeout=10).status == "failed"
    assert polls < 10
    server.hidden.add("t")
    with pytest.raises(exceptions.TaskNotFoundError):
        manager.wait("t")


def test_a_task_stream_claims_one_task_at_a_time_and_stops_during_a_long_poll(server, manager):
    manager.register(Rotate)
    server.queue += [task("a"), task("b")]
    stream = manager.listen()
    assert next(stream).id == "a"
    time.sleep(0.1)
    assert len(server.queue) == 1
    assert next(stream).id == "b"
    threading.Timer(0.2, stream.stop).start()
    started = time.monotonic()
    assert list(stream) == []
    # Without the stop the long poll would end after 20 s.
    assert time.monotonic() - started < 10
    assert list(stream) == []


def test_a_task_granted_after_the_stop_is_dropped(server, manager):
    manager.register(Rotate)
    stream = manager.listen()
    threading.Timer(0.2, stream.stop).start()
    assert list(stream) == []
    server.queue.append(task("late"))
    server.released.set()
    deadline = time.monotonic() + 10
    while server.queue and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    manager.heartbeat()
    assert server.sent("PATCH", "/workers")[-1][2] == {"tasks": []}


def test_a_server_that_does_not_wait_is_polled(server, manager):
    server.honours_waits = False
    manager.register(Rotate)
    stream = manager.listen(interval=0.05)
    threading.Timer(0.3, server.queue.append, (task("a"),)).start()
    assert next(stream).id == "a"
    assert 2 <= len(server.sent("POST", "/tasks/claim")) < 40


def test_heartbeats_list_held_tasks_and_mark_cancelled_ones(server, manager):
    manager.register(Rotate)
    server.queue += [task("a"), task("b"), task("c", attempt=3)]
    claimed = [manager.claim() for _ in range(3)]
    manager.start(claimed[0])
    manager.complete(claimed[0])
    server.fail["PATCH /workers/w1"] = [
        httpx.Response(
            200, json={"id": "w1", "last_heartbeat": NOW, "lost": ["b"], "cancelled": ["c", "a"]}
        )
    ]
    manager.heartbeat()
    assert server.sent("PATCH", "/workers")[0][2] == {
        "tasks": [{"id": "b", "attempt": 1}, {"id": "c", "attempt": 3}]
    }
    assert [manager.should_stop(one) for one in claimed] == [False, True, True]


@pytest.mark.parametrize("method", ["heartbeat", "claim"])
def test_an_unknown_worker_is_replaced_and_registered_again(server, manager, method):
    manager.register(Rotate)
    server.fail["PATCH /workers/w1"] = [refusal("worker-not-found", 404)]
    server.fail["POST /tasks/claim"] = [refusal("worker-not-found", 404)]
    getattr(manager, method)()
    assert manager.worker_id == "w2"
    assert [c[2]["worker_id"] for c in server.sent("PUT")] == ["w1", "w2"]


def test_leaving_waits_for_held_tasks_with_heartbeats_and_then_deletes_the_worker(server, manager):
    server.queue.append(task("a"))
    with manager:
        manager.register(Rotate)
        claimed = manager.claim()

        def finish():
            manager.start(claimed)
            time.sleep(0.4)
            manager.complete(claimed)

        thread = threading.Thread(target=finish)
        thread.start()
        left_at = len(server.calls)
    thread.join()
    after = [(c[0], c[1]) for c in server.calls[left_at:]]
    done = after.index(("DELETE", "/workers/w1"))
    assert after[:done].count(("PATCH", "/workers/w1")) >= 3
    assert server.tasks["a"] == "completed"
    assert after[-1] == ("DELETE", "/workers/w1")


def test_serve_runs_tasks_and_reports_them(server, manager):
    server.queue += [task("a"), task("b", payload={"angle": 2})]
    serve(server, manager, 2)
    assert sorted(Rotate.ran) == [1, 2]
    assert server.tasks == {"a": "completed", "b": "completed"}
    assert server.calls[-1][:2] == ("DELETE", "/workers/w1")


def test_an_exception_or_an_invalid_payload_fails_the_task(server, manager):
    server.queue += [
        task("a"),
        task("b", payload={"angle": 1000}),
        task("c", job_name="@global:modifiers:Unknown"),
    ]

    def execute(claimed, instance):
        raise RuntimeError("it broke")

    serve(server, manager, 3, execute)
    assert server.tasks == dict.fromkeys("abc", "failed")
    errors = {key: bodies(server, key)[-1]["error"] for key in "abc"}
    assert errors["a"].startswith("RuntimeError: it broke")
    assert "less than or equal to 100" in errors["b"]
    assert "no class" in errors["c"]
    assert [body["status"] for body in bodies(server, "b")] == ["failed"]


#: Refusals that a worker gets for a lost task; `forbidden` where another owner's worker has it.
LOST = {"lease-lost": 409, "invalid-task-transition": 409, "forbidden": 403}


@pytest.mark.parametrize("slug", LOST)
def test_a_lost_task_is_dropped_and_the_worker_goes_on(server, manager, slug, caplog):
    server.queue += [task("a"), task("b")]
    ran = []

    def execute(claimed):
        ran.append(claimed.id)
        if claimed.id == "a":
            server.fail["PATCH /tasks/a"] = [refusal(slug, LOST[slug])]
            server.tasks["a"] = "not ours"

    serve(server, manager, 2, execute)
    assert ran == ["a", "b"]
    assert server.tasks["b"] == "completed"
    assert [body["status"] for body in bodies(server, "a")] == ["completed"]
    # A lost task is no error, so it is not logged as one.
    assert "could not report" not in caplog.text


@pytest.mark.parametrize("slug", LOST)
def test_a_report_outside_serve_raises_when_the_task_is_lost(server, manager, slug):
    manager.register(Rotate)
    server.queue.append(task("t"))
    claimed = manager.claim()
    server.fail["PATCH /tasks/t"] = [refusal(slug, LOST[slug])]
    with pytest.raises(ApiError) as caught:
        manager.complete(claimed)
    assert caught.value.slug == slug
    # Heartbeats do not renew its lease any more.
    manager.heartbeat()
    assert server.sent("PATCH", "/workers")[-1][2] == {"tasks": []}


def test_tasks_run_concurrently(server, manager):
    server.queue += [task("a"), task("b"), task("c")]
    together = threading.Barrier(3, timeout=10)
    serve(server, manager, 3, lambda claimed: together.wait(), concurrency=3)
    assert server.tasks == dict.fromkeys("abc", "completed")


def test_serve_retries_claims_while_the_server_is_unreachable(server, manager):
    server.fail["POST /tasks/claim"] = [httpx.ConnectError("no")] * 3 + [httpx.Response(502)]
    server.queue.append(task("a"))
    serve(server, manager, 1)
    assert server.tasks == {"a": "completed"}


def test_serve_raises_a_refusal_and_deletes_the_worker(server, manager):
    manager.register(Rotate)
    server.fail["POST /tasks/claim"] = [refusal("not-authenticated", 401)]
    with pytest.raises(exceptions.NotAuthenticatedError):
        manager.serve(concurrency=2)
    assert server.calls[-1][:2] == ("DELETE", "/workers/w1")


def test_text_is_truncated_between_characters():
    assert truncate_utf8("é" * 5000, 8192) == "é" * 4096
    assert truncate_utf8("é" * 5000, 8191) == "é" * 4095
    assert truncate_utf8("x", 8192) == "x"


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("A\x00B", "A\ufffdB"),
        ("a\ud800", "a\ufffd"),
        ("\udc00\ud800b", "\ufffd\ufffdb"),
        ("\ud83d\ude00", "\U0001f600"),
        ("\ud800\ud83d\ude00\x00", "\ufffd\U0001f600\ufffd"),
        ("plain \x01 text\n", "plain \x01 text\n"),
    ],
)
def test_text_has_a_replacement_for_each_character_that_cannot_be_stored(text, cleaned):
    assert clean_text(text) == truncate_utf8(text, 100) == cleaned


def test_a_report_carries_clean_and_short_text(server, manager):
    """Control: the body has 50 MB when `Report.body` does not cut the text."""
    manager.register(Rotate)
    server.queue.append(task("a"))
    manager.fail(manager.claim(), "A\x00\ud800" * 1000 + "x" * 50_000_000)
    (body,) = bodies(server, "a")
    assert body["error"].startswith("A\ufffd\ufffdA")
    assert len(body["error"].encode()) <= 8192


def test_the_sdk_imports_without_django():
    code = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name.split('.')[0] in {'django','rest_framework','channels','asgiref'}:\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "import zndraw_joblib, zndraw_joblib.client\n"
        "from zndraw_joblib import *\n"
        "from zndraw_joblib import JobManager, TaskStream, ClaimedTask, ApiManager, TaskStatus\n"
        "from zndraw_joblib import LeaseLost\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_names_each_of_its_modules():
    """In the docstring, by its purpose, because a newcomer looks there first."""
    modules = {module.name for module in pkgutil.iter_modules(client.__path__)}
    named = set(re.findall(r"`(\w+)`", client.__doc__ or ""))
    assert modules - named == set()
