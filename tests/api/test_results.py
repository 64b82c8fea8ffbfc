"""Results of completed tasks: any JSON, as it was sent, up to a limit."""

from __future__ import annotations

import json

import pytest

from tests.factories import ROTATE, V1, problem
from zndraw_joblib.models import Task

JOB = f"open:{ROTATE}"


@pytest.fixture(autouse=True)
def offered(bob):
    bob.register()


def running(alice, bob):
    """The id of a running task."""
    task = alice.submit().json()["id"]
    assert bob.claim()["id"] == task
    bob.report(task, "running")
    return task


@pytest.fixture
def task(alice, bob):
    return running(alice, bob)


def send_raw(person, path, text):
    return person.client.patch(V1 + path, text.encode(), content_type="application/json")


DOCUMENTS = [
    "true",
    "false",
    "0",
    "-0.0",
    "1.5",
    "1e308",
    "-1.7976931348623157e+308",
    "5e-324",
    "9223372036854775807",
    "18446744073709551616",
    "-123456789012345678901234567890",
    '""',
    '"\\u00e9\\ud83e\\uddea"',
    "[]",
    "{}",
    '[null, [], {"": null}]',
    '{"b": 1, "a": {"d": 1, "c": 2}}',
    '{"id": 18446744073709551616, "scale": 1e22}',
]


@pytest.mark.parametrize("text", DOCUMENTS)
@pytest.mark.parametrize("batch", [False, True])
def test_a_result_of_any_json_comes_back_as_it_was_sent(alice, bob, task, text, batch):
    expected = json.loads(text)
    if batch:
        answer = send_raw(
            bob, "/tasks", f'[{{"id": "{task}", "status": "completed", "result": {text}}}]'
        )
        assert answer.json()[0]["status"] == 200
        assert same(json.loads(answer.content)[0]["task"]["result"], expected)
    else:
        answer = send_raw(bob, f"/tasks/{task}", f'{{"status": "completed", "result": {text}}}')
        assert same(json.loads(answer.content)["result"], expected)
    assert same(json.loads(alice.get(f"/tasks/{task}").content)["result"], expected)
    (found,) = json.loads(
        alice.send("post", "/tasks/lookup", {"ids": [task], "include": ["result"]}).content
    )
    assert same(found["result"], expected)


def same(one, other):
    """Whether two documents are equal with the order of their keys and the kind of each number."""
    return json.dumps(one) == json.dumps(other)


@pytest.mark.parametrize("body", [{}, {"result": None}])
def test_an_absent_result_is_null(alice, bob, task, body):
    assert alice.get(f"/tasks/{task}").json()["result"] is None
    assert bob.report(task, "completed", **body).json()["result"] is None
    assert Task.objects.get().result is None


@pytest.mark.parametrize("text", ["1e400", "-1e400", "NaN", "Infinity", '"\\u0000"', '"\\ud800"'])
def test_a_result_that_is_no_json_is_refused(alice, bob, task, text):
    for nested in (text, f"[{text}]", f'{{"x": {text}}}'):
        answer = send_raw(bob, f"/tasks/{task}", f'{{"status": "completed", "result": {nested}}}')
        problem(answer, "validation-error", 400)
    deep = "[" * 5000 + "]" * 5000
    answer = send_raw(bob, f"/tasks/{task}", f'{{"status": "completed", "result": {deep}}}')
    problem(answer, "validation-error", 400)
    assert alice.get(f"/tasks/{task}").json()["status"] == "running"


@pytest.mark.any_database
@pytest.mark.parametrize("status", ["running", "failed", "cancelled"])
@pytest.mark.parametrize("result", [0, False, "", [], {}, {"x": 1}])
def test_a_result_beside_another_status_is_refused(alice, bob, task, status, result):
    document = problem(bob.report(task, status, result=result), "validation-error", 400)
    assert [error["pointer"] for error in document["errors"]] == ["/result"]
    (answer,) = bob.report_many([{"id": task, "status": status, "result": result}]).json()["errors"]
    assert answer["pointer"] == "/0/result"
    assert alice.get(f"/tasks/{task}").json()["status"] == "running"


def test_a_result_that_is_too_large_leaves_the_task_running(alice, bob, task, settings_of):
    settings_of(max_result_bytes=20)
    document = problem(bob.report(task, "completed", result="x" * 19), "result-too-large", 413)
    assert "file" in document["detail"]
    assert alice.get(f"/tasks/{task}").json()["status"] == "running"
    assert bob.report(task, "completed", result="x" * 18).status_code == 200


@pytest.mark.parametrize(
    ("result", "size"),
    [("é" * 4, 10), ({"a": [1, 2]}, 11), ([1.5, None], 10), (12345678901234567890123, 23)],
)
def test_the_size_of_a_result_is_that_of_compact_json_in_utf8(bob, task, settings_of, result, size):
    settings_of(max_result_bytes=size - 1)
    problem(bob.report(task, "completed", result=result), "result-too-large", 413)
    settings_of(max_result_bytes=size)
    assert bob.report(task, "completed", result=result).status_code == 200


def test_a_result_of_the_default_limit_is_accepted(bob, task):
    assert bob.report(task, "completed", result="x" * (262_144 - 2)).status_code == 200


def test_a_result_beyond_the_default_limit_is_refused(bob, task):
    problem(bob.report(task, "completed", result="x" * (262_144 - 1)), "result-too-large", 413)


def test_one_result_of_a_list_that_is_too_large_does_not_hold_up_the_others(
    alice, bob, settings_of
):
    settings_of(max_result_bytes=10)
    tasks = [running(alice, bob) for _ in range(3)]
    results = bob.report_many(
        [
            {"id": tasks[0], "status": "completed", "result": 1},
            {"id": tasks[1], "status": "completed", "result": "x" * 10},
            {"id": tasks[2], "status": "completed", "result": 3},
            # Again, which is the next wave.
            {"id": tasks[1], "status": "completed", "result": "short"},
        ]
    )
    assert [result["status"] for result in results] == [200, 413, 200, 200]
    assert results[1]["problem"]["type"].endswith("/result-too-large")
    found = [alice.get(f"/tasks/{task}").json()["result"] for task in tasks]
    assert found == [1, "short", 3]


def test_the_result_is_that_of_the_first_report(alice, bob, task):
    first = bob.report(task, "completed", attempt=1, result=1).json()
    assert bob.report(task, "completed", attempt=1, result=2).json() == first
    problem(bob.report(task, "failed", attempt=1), "invalid-task-transition", 409)
    assert alice.get(f"/tasks/{task}").json()["result"] == 1


def test_a_result_of_an_earlier_attempt_changes_nothing(alice, bob, task):
    Task.objects.get().requeue()
    bob.claim()
    bob.report(task, "running")
    problem(bob.report(task, "completed", attempt=1, result="old"), "lease-lost", 409)
    assert alice.get(f"/tasks/{task}").json()["result"] is None
    assert bob.report(task, "completed", attempt=2, result="new").json()["result"] == "new"


def test_a_result_and_a_remark_go_together(bob, task):
    document = bob.report(task, "completed", result=1, error="not converged").json()
    assert (document["result"], document["error"]) == (1, "not converged")


def test_an_administrator_reports_a_result_and_the_submitter_does_not(alice, root, task):
    problem(alice.report(task, "completed", result=1), "forbidden", 403)
    assert root.report(task, "completed", result=1).json()["result"] == 1


def test_lists_and_lookups_leave_results_out(alice, bob, task):
    bob.report(task, "completed", result=1)
    for path in ("/tasks", "/rooms/open/tasks", f"/rooms/open/jobs/{JOB}/tasks"):
        (listed,) = alice.get(path).json()
        assert "result" not in listed
    (found,) = alice.send("post", "/tasks/lookup", {"ids": [task]}).json()
    assert "result" not in found
