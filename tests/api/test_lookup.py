"""`POST tasks/lookup`, which reads several tasks. `tests/waiting` tests its waits."""

from __future__ import annotations

import time
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.factories import problem
from zndraw_joblib.api.task_bodies import MAX_LOOKUP
from zndraw_joblib.models import Job
from zndraw_joblib.storage import lists

pytestmark = pytest.mark.django_db


def look_up(person, ids):
    return person.send("post", "/tasks/lookup", {"ids": ids})


def submit_tasks(person, count=3, room="open"):
    person.register(room)
    job = f"{room}:modifiers:Rotate"
    return [person.submit(room, job, angle=number).json()["id"] for number in range(count)]


def without_result(task):
    """The document of a list, which leaves out the result."""
    return {name: value for name, value in task.items() if name != "result"}


def test_a_lookup_returns_the_documents_of_single_reads_in_the_order_of_the_ids(bob):
    ids = submit_tasks(bob)
    claimed = bob.claim()["id"]
    bob.report(claimed, "running", attempt=1)
    bob.report(claimed, "completed", attempt=1)
    order = [ids[2], ids[0], ids[1]]
    answer = look_up(bob, order)
    assert answer.status_code == 200
    singles = [bob.get(f"/tasks/{task_id}").json() for task_id in order]
    assert answer.json() == [without_result(task) for task in singles]
    assert (
        bob.send("post", "/tasks/lookup", {"ids": order, "include": ["result"]}).json() == singles
    )
    assert [task.get("queue_position") for task in answer.json()] == [2, None, 1]
    assert answer["Vary"] == "Prefer"
    assert "Preference-Applied" not in answer


def test_a_repeated_id_is_returned_once_at_its_first_position(bob):
    first, second, _ = submit_tasks(bob)
    upper = first.upper()
    answer = look_up(bob, [second, first, second, upper, first.replace("-", "")])
    assert [task["id"] for task in answer.json()] == [second, first]


def test_unknown_ids_are_left_out(bob):
    (known,) = submit_tasks(bob, 1)
    answer = look_up(bob, [str(uuid4()), known, str(uuid4())])
    assert [task["id"] for task in answer.json()] == [known]
    assert look_up(bob, [str(uuid4())]).json() == []


def test_tasks_that_the_caller_may_not_read_are_left_out(alice, bob, carol, root, settings_of):
    settings_of(room_access="tests.factories.by_room")
    hidden, (shared,) = submit_tasks(alice, 2, "alices"), submit_tasks(alice, 1)
    ids = [hidden[0], shared, hidden[1]]
    for person, expected in ((alice, ids), (root, ids), (bob, [shared]), (carol, [shared])):
        assert [task["id"] for task in look_up(person, ids).json()] == expected
    # A worker's owner may read the worker's task in any room.
    Job.objects.get(room_id="alices").tasks.filter(pk=hidden[1]).update(
        worker_identity=bob.identity
    )
    assert [task["id"] for task in look_up(bob, ids).json()] == [shared, hidden[1]]


rooms_asked = []


def record_room(request, room_id, action):
    rooms_asked.append((room_id, action))
    return room_id != "closed"


def test_the_hook_is_asked_once_for_each_room(alice, bob, settings_of):
    ids = [*submit_tasks(bob, 3, "open"), *submit_tasks(bob, 3, "closed")]
    settings_of(room_access="tests.api.test_lookup.record_room")
    rooms_asked.clear()
    assert [task["id"] for task in look_up(alice, ids).json()] == ids[:3]
    assert sorted(rooms_asked) == [("closed", "read"), ("open", "read")]


def test_the_number_of_queries_does_not_grow_with_the_number_of_ids(bob):
    bob.register()
    path = "/rooms/open/tasks/open:modifiers:Rotate"
    tasks = bob.send("post", path, [{"payload": {}}] * MAX_LOOKUP).json()
    ids = [task["id"] for task in tasks]
    with CaptureQueriesContext(connection) as one:
        assert len(look_up(bob, ids[:1]).json()) == 1
    with CaptureQueriesContext(connection) as many:
        assert look_up(bob, ids).json() == [without_result(task) for task in tasks]
    assert len(many) == len(one)


def complete(person, task_id, size):
    """Complete the oldest task with a result of `size` bytes of JSON, in characters of two."""
    assert person.claim()["id"] == task_id
    person.report(task_id, "running", attempt=1)
    person.report(task_id, "completed", attempt=1, result="é" * (size // 2 - 1))


def look_up_results(person, ids):
    answer = person.send("post", "/tasks/lookup", {"ids": ids, "include": ["result"]})
    return {task["id"]: task for task in answer.json()}


def test_a_lookup_leaves_out_results_beyond_its_bound_and_says_which(bob, monkeypatch):
    """Control: an answer with all four results. Asking again for the others gives each of them."""
    monkeypatch.setattr(lists, "MAX_RESULT_BYTES", 100)
    ids = submit_tasks(bob, 6)
    for task_id, size in zip(ids, (60, 60, 40, 300), strict=False):
        complete(bob, task_id, size)
    bob.report(ids[4], "cancelled")
    wanted, left_out, results = list(ids), [], {}
    while wanted:
        found = look_up_results(bob, wanted)
        assert list(found) == wanted
        # Tasks without a result are not left out.
        for task_id in {ids[4], ids[5]}.intersection(wanted):
            assert (found[task_id]["result"], "result_left_out" in found[task_id]) == (None, False)
        wanted = [task_id for task_id in wanted if found[task_id].get("result_left_out")]
        assert not any("result" in found[task_id] for task_id in wanted)
        left_out.append([ids.index(task_id) for task_id in wanted])
        results |= {
            task_id: len(task["result"] or "")
            for task_id, task in found.items()
            if "result" in task
        }
    assert left_out == [[1, 2, 3], [3], []]
    assert [results[task_id] for task_id in ids] == [29, 29, 19, 149, 0, 0]
    assert not any("result_left_out" in task for task in look_up(bob, ids).json())


def test_the_results_of_hidden_tasks_do_not_count_against_the_bound(
    alice, bob, settings_of, monkeypatch
):
    """Control: bounded before the check of the rights, the shared result never comes."""
    settings_of(room_access="tests.factories.by_room")
    monkeypatch.setattr(lists, "MAX_RESULT_BYTES", 100)
    hidden, shared = submit_tasks(alice, 1, "alices"), submit_tasks(alice, 1)
    for task_id in (*hidden, *shared):
        complete(alice, task_id, 90)
    found = look_up_results(bob, [*hidden, *shared])
    assert {task_id: len(task["result"]) for task_id, task in found.items()} == {shared[0]: 44}


INVALID = {
    "no body": (None, ["/ids"]),
    "null": ({"ids": None}, ["/ids"]),
    "no array": ({"ids": "01a20c7d-1505-73c8-b9b4-1ae3b824bb1b"}, ["/ids"]),
    "an object": ({"ids": {}}, ["/ids"]),
    "empty": ({"ids": []}, ["/ids"]),
    "too many": ({"ids": [str(uuid4())] * (MAX_LOOKUP + 1)}, ["/ids"]),
    "unknown field": ({"ids": [str(uuid4())], "with": ["result"]}, ["/with"]),
    "unknown part": ({"ids": [str(uuid4())], "include": ["payload"]}, ["/include/0"]),
    "no UUID": ({"ids": [str(uuid4())] * 3 + ["x"]}, ["/ids/3"]),
    "several": (
        {"ids": ["", str(uuid4()), 0, True, None, [], {}, 1.5]},
        [f"/ids/{index}" for index in (0, 2, 3, 4, 5, 6, 7)],
    ),
    "long": ({"ids": ["f" * 32_000]}, ["/ids/0"]),
    "huge": ({"ids": [10**200]}, ["/ids/0"]),
}


@pytest.mark.parametrize(("body", "pointers"), INVALID.values(), ids=INVALID)
def test_invalid_bodies_are_refused_with_a_pointer_to_each_error(bob, body, pointers):
    document = problem(bob.send("post", "/tasks/lookup", body), "validation-error", 400)
    assert [error["pointer"] for error in document["errors"]] == pointers


HOSTILE = {
    "an array": b"[]",
    "nested deeply": b'{"ids":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "NaN": b'{"ids":[NaN]}',
    "infinite": b'{"ids":[1e400]}',
    "NUL": b'{"ids":["\\u0000"]}',
    "surrogate": b'{"ids":["\\ud800"]}',
    "not UTF-8": b'{"ids":["\xff"]}',
    "cut": b'{"ids":["',
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_hostile_bodies_are_refused(bob, body):
    answer = bob.client.post("/v1/joblib/tasks/lookup", body, content_type="application/json")
    problem(answer, "validation-error", 400)


def test_a_list_that_is_too_long_is_refused_before_its_entries_are_checked(bob):
    """Control: with DRF's `ListField` the request took 14 s."""
    body = b'{"ids":[' + b"0," * 400_000 + b"0]}"
    began = time.perf_counter()
    answer = bob.client.post("/v1/joblib/tasks/lookup", body, content_type="application/json")
    assert time.perf_counter() - began < 1
    document = problem(answer, "validation-error", 400)
    assert [error["pointer"] for error in document["errors"]] == ["/ids"]


def test_only_post_is_allowed(bob):
    for method in ("get", "put", "patch", "delete"):
        answer = bob.send(method, "/tasks/lookup")
        problem(answer, "method-not-allowed", 405)
        assert answer["Allow"] == "POST"
