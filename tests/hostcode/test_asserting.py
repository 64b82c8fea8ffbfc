"""`zndraw_joblib.testing.assert_submitted`."""

from __future__ import annotations

import pytest

from tests.hostcode.jobs import Fails, Rotate, double
from zndraw_joblib import declare_job, submit
from zndraw_joblib.testing import assert_submitted

pytestmark = pytest.mark.django_db

ROTATE = "shop:modifiers:Rotate"


@pytest.fixture
def tasks(db):
    declare_job(ROTATE, Rotate)
    declare_job("@global:modifiers:Rotate", Rotate)
    return [
        submit(ROTATE, {"angle": 1}),
        submit(ROTATE, {}),
        submit("@global:modifiers:Rotate", {"angle": 1}, room_id="lab"),
    ]


def test_the_matching_tasks_are_returned(tasks):
    assert assert_submitted(Rotate) == tasks
    assert assert_submitted(ROTATE, count=2) == tasks[:2]
    assert assert_submitted(tasks[0].job) == tasks[:2]
    assert assert_submitted(Rotate, {"angle": 1}) == [tasks[0], tasks[2]]
    assert assert_submitted(Rotate, {"angle": 1}, "lab", 1) == [tasks[2]]
    assert assert_submitted(Rotate, count=0, room_id="other") == []


def test_an_instance_matches_the_one_that_a_worker_would_get(tasks):
    assert assert_submitted(Rotate, Rotate(angle=90)) == [tasks[1]]
    assert assert_submitted(Rotate, Rotate(angle=2), count=0) == []


def test_a_payload_matches_the_task_that_was_submitted_with_it(db):
    declare_job("shop:modifiers:Any", {})
    given = {"size": (1, 2), "by_number": {1: [(3,)]}}
    assert assert_submitted("shop:modifiers:Any", given, count=0) == []
    task = submit("shop:modifiers:Any", given)
    assert assert_submitted("shop:modifiers:Any", given) == [task]


def test_a_function_is_a_job_too(db):
    declare_job("shop:modifiers:double", double)
    task = submit("shop:modifiers:double", {"number": 1})
    assert assert_submitted(double, {"number": 1}) == [task]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ({"job": Fails}, "at least 1 task(s) of Fails"),
        ({"job": ROTATE, "count": 3}, f"3 task(s) of {ROTATE}, and found 2"),
        ({"job": Rotate, "count": 0}, "0 task(s) of Rotate, and found 3"),
        ({"job": Rotate, "payload": {"angle": 2}}, "with the payload {'angle': 2}"),
        ({"job": Rotate, "room_id": "x"}, "in the room x"),
    ],
)
def test_a_failed_assertion_lists_the_tasks(tasks, arguments, wanted):
    with pytest.raises(AssertionError) as caught:
        assert_submitted(**arguments)
    text = str(caught.value)
    assert wanted in text
    assert "\n  shop:modifiers:Rotate in shop: {'angle': 1} (pending)\n" in text
    assert "@global:modifiers:Rotate in lab" in text


def test_a_failed_assertion_lists_twenty_tasks_at_most(tasks):
    for _ in range(20):
        submit(ROTATE)
    with pytest.raises(AssertionError, match="and 3 more"):
        assert_submitted(Fails)


def test_a_failed_assertion_says_that_there_is_no_task(db):
    with pytest.raises(AssertionError, match="no task was submitted"):
        assert_submitted(Rotate)
