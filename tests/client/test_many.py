"""Many tasks at once against the stand-in: in which requests they go, and what comes back."""

from __future__ import annotations

import threading
import time
from typing import ClassVar

import httpx
import pytest
from pydantic import BaseModel

from tests.client.stand_in import Lost, Rotate, refusal
from zndraw_joblib.client import (
    InvalidPayloadError,
    NotAuthenticatedError,
    PartlySubmittedError,
    TaskNotFoundError,
    TaskWaitTimeout,
    batches,
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


def test_no_instances_need_no_request(server, manager):
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


def test_chunks_by_number_have_a_key_each(server, manager):
    manager.batch_size = 2
    assert manager.submit_many([Rotate(angle=a) for a in range(5)], room="r") == [
        f"t{i}" for i in range(5)
    ]
    assert [len(call[2]) for call in server.sent("POST", ROTATE)] == [2, 2, 1]
    assert angles(server) == list(range(5))
    assert len(set(server.keys)) == 3


def test_chunks_by_size_stay_below_the_limit_of_a_body(server, manager):
    sizes = []

    def transport(request):
        sizes.append(len(request.content))
        return server(request)

    manager.api.http = httpx.Client(transport=httpx.MockTransport(transport))
    notes = ["é" * 100_000] * 10
    assert len(manager.submit_many([Scale(note=n) for n in notes], room="r")) == 10
    assert len(sizes) == 3
    assert max(sizes) <= batches.BATCH_BYTES


def test_an_entry_that_is_too_large_goes_alone():
    entries = [b"x" * 10, b"x" * 100, b"x" * 10]
    assert list(batches.batch_slices(entries, 5, 50)) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert list(batches.batch_slices([], 5, 50)) == []
    # Brackets and commas count: 2 + 4 * (11 + 1) is 50.
    assert list(batches.batch_slices([b"x" * 11] * 5, 5, 50)) == [slice(0, 4), slice(4, 5)]
    assert len(batches.array([b"x" * 11] * 4)) == 49


def test_a_lost_answer_submits_nothing_twice(server, manager):
    server.fail[f"POST {ROTATE}"] = [Lost(), httpx.ReadTimeout("late"), httpx.Response(503)]
    assert manager.submit_many([Rotate(), Rotate()], room="r") == ["t0", "t1"]
    assert len(server.sent("POST", ROTATE)) == 4
    assert len(set(server.keys)) == 1
    assert len(server.submitted) == 1


def test_an_instance_without_json_raises_before_any_request(server, manager):
    manager.batch_size = 1
    with pytest.raises(ValueError, match="JSON"):
        manager.submit_many([Scale(by=1), Scale(by=float("nan"))], room="r")
    assert server.calls == []


def test_a_refusal_of_the_first_request_is_raised_as_it_is(server, manager):
    server.fail["POST /rooms/r/tasks/@global:modifiers:Scale"] = [invalid("/1/payload/by")]
    with pytest.raises(InvalidPayloadError) as caught:
        manager.submit_many([Scale(), Rotate(), Scale()], room="r")
    # The number of the instance, not of the entry in its request.
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
def pairs(monkeypatch):
    """At most two ids in a lookup."""
    monkeypatch.setattr(waiting, "MAX_LOOKUP", 2)


def lookups(server):
    """The ids of each lookup."""
    return [call[2]["ids"] for call in server.sent("POST", "/tasks/lookup")]


def test_map_in_order_keeps_tasks_that_end_before_their_turn(server, manager):
    server.tasks.update({"t1": "failed", "t2": "completed"})
    threading.Timer(0.3, server.end, ("t0", "completed")).start()
    ends = list(manager.map([Rotate()] * 3, room="r"))
    assert [(task.id, task.status) for task in ends] == [
        ("t0", "completed"),
        ("t1", "failed"),
        ("t2", "completed"),
    ]
    assert lookups(server) == [["t0", "t1", "t2"], ["t0"]]


def test_map_submits_before_it_is_iterated_over(server, manager):
    ends = manager.map([Rotate(), Rotate()], room="r")
    assert len(server.submitted) == 1
    assert lookups(server) == []
    server.tasks.update({"t0": "completed", "t1": "completed"})
    assert next(ends).id == "t0"


def test_map_unordered_hands_out_as_they_end(server, manager, pairs):
    ends = manager.map([Rotate()] * 6, room="r", ordered=False)
    # The two oldest are waited for, the others are asked for in rounds.
    for task_id in ("t1", "t5", "t0", "t3", "t2", "t4"):
        threading.Timer(0.1, server.end, (task_id, "completed")).start()
        assert next(ends).id == task_id
    with pytest.raises(StopIteration):
        next(ends)


def test_oldest_tasks_that_never_end_do_not_hide_the_ends_of_others(server, manager, pairs):
    """Control: the first `next` waits for ever when `_choose` never takes others."""
    server.tasks.update(dict.fromkeys(("t2", "t3", "t4"), "completed"))
    ends = manager.as_completed(["t0", "t1", "t2", "t3", "t4", "t4"], timeout=10)
    assert {next(ends).id for _ in range(3)} == {"t2", "t3", "t4"}
    server.end("t0", "cancelled")
    server.end("t1", "completed")
    assert {task.id for task in ends} == {"t0", "t1"}


def test_a_wait_for_many_is_one_request_at_a_time_in_the_callers_thread(server, manager):
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


def test_lookups_ask_for_as_many_tasks_as_their_payloads_allow(server, manager, monkeypatch):
    """Control: the second lookup asks for 99 tasks when `_adapt` ignores the answer's size."""
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


def test_waits_are_polls_where_the_server_does_not_wait(server, manager):
    server.honours_waits = False
    threading.Timer(0.5, server.end, ("t1", "completed")).start()
    assert next(manager.as_completed(["t0", "t1"], timeout=10)).id == "t1"
    assert 3 <= len(lookups(server)) <= 8


@pytest.mark.parametrize("left_out", ["t1", "t9"])
def test_a_hidden_task_is_an_error_although_the_others_never_end(server, manager, left_out):
    """Control: it takes a minute when the first wait is not short."""
    server.hidden.add(left_out)
    started = time.monotonic()
    with pytest.raises(TaskNotFoundError):
        list(manager.as_completed(["t0", left_out], timeout=30))
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("ordered", [True, False])
def test_a_timeout_lists_the_tasks_that_were_not_handed_out(server, manager, pairs, ordered):
    server.tasks.update({"t0": "completed", "t2": "completed"} if not ordered else {"t0": "failed"})
    started = time.monotonic()
    ends, seen = manager.map([Rotate()] * 4, room="r", timeout=0.7, ordered=ordered), []
    with pytest.raises(TaskWaitTimeout, match=r"task t1 has not ended within 0\.7 s") as caught:
        seen.extend(task.id for task in ends)  # What came before stays.
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
def test_an_error_ends_the_wait_for_all(server, manager, pairs, ordered):
    server.hidden.add("t1")
    server.tasks["t0"] = "completed"
    with pytest.raises(TaskNotFoundError):
        list(manager.map([Rotate()] * 4, room="r", ordered=ordered))
    server.fail[f"POST {ROTATE}"] = [refusal("not-authenticated", 401)]
    with pytest.raises(NotAuthenticatedError):
        manager.map([Rotate()], room="r", ordered=ordered)


def test_a_wait_that_is_throttled_is_tried_again(server, manager):
    throttled = refusal("throttled", 429, **{"Retry-After": "0"})
    server.fail["POST /tasks/lookup"] = [throttled, httpx.ReadError("cut"), httpx.Response(502)]
    server.tasks["t0"] = "completed"
    assert manager.wait("t0", timeout=10).status == "completed"
