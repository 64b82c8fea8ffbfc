"""The value that the code of a task returned is its result."""

from __future__ import annotations

import array
import asyncio
import collections
import dataclasses
import enum
import json
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import PurePosixPath

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict, Field, Json, computed_field

from tests.client.instances import SENT
from tests.client.stand_in import bodies, granted, refusal, serve, task
from zndraw_joblib.client import ResultError, TaskInfo
from zndraw_joblib.client.differences import difference
from zndraw_joblib.client.reports import Report
from zndraw_joblib.client.result_json import result_json
from zndraw_joblib.lifecycle import TaskStatus


class Energy(BaseModel):
    value: float = Field(1.5, alias="theValue")

    @computed_field
    def doubled(self) -> float:
        return 2 * self.value


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    numbers: Json[list[int]]

    @computed_field
    def total(self) -> int:
        return sum(self.numbers)


class Holder(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    matrix: np.ndarray


@dataclasses.dataclass
class Step:
    number: int
    energy: Energy


class Color(enum.Enum):
    RED = "red"


class Pair(collections.namedtuple("Pair", "a b")):
    pass


NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

RESULTS = [
    ({"a": [1, 2.5, "x", None, True]}, {"a": [1, 2.5, "x", None, True]}),
    (0, 0),
    ("", ""),
    (False, False),
    ([], []),
    (2**200, 2**200),
    (1e308, 1e308),
    (-0.0, -0.0),
    ("\\u0000", "\\u0000"),
    ((1, 2), [1, 2]),
    (Pair(1, 2), [1, 2]),
    ({3}, [3]),
    (frozenset({3}), [3]),
    (range(3), [0, 1, 2]),
    ({"a": 1}.keys(), ["a"]),
    ({"a": 1}.values(), [1]),
    (collections.deque([1]), [1]),
    (collections.UserDict(a=1), {"a": 1}),
    (array.array("d", [1.5]), [1.5]),
    ({1: 2}, {"1": 2}),
    (NOW, "2026-01-02T03:04:05Z"),
    ({"at": NOW.date()}, {"at": "2026-01-02"}),
    (timedelta(hours=1), "PT1H"),
    (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
    (Decimal("1.10"), "1.10"),
    (Color.RED, "red"),
    (PurePosixPath("a/b"), "a/b"),
    (b"text", "text"),
    (Energy(), {"theValue": 1.5, "doubled": 3.0}),
    ([Energy()], [{"theValue": 1.5, "doubled": 3.0}]),
    (Closed(numbers="[1, 2]"), {"numbers": "[1,2]"}),
    (Step(3, Energy()), {"number": 3, "energy": {"theValue": 1.5, "doubled": 3.0}}),
    (np.int64(3), 3),
    (np.float32(0.5), 0.5),
    (np.float64(0.1), 0.1),
    (np.bool_(True), True),
    (np.str_("x"), "x"),
    (np.array(3), 3),
    (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
    (np.array([1.5, None], dtype=object), [1.5, None]),
    (np.array(["2026-01-02T03:04:05"], dtype="datetime64[ns]"), ["2026-01-02T03:04:05"]),
    ({np.int64(1): np.zeros(2)}, {"1": [0.0, 0.0]}),
    (Holder(matrix=np.eye(2)), {"matrix": [[1.0, 0.0], [0.0, 1.0]]}),
]


@pytest.mark.parametrize(("result", "expected"), RESULTS)
def test_a_result_is_written_as_json(result, expected):
    assert json.loads(result_json(result) or b"") == expected


def test_none_is_no_result():
    assert result_json(None) is None


@pytest.mark.parametrize("instance", SENT, ids=lambda instance: type(instance).__name__)
def test_an_instance_of_a_model_is_read_back_from_its_result(instance):
    text = result_json(instance)
    assert text is not None
    assert difference(instance, type(instance).model_validate_json(text)) is None


LOOP: list = []
LOOP.append({"again": LOOP})

UNSUITABLE = [
    (float("nan"), "result is nan"),
    ({"energies": [1.0, float("inf")]}, "result.energies[1] is inf"),
    ([{"a": np.array([0.0, np.nan])}], "result[0].a[1] is nan"),
    (Step(1, Energy(theValue=float("-inf"))), "result.energy.value is -inf"),
    (Energy(theValue=float("nan")), "result.value is nan"),
    ({"a": {"b": object()}}, "result.a.b has no form in JSON: <object"),
    ({"a": b"\xff"}, "result.a has no form in JSON: b'\\xff'"),
    (["\ud800"], "result[0] has no form in JSON: '\\ud800'"),
    (["a\x00"], "result[0] has no form in JSON: 'a\\x00'"),
    ({"\x00": 1}, "result has no form in JSON"),
    (LOOP, "result[0]"),
    (Color, "result has no form in JSON"),
    (ValueError("x"), "result has no form in JSON: ValueError"),
    ("x" * 300_000, "300002 bytes of JSON, and the server accepts 262144. Upload it as a file: "),
    (np.zeros(10**7), "more than 262144 bytes of JSON. Upload it as a file: task.upload("),
    ({"a": [np.zeros(10**7)]}, "more than 262144 bytes of JSON. Upload it as a file: task.upload("),
]


@pytest.mark.parametrize(("result", "text"), UNSUITABLE)
def test_a_result_without_a_form_in_json_is_an_error_that_names_the_place(result, text):
    with pytest.raises(ResultError) as caught:
        result_json(result)
    assert text in str(caught.value)


def test_numpy_is_not_imported_for_a_result():
    code = (
        "import sys\n"
        "from zndraw_joblib.client.result_json import result_json\n"
        "assert result_json([{1}, 2]) == b'[[1],2]'\n"
        "assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


async def later(value):
    await asyncio.sleep(0)
    return value


def in_thread(value):
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(lambda: value)


def at_once(value):
    return value


@pytest.mark.parametrize("call", [at_once, later, in_thread])
@pytest.mark.parametrize("prefetch", [0, 2])
def test_the_value_of_a_call_is_reported_as_the_result(server, manager, call, prefetch):
    server.queue += [task("a"), task("b")]
    serve(server, manager, 2, lambda claimed: call({"id": claimed.id}), prefetch=prefetch)
    for task_id in "ab":
        (body,) = [body for body in bodies(server, task_id) if body["status"] == "completed"]
        assert body["result"] == {"id": task_id}


def test_a_call_without_a_value_reports_no_result(server, manager):
    server.queue.append(task("a"))
    serve(server, manager, 1, lambda claimed: None)
    assert bodies(server, "a") == [{"status": "completed", "attempt": 1}]


def test_a_result_that_has_no_form_in_json_fails_the_task_alone(server, manager):
    server.queue += [task("a"), task("b")]
    serve(server, manager, 2, lambda claimed: {"x": object()} if claimed.id == "a" else 1)
    assert server.tasks == {"a": "failed", "b": "completed"}
    assert bodies(server, "a")[-1]["error"].startswith("result.x has no form in JSON")


def test_a_result_above_the_limit_of_the_server_fails_the_task(server, manager):
    server.max_result_bytes = 10
    server.queue += [task("a"), task("b")]
    serve(server, manager, 2, lambda claimed: "x" * (9 if claimed.id == "a" else 8))
    assert server.tasks == {"a": "failed", "b": "completed"}
    assert "task.upload(" in bodies(server, "a")[-1]["error"]


def test_a_result_that_the_server_refuses_fails_the_task_and_names_the_upload(server, manager):
    server.queue.append(task("a"))
    server.refuse_once["a", "completed"] = refusal("result-too-large", 413)
    serve(server, manager, 1, lambda claimed: "x")
    assert server.tasks == {"a": "failed"}
    assert "413 T: why Upload it as a file: task.upload(" in bodies(server, "a")[-1]["error"]


def test_complete_takes_a_result(server, manager):
    (claimed,) = granted("a")
    manager.complete(claimed, Energy(), remark="slow")
    assert bodies(server, "a") == [
        {
            "status": "completed",
            "attempt": 1,
            "error": "slow",
            "result": {"theValue": 1.5, "doubled": 3.0},
        }
    ]
    with pytest.raises(ResultError, match="result is nan"):
        manager.complete(claimed, float("nan"))
    assert len(bodies(server, "a")) == 1


def test_large_results_are_divided_into_several_requests(server, manager):
    result = result_json("x" * 200_000)
    reports = [Report.on(one, TaskStatus.COMPLETED, result=result) for one in granted(*"abcde")]
    outcomes = manager.report(reports)
    assert all(isinstance(outcome, TaskInfo) for outcome in outcomes)
    sizes = [len(json.dumps(call[2])) for call in server.sent("PATCH", "/tasks")]
    assert len(sizes) == 3
    assert max(sizes) <= 524_288
