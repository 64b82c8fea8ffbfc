"""Batches: one request submits, claims or reports many tasks."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.factories import SCHEMA, V1, problem
from zndraw_joblib.models import IdempotencyKey, Task

pytestmark = pytest.mark.django_db
JOB = "/rooms/open/tasks/open:modifiers:Rotate"


@pytest.fixture
def worker(bob):
    """The id of a worker of Bob's that is registered for Rotate in the room `open`."""
    worker = bob.worker()
    bob.register(worker_id=worker, schema=SCHEMA)
    return worker


def submit(person, *angles, **headers):
    body = [{"payload": {"angle": angle}} for angle in angles]
    return person.send("post", JOB, body, headers=headers)


def angles(tasks):
    return [task["payload"]["angle"] for task in tasks]


# -- submit


def test_an_array_of_submits_returns_its_tasks_in_order(alice, worker):
    answer = submit(alice, 1, 2, 3)
    assert answer.status_code == 202
    tasks = answer.json()
    assert angles(tasks) == [1, 2, 3]
    assert [task["status"] for task in tasks] == ["pending"] * 3
    assert [task["queue_position"] for task in tasks] == [1, 2, 3]
    assert len({task["id"] for task in tasks}) == 3
    assert answer["Location"] == "/v1/joblib/rooms/open/jobs/open:modifiers:Rotate/tasks"
    assert answer["Retry-After"] == "1"
    assert [task["queue_position"] for task in submit(alice, 4, 5).json()] == [4, 5]
    assert alice.get(f"/tasks/{tasks[1]['id']}").json() == tasks[1]


def test_an_array_of_one_is_answered_with_an_array(alice, worker):
    assert angles(submit(alice, 7).json()) == [7]


def test_an_array_with_an_invalid_payload_submits_nothing_and_points_to_each_error(alice, worker):
    answer = alice.send("post", JOB, [{"payload": {"angle": a}} for a in (1, "x", 3, None)])
    errors = problem(answer, "invalid-payload", 422)["errors"]
    assert [error["pointer"] for error in errors] == ["/1/payload/angle", "/3/payload/angle"]
    assert not Task.objects.exists()


def test_pointers_of_a_single_submit_have_no_index(alice, worker):
    errors = problem(alice.submit(angle="x"), "invalid-payload", 422)["errors"]
    assert [error["pointer"] for error in errors] == ["/payload/angle"]


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ([], [""]),
        ([{"payload": {}}, 3], ["/1"]),
        ([{"payload": {}}, {"payload": []}], ["/1/payload"]),
        ([{"payload": {}, "x": 1}], ["/0/x"]),
        ([[]], ["/0"]),
        ([None], ["/0"]),
    ],
)
def test_invalid_arrays_of_submits_are_refused_with_pointers(alice, worker, body, pointers):
    errors = problem(alice.send("post", JOB, body), "validation-error", 400)["errors"]
    assert [error["pointer"] for error in errors] == pointers
    assert not Task.objects.exists()


def test_arrays_over_the_limit_are_refused(alice, worker, settings_of):
    settings_of(max_batch_size=2)
    assert submit(alice, 1, 2).status_code == 202
    for path, method, body in (
        (JOB, "post", [{"payload": {}}] * 3),
        ("/tasks", "patch", [{"id": str(task.pk), "status": "running"} for task in [Task()] * 3]),
    ):
        assert (
            "1 to 2" in problem(alice.send(method, path, body), "validation-error", 400)["detail"]
        )
    assert Task.objects.count() == 2


def test_a_key_covers_the_whole_array(alice, worker):
    first = submit(alice, 1, 2, 3, **{"idempotency-key": '"k"'}).json()
    again = submit(alice, 1, 2, 3, **{"idempotency-key": '"k"'})
    assert again.status_code == 202
    assert again.json() == first
    assert Task.objects.count() == 3
    other = submit(alice, 1, 2, **{"idempotency-key": '"k"'})
    problem(other, "idempotency-key-reused", 422)
    single = alice.send("post", JOB, {"payload": {"angle": 1}}, headers={"idempotency-key": '"k"'})
    problem(single, "idempotency-key-reused", 422)
    # A refused submit does not use up its key.
    bad = alice.send(
        "post", JOB, [{"payload": {"angle": "x"}}], headers={"idempotency-key": '"free"'}
    )
    problem(bad, "invalid-payload", 422)
    assert IdempotencyKey.objects.count() == 1
    assert submit(alice, 9, **{"idempotency-key": '"free"'}).status_code == 202


def test_a_full_room_refuses_an_array_as_a_whole(alice, worker, settings_of):
    settings_of(max_pending_per_room=5)
    assert submit(alice, 1, 2, 3).status_code == 202
    problem(submit(alice, 4, 5, 6), "too-many-pending", 429)
    assert submit(alice, 4, 5).status_code == 202
    problem(submit(alice, 6), "too-many-pending", 429)
    assert Task.objects.count() == 5


# -- claim


def claim(person, worker, **body):
    return person.send("post", "/tasks/claim", {"worker_id": worker, **body})


def test_claim_returns_up_to_limit_tasks_oldest_first_over_all_jobs(alice, bob, worker):
    bob.register(worker_id=worker, name="Other", schema={})
    expected = []
    for number in range(6):
        job = ("Rotate", "Other")[number % 2]
        expected.append(alice.submit(job=f"open:modifiers:{job}").json()["id"])
    got = claim(bob, worker, limit=4).json()
    assert [task["id"] for task in got["tasks"]] == expected[:4]
    assert got["task"] == got["tasks"][0]
    assert {(task["status"], task["attempt"]) for task in got["tasks"]} == {("claimed", 1)}
    assert [task["id"] for task in claim(bob, worker, limit=4).json()["tasks"]] == expected[4:]
    assert claim(bob, worker, limit=4).json() == {"task": None, "tasks": []}


def test_claim_without_a_limit_returns_one_task_and_no_list(alice, bob, worker):
    submit(alice, 1, 2)
    got = claim(bob, worker).json()
    assert got.keys() == {"task"}
    assert Task.objects.filter(status="pending").count() == 1


@pytest.mark.parametrize("limit", [None, 1, 3])
def test_claim_with_start_returns_running_tasks(alice, bob, worker, limit):
    submit(alice, 1, 2, 3)
    body = {} if limit is None else {"limit": limit}
    got = claim(bob, worker, start=True, **body).json()
    tasks = got.get("tasks", [got["task"]])
    assert len(tasks) == (limit or 1)
    for task in tasks:
        assert (task["status"], task["attempt"]) == ("running", 1)
        assert task["started_at"] is not None
        assert bob.report(task["id"], "completed", attempt=1).status_code == 200


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"limit": 0}, "/limit"),
        ({"limit": 501}, "/limit"),
        ({"limit": "3"}, "/limit"),
        ({"limit": True}, "/limit"),
        ({"limit": 10**30}, "/limit"),
        ({"start": 1}, "/start"),
        ({"start": "true"}, "/start"),
        ({"start": None}, "/start"),
    ],
)
def test_claims_with_invalid_fields_are_refused(alice, bob, worker, body, pointer):
    submit(alice, 1)
    errors = problem(claim(bob, worker, **body), "validation-error", 400)["errors"]
    assert errors[0]["pointer"] == pointer
    assert Task.objects.get().status == "pending"


# -- report


@pytest.fixture
def running(alice, bob, worker):
    """Five tasks that Bob's worker runs."""
    submit(alice, *range(5))
    return claim(bob, worker, limit=5, start=True).json()["tasks"]


def report(task, status, **more):
    return {"id": task["id"], "status": status, "attempt": task["attempt"], **more}


def test_each_report_has_its_own_result(bob, running):
    done, failed, lost, ended, cancelled = running
    bob.report(ended["id"], "completed")
    results = bob.report_many(
        [
            report(done, "completed"),
            report(failed, "failed", error="broken"),
            report(lost, "completed") | {"attempt": 0},
            report(ended, "failed"),
            report(cancelled, "cancelled"),
            {"id": "01a20c7d-1505-73c8-b9b4-1ae3b824bb1b", "status": "completed"},
        ]
    )
    assert [result["status"] for result in results] == [200, 200, 409, 409, 200, 404]
    assert [result["id"] for result in results[:5]] == [task["id"] for task in running]
    assert results[0]["task"]["status"] == "completed"
    assert (results[1]["task"]["status"], results[1]["task"]["error"]) == ("failed", "broken")
    problems = [result["problem"]["type"] for result in results if "problem" in result]
    assert [type_.rpartition("/")[2] for type_ in problems] == [
        "lease-lost",
        "invalid-task-transition",
        "task-not-found",
    ]
    assert results[2]["problem"]["instance"] == f"/v1/joblib/tasks/{lost['id']}"
    assert Task.objects.get(pk=lost["id"]).status == "running"


def test_a_repeated_batch_of_reports_gets_the_same_results(bob, running):
    reports = [report(task, "completed") for task in running]
    assert bob.report_many(reports) == bob.report_many(reports)


def test_reports_on_one_task_are_applied_in_their_order(alice, bob, worker):
    submit(alice, 1)
    task = claim(bob, worker).json()["task"]
    results = bob.report_many(
        [
            report(task, "completed"),
            report(task, "running"),
            report(task, "completed"),
            report(task, "failed"),
        ]
    )
    assert [result["status"] for result in results] == [409, 200, 200, 409]
    assert Task.objects.get().status == "completed"


def test_a_report_in_a_batch_needs_the_permission_of_a_single_report(alice, carol, running):
    reports = [report(task, "completed") for task in running[:2]]
    assert [result["status"] for result in carol.report_many(reports)] == [403, 403]
    cancels = [report(running[0], "cancelled"), report(running[1], "completed")]
    assert [result["status"] for result in alice.report_many(cancels)] == [200, 403]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ([], ""),
        ({"id": "x"}, ""),
        ([{"status": "running"}], "/0/id"),
        ([{"id": "x", "status": "running"}], "/0/id"),
        ([{"id": "01a20c7d-1505-73c8-b9b4-1ae3b824bb1b", "status": "done"}], "/0/status"),
        ([{"id": "01a20c7d-1505-73c8-b9b4-1ae3b824bb1b", "status": []}], "/0/status"),
        (
            [{"id": "01a20c7d-1505-73c8-b9b4-1ae3b824bb1b", "status": "running", "attempt": "1"}],
            "/0/attempt",
        ),
        (
            [{"id": "01a20c7d-1505-73c8-b9b4-1ae3b824bb1b", "status": "running", "error": "x"}],
            "/0/error",
        ),
    ],
)
def test_a_batch_with_only_invalid_reports_is_refused_and_changes_nothing(
    bob, running, body, pointer
):
    answer = bob.send("patch", "/tasks", body)
    assert problem(answer, "validation-error", 400)["errors"][0]["pointer"] == pointer
    assert set(Task.objects.values_list("status", flat=True)) == {"running"}


def test_an_invalid_report_in_a_batch_does_not_stop_the_others(bob, running):
    first, second, third = running[:3]
    results = bob.report_many(
        [
            report(first, "completed"),
            {"id": second["id"], "status": "done"},
            7,
            report(third, "completed"),
            {"id": "x", "status": "completed"},
        ]
    )
    assert [result["status"] for result in results] == [200, 400, 400, 200, 400]
    ids = [first["id"], second["id"], None, third["id"], None]
    assert [result["id"] for result in results] == ids
    problems = [result["problem"] for result in results if "problem" in result]
    assert [each["errors"][0]["pointer"] for each in problems] == ["/1/status", "/2", "/4/id"]
    assert results[1]["problem"]["instance"] == f"{V1}/tasks"
    assert Task.objects.get(pk=second["id"]).status == "running"


# -- statements


def statements(request):
    with CaptureQueriesContext(connection) as queries:
        answer = request()
    assert answer.status_code < 300, answer.content
    # Neither the beginnings and ends of transactions count, nor savepoints.
    ends = ("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE SAVEPOINT")
    return [query["sql"] for query in queries if not query["sql"].startswith(ends)]


# Without a transaction around the test, because a job that is read in one is cached at its commit.
@pytest.mark.django_db(transaction=True)
def test_hot_paths_send_the_known_number_of_statements(alice, bob, worker):
    """Authentication does not count, because the token is cached after the first request."""
    alice.submit(angle=1)
    bob.get("/workers")
    assert len(statements(lambda: alice.submit(angle=1))) == 1
    assert len(statements(lambda: submit(alice, 1, 2, 3))) == 1
    assert len(statements(lambda: claim(bob, worker, limit=2))) == 1
    assert len(statements(lambda: claim(bob, worker, start=True))) == 1
    task = {}
    assert len(statements(lambda: task.setdefault("it", claim(bob, worker)))) == 1
    task = task["it"].json()["task"]
    heartbeat = {"tasks": [{"id": task["id"], "attempt": 1}]}
    assert len(statements(lambda: bob.send("patch", f"/workers/{worker}", heartbeat))) == 2
    assert len(statements(lambda: bob.send("patch", f"/workers/{worker}"))) == 2
    assert len(statements(lambda: bob.report(task["id"], "running", attempt=1))) == 1
    assert len(statements(lambda: bob.report(task["id"], "completed", attempt=1))) == 1
    assert len(statements(lambda: alice.get(f"/tasks/{task['id']}"))) == 1
    keyed = {"idempotency-key": "k"}
    assert len(statements(lambda: submit(alice, 1, **keyed))) == 2
    assert len(statements(lambda: submit(alice, 1, **keyed))) == 2
    assert IdempotencyKey.objects.count() == 1
    idle = bob.worker()
    assert len(statements(lambda: bob.send("patch", f"/workers/{idle}"))) == 1
    assert len(statements(lambda: bob.send("patch", f"/workers/{idle}", {"tasks": []}))) == 1
    running = [task.pk for task in Task.objects.filter(status="claimed")]
    reports = [{"id": str(pk), "status": "running", "attempt": 1} for pk in running]
    assert len(statements(lambda: bob.send("patch", "/tasks", reports))) == 1
