"""`submit_many`, `map` and `as_completed` against the stand-in: their requests and results."""

from __future__ import annotations

import threading
import time
from typing import ClassVar

import httpx
import pytest
from pydantic import BaseModel

from tests.client.stand_in import Lost, Rotate, refusal, use
from zndraw_joblib.client import (
    InvalidPayloadError,
    NotAuthenticatedError,
    PartlySubmittedError,
    TaskCancelled,
    TaskFailed,
    TaskNotFoundError,
    TaskWaitTimeout,
    batches,
    retry,
    waiting,
)

ROTATE = "/rooms/r/tasks/@global:modifiers:Rotate"


class Scale(BaseModel):
    category: ClassVar[str] = "modifiers"
    by: float = 1
    note: str = ""


def invalid(pointer):
    problem = refusal("invalid-payload", 422).json()
    return httpx.Response(422, json={**problem, "errors": [{"detail": "no", "pointer": pointer}]})


def angles(server):
    return [entry["payload"]["angle"] for call in server.sent("POST", ROTATE) for entry in call[2]]


def test_submit_many_sends_one_request(server, manager):
    ids = manager.submit_many((Rotate(angle=a) for a in (3, 1, 2)), room="r")
    assert ids == ["t0", "t1", "t2"]
    assert [call[1:] for call in server.sent("POST")] == [
        (ROTATE, [{"payload": {"angle": a}} for a in (3.0, 1.0, 2.0)])
    ]
    assert len(server.keys) == 1


def test_an_empty_batch_sends_no_request(server, manager):
    assert manager.submit_many([], room="r") == []
    assert list(manager.map([], room="r")) == []
    assert list(manager.map([], room="r", ordered=False)) == []
    assert server.calls == []


def test_each_class_goes_to_its_own_job_and_the_ids_keep_the_order(server, manager):
    manager.register(room="r")(Scale)
    ids = manager.submit_many([Rotate(angle=1), Scale(by=2), Rotate(angle=3)], room="r")
    assert ids == ["t0", "t2", "t1"]
    assert [call[1] for call in server.sent("POST", "/rooms")] == [
        ROTATE,
        "/rooms/r/tasks/r:modifiers:Scale",
    ]
    manager.submit_many([Scale()], room="r", job_room="@global")
    assert server.sent("POST", "/rooms")[-1][1] == "/rooms/r/tasks/@global:modifiers:Scale"


def test_a_long_batch_is_split_into_requests_with_a_key_each(server, manager):
    manager.batch_size = 2
    assert manager.submit_many([Rotate(angle=a) for a in range(5)], room="r") == [
        f"t{i}" for i in range(5)
    ]
    assert [len(call[2]) for call in server.sent("POST", ROTATE)] == [2, 2, 1]
    assert angles(server) == list(range(5))
    assert len(set(server.keys)) == 3


def test_a_large_batch_is_split_below_the_limit_of_a_body(server, manager):
    sizes = []

    def transport(request):
        sizes.append(len(request.content))
        return server(request)

    use(manager, transport)
    notes = ["é" * 100_000] * 10
    assert len(manager.submit_many([Scale(note=n) for n in notes], room="r")) == 10
    assert len(sizes) == 3
    assert max(sizes) <= batches.BATCH_BYTES


def test_a_too_large_entry_is_sent_alone():
    entries = [b"x" * 10, b"x" * 100, b"x" * 10]
    assert list(batches.batch_slices(entries, 5, 50)) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert list(batches.batch_slices([], 5, 50)) == []
    # Brackets and commas count: 2 + 4 * (11 + 1) is 50.
    assert list(batches.batch_slices([b"x" * 11] * 5, 5, 50)) == [slice(0, 4), slice(4, 5)]
    assert len(batches.array([b"x" * 11] * 4)) == 49


def test_a_lost_response_submits_no_task_twice(server, manager):
    server.fail[f"POST {ROTATE}"] = [Lost(), httpx.ReadTimeout("late"), httpx.Response(503)]
    assert manager.submit_many([Rotate(), Rotate()], room="r") == ["t0", "t1"]
    assert len(server.sent("POST", ROTATE)) == 4
    assert len(set(server.keys)) == 1
    assert len(server.submitted) == 1


def test_an_instance_that_is_not_json_raises_before_any_request(server, manager):
    manager.batch_size = 1
    with pytest.raises(ValueError, match="JSON"):
        manager.submit_many([Scale(by=1), Scale(by=float("nan"))], room="r")
    assert server.calls == []


def test_a_refusal_of_the_first_request_raises_the_servers_error(server, manager):
    server.fail["POST /rooms/r/tasks/@global:modifiers:Scale"] = [invalid("/1/payload/by")]
    with pytest.raises(InvalidPayloadError) as caught:
        manager.submit_many([Scale(), Rotate(), Scale()], room="r")
    # The index is that of the instance, not that of the entry in its request.
    assert caught.value.errors == [{"detail": "no", "pointer": "/2/payload/by"}]
    assert len(server.calls) == 1


def test_a_later_refusal_lists_the_accepted_tasks(server, manager):
    manager.batch_size = 2
    server.fail["POST /rooms/r/tasks/@global:modifiers:Scale"] = [invalid("/1/payload")]
    with pytest.raises(PartlySubmittedError, match="3 of 5") as caught:
        manager.submit_many([Rotate(), Scale(), Rotate(), Scale(), Rotate()], room="r")
    assert caught.value.task_ids == ["t0", None, "t1", None, "t2"]
    assert isinstance(caught.value.__cause__, InvalidPayloadError)
    assert caught.value.__cause__.errors[0]["pointer"] == "/3/payload"


@pytest.fixture
def two_ids_a_lookup(monkeypatch):
    """Limits a lookup to two ids."""
    monkeypatch.setattr(waiting, "MAX_LOOKUP", 2)


def lookups(server):
    """The ids in each lookup request."""
    return [call[2]["ids"] for call in server.sent("POST", "/tasks/lookup")]


def test_ordered_map_keeps_results_that_arrive_before_their_turn(server, manager):
    server.tasks.update({"t1": "failed", "t2": "completed"})
    threading.Timer(0.3, server.end, ("t0", "completed")).start()
    first, failed, third = manager.map([Rotate()] * 3, room="r", return_exceptions=True)
    assert (first, failed.task.id, failed.task.status, third) == ("t0", "t1", "failed", "t2")
    assert lookups(server) == [["t0", "t1", "t2"], ["t0"]]


def test_map_submits_when_it_is_called(server, manager):
    ends = manager.map([Rotate(), Rotate()], room="r")
    assert len(server.submitted) == 1
    assert lookups(server) == []
    server.tasks.update({"t0": "completed", "t1": "completed"})
    assert next(ends) == "t0"


def test_unordered_map_yields_tasks_as_they_end(server, manager, two_ids_a_lookup):
    ends = manager.map([Rotate()] * 6, room="r", ordered=False)
    # Lookups wait for the two oldest tasks, and in turn read the others.
    for task_id in ("t1", "t5", "t0", "t3", "t2", "t4"):
        threading.Timer(0.1, server.end, (task_id, "completed")).start()
        assert next(ends) == task_id
    with pytest.raises(StopIteration):
        next(ends)


def test_the_ends_of_other_tasks_are_seen_while_the_oldest_never_end(
    server, manager, two_ids_a_lookup
):
    """Control: the first `next` waits for ever when `_choose` never takes others."""
    server.tasks.update(dict.fromkeys(("t2", "t3", "t4"), "completed"))
    ends = manager.as_completed(["t0", "t1", "t2", "t3", "t4", "t4"], timeout=10)
    assert {next(ends).id for _ in range(3)} == {"t2", "t3", "t4"}
    server.end("t0", "cancelled")
    server.end("t1", "completed")
    assert {task.id for task in ends} == {"t0", "t1"}


def test_a_wait_for_many_tasks_uses_only_the_callers_thread(server, manager):
    ids = [f"t{i}" for i in range(40)]
    threads, ends = set(), manager.as_completed(ids, timeout=10)
    inner = server.look_up

    def look_up(*arguments):
        threads.add(threading.current_thread())
        return inner(*arguments)

    server.look_up = look_up
    threading.Timer(0.2, lambda: [server.end(task_id, "completed") for task_id in ids]).start()
    assert sorted(task.id for task in ends) == sorted(ids)
    assert threads == {threading.current_thread()}


def test_the_size_of_a_lookup_adapts_to_the_size_of_the_payloads(server, manager, monkeypatch):
    """Control: the second lookup has 99 ids when `_adapt` ignores the response's size."""
    size = len(httpx.Response(200, json=server.document("t1")).content)
    monkeypatch.setattr(waiting, "LOOKUP_BYTES", 50 * size)
    server.tasks["t0"] = "completed"
    ends = manager.as_completed([f"t{i}" for i in range(100)])
    next(ends)
    server.tasks["t1"] = "completed"
    next(ends)
    first, second = lookups(server)
    assert len(first) == 32
    assert 45 <= len(second) <= 51


def test_a_lookup_asks_for_fewer_tasks_while_they_end_fast(server, manager):
    """Control: the second lookup has 280 ids when `_busy_size` stays as it is."""
    server.tasks.update({f"t{i}": "completed" for i in range(20)})
    ends = manager.as_completed([f"t{i}" for i in range(300)], timeout=10)
    assert {next(ends).id for _ in range(20)} == {f"t{i}" for i in range(20)}
    server.end("t20", "completed")
    assert next(ends).id == "t20"
    server.end("t299", "completed")
    assert next(ends).id == "t299"
    # One end is not fast any more, so the third lookup asks for all.
    assert [len(ids) for ids in lookups(server)] == [32, 64, 279]


def test_lookups_poll_where_the_server_does_not_wait(server, manager):
    server.honours_waits = False
    threading.Timer(0.5, server.end, ("t1", "completed")).start()
    assert next(manager.as_completed(["t0", "t1"], timeout=10)).id == "t1"
    assert 3 <= len(lookups(server)) <= 8


@pytest.mark.parametrize("hidden", ["t1", "t9"])
def test_a_wait_for_an_unreadable_task_raises_at_once(server, manager, hidden):
    """Control: the error takes a minute when the first wait is not short."""
    server.hidden.add(hidden)
    started = time.monotonic()
    with pytest.raises(TaskNotFoundError):
        list(manager.as_completed(["t0", hidden], timeout=30))
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("ordered", [True, False])
def test_a_timeout_lists_the_tasks_that_were_not_yielded(
    server, manager, two_ids_a_lookup, ordered
):
    server.tasks.update(
        {"t0": "completed", "t2": "completed"} if not ordered else {"t0": "completed"}
    )
    started = time.monotonic()
    ends, seen = manager.map([Rotate()] * 4, room="r", timeout=0.7, ordered=ordered), []
    with pytest.raises(TaskWaitTimeout, match=r"task t1 has not ended within 0\.7 s") as caught:
        seen.extend(ends)  # Keeps the tasks yielded before the error.
    assert 0.6 < time.monotonic() - started < 5
    if ordered:
        assert (seen, caught.value.task_ids) == (["t0"], ["t1", "t2", "t3"])
    else:
        assert (sorted(seen), caught.value.task_ids) == (["t0", "t2"], ["t1", "t3"])
    for task_id in caught.value.task_ids:
        server.end(task_id, "completed")
    again = manager.as_completed(caught.value.task_ids, timeout=10)
    assert sorted(task.id for task in again) == sorted(caught.value.task_ids)


@pytest.mark.parametrize("ordered", [True, False])
def test_an_error_ends_the_wait_for_all(server, manager, two_ids_a_lookup, ordered):
    server.hidden.add("t1")
    server.tasks["t0"] = "completed"
    with pytest.raises(TaskNotFoundError):
        list(manager.map([Rotate()] * 4, room="r", ordered=ordered))
    server.fail[f"POST {ROTATE}"] = [refusal("not-authenticated", 401)]
    with pytest.raises(NotAuthenticatedError):
        manager.map([Rotate()], room="r", ordered=ordered)


def test_a_failed_lookup_is_retried(server, manager):
    throttled = refusal("throttled", 429, **{"Retry-After": "0"})
    server.fail["POST /tasks/lookup"] = [throttled, httpx.ReadError("cut"), httpx.Response(502)]
    server.tasks["t0"] = "completed"
    assert manager.wait("t0", timeout=10).status == "completed"


def test_a_lookup_asks_for_the_results(server, manager):
    server.tasks["t0"] = "completed"
    assert manager.wait("t0").result == "t0"
    assert server.sent("POST", "/tasks/lookup")[0][2] == {"ids": ["t0"], "include": ["result"]}


def test_a_result_that_a_lookup_left_out_is_asked_for_again(server, manager):
    """Control: taken for ended, the task has the result None."""
    ids = [f"t{index}" for index in range(4)]
    for task_id in ids:
        server.end(task_id, "completed")
    server.results_each = 2
    assert list(manager.map([Rotate()] * 4, room="r", timeout=5)) == ids
    lookups = [call[2]["ids"] for call in server.sent("POST", "/tasks/lookup")]
    assert lookups == [ids, ids[2:]]


def test_map_goes_on_after_a_task_that_failed(server, manager):
    server.tasks.update({"t0": "failed", "t1": "completed", "t2": "cancelled"})
    results = manager.map([Rotate()] * 3, room="r")
    with pytest.raises(TaskFailed):
        next(results)
    assert next(results) == "t1"
    with pytest.raises(TaskCancelled):
        next(results)
    assert list(results) == []


def test_map_needs_no_request_for_each_result(server, manager):
    server.tasks.update({f"t{number}": "completed" for number in range(40)})
    assert list(manager.map([Rotate()] * 40, room="r")) == [f"t{number}" for number in range(40)]
    assert len(server.sent("POST", "/tasks/lookup")) == 2
    assert server.sent("GET") == []


def test_an_answer_that_is_no_list_of_tasks_counts_as_an_outage(server, manager, monkeypatch):
    monkeypatch.setattr(retry, "backoff", lambda attempt: 0.01)
    server.fail["POST /tasks/lookup"] = [
        httpx.Response(200, json=answer) for answer in ({}, [1], [{"id": "t1"}], "text", None)
    ] + [refusal("not-authenticated", 401)]
    with pytest.raises(Exception, match="401"):
        manager.handle("t1").result(timeout=60)
