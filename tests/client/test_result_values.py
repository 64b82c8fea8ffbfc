"""Results as the type that `run` is annotated to return."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Self, TypeVar

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tests.client.stand_in import task
from zndraw_joblib.client import TaskInfo
from zndraw_joblib.client.result_values import result_of

if TYPE_CHECKING:
    from collections import OrderedDict

T = TypeVar("T")


@dataclass
class Point:
    x: float
    y: float = 0


class Energy(BaseModel):
    model_config = ConfigDict(strict=True)
    value: float
    unit: str = Field("eV", alias="Unit")
    at: datetime | None = None


class Job(BaseModel):
    pass


class Box(BaseModel, Generic[T]):
    content: T


def ended(result: Any) -> TaskInfo:
    document = json.loads(json.dumps(task("t1", status="completed", result=result)))
    return TaskInfo.model_validate(document)


def returning(annotation: Any) -> type[BaseModel]:
    def run(self):
        pass

    run.__annotations__["return"] = annotation
    return type("Returns", (Job,), {"run": run, "__module__": __name__})


AT = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("annotation", "result", "value"),
    [
        (float, 1, 1.0),
        ("float", 1, 1.0),
        (int, 2**80, 2**80),
        (tuple[int, ...], [1, 2], (1, 2)),
        (set[str], ["a"], {"a"}),
        (datetime, "2026-01-02T00:00:00Z", AT),
        (Decimal, "1.10", Decimal("1.10")),
        (Path, "a/b", Path("a/b")),
        (Point, {"x": 1}, Point(1)),
        ("Point | None", None, None),
        (list[Point], [{"x": 1}], [Point(1)]),
        (dict[str, Point], {"a": {"x": 1}}, {"a": Point(1)}),
        (Energy, {"value": 1.5, "Unit": "J"}, Energy(value=1.5, Unit="J")),
        (
            Energy,
            {"value": 1.5, "unit": "J", "at": "2026-01-02T00:00:00Z"},
            Energy(value=1.5, Unit="J", at=AT),
        ),
        (Box[int], {"content": 3}, Box[int](content=3)),
        (Annotated[int, Field(gt=0)], 3, 3),
        (Awaitable[Point], {"x": 1}, Point(1)),
        (asyncio.Future[Point], {"x": 1}, Point(1)),
        (Future[Point], {"x": 1}, Point(1)),
        # A task that was completed without a result.
        (int, None, None),
        # These stay JSON.
        (None, {"from": "execute"}, {"from": "execute"}),
        (Any, [1], [1]),
        ("NoSuchName", [1], [1]),
        ("OrderedDict[str, int]", {"a": 1}, {"a": 1}),
        ("1 / 0", [1], [1]),
        (type("NoSchema", (), {}), [1], [1]),
    ],
)
def test_a_result_is_of_the_annotated_type(annotation, result, value):
    found = result_of(ended(result), returning(annotation))
    assert found == value
    assert type(found) is type(value)


class Plain(Job):
    def run(self):
        pass


class Coroutine(Job):
    async def run(self) -> Point: ...


class Static(Job):
    @staticmethod
    def run() -> Point: ...


class OfClass(Job):
    @classmethod
    def run(cls) -> Point: ...


def traced(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*arguments):
        return function(*arguments)

    return call


class Wrapped(Job):
    @traced
    def run(self) -> Point: ...


class OtherArguments(Job):
    def run(self, task: OrderedDict) -> Point: ...


class Inherits(Coroutine):
    pass


class Itself(Job):
    x: float = 0

    def run(self) -> Self: ...


def test_the_annotation_is_found_however_run_is_written():
    for cls in (Coroutine, Static, OfClass, Wrapped, OtherArguments, Inherits):
        assert result_of(ended({"x": 1}), cls) == Point(1), cls
    assert result_of(ended({"x": 1}), Plain) == {"x": 1}
    assert result_of(ended({"x": 1}), Job) == {"x": 1}
    assert result_of(ended({"x": 1}), None) == {"x": 1}
    assert result_of(ended({"x": 1}), Itself) == Itself(x=1)


def test_a_class_within_a_function_may_return_itself():
    class Local(Job):
        x: float = 0

        def run(self) -> Local: ...

    assert result_of(ended({"x": 1}), Local) == Local(x=1)


def test_a_result_of_another_type_is_an_error():
    with pytest.raises(ValidationError):
        result_of(ended("text"), returning(float))


@pytest.mark.parametrize("annotation", ["NoSuchName", type("NoSchema", (), {})])
def test_a_result_that_stays_json_because_of_its_type_is_a_warning(caplog, annotation):
    result_of(ended([1]), returning(annotation))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "stay JSON, because of their type" in record.getMessage()
