from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, TypeAdapter, conint, constr
from pydantic.dataclasses import dataclass as pydantic_dataclass

from zndraw_joblib.schemas import PayloadChecker, schema_errors


def errors(schema):
    return schema_errors(schema, max_bytes=65_536, max_depth=32)


def payload_errors(schema, payload):
    return PayloadChecker(schema).errors(payload)


def test_nested_models_are_accepted():
    class Inner(BaseModel):
        price: Decimal

    class Outer(BaseModel):
        inner: Inner
        others: list[Inner]
        names: dict[str, Inner | None]

    schema = Outer.model_json_schema()
    assert errors(schema) == []
    valid = {"inner": {"price": "1.50"}, "others": [{"price": 2}], "names": {"x": None}}
    assert payload_errors(schema, valid) == []
    assert payload_errors(schema, {**valid, "others": [{}]})[0].pointer == "/others/0"


class Colour(Enum):
    red = "red"
    blue = "blue"


class Atom(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Literal["atom"]
    symbol: Annotated[str, Field(pattern=r"^[A-Z][a-z]?$", max_length=2)]
    mass: Annotated[float, Field(gt=0, multiple_of=0.5)] | None = None


class Bond(BaseModel):
    kind: Literal["bond"]
    ends: tuple[int, int]
    order: Literal[1, 2, 3] = 1


class Molecule(BaseModel):
    parts: list[Annotated[Atom | Bond, Field(discriminator="kind")]] = Field(min_length=1)
    made: datetime
    price: Decimal = Decimal(1)
    cost: Decimal = Field(default=Decimal(1), max_digits=8, decimal_places=2)
    colour: Colour = Colour.red
    tags: set[str] = set()
    scores: dict[str, float | None] = {}
    note: str | None = None


MOLECULE = {
    "parts": [
        {"kind": "atom", "symbol": "He", "mass": 4.5},
        {"kind": "bond", "ends": [1, 2], "order": 3},
    ],
    "made": "2024-01-01T00:00:00Z",
    "cost": "1.50",
    "colour": "blue",
    "tags": ["a", "b"],
    "scores": {"a": 1.5, "b": None},
}
INVALID: dict[str, dict[str, Any]] = {
    "/parts": {"parts": []},
    "/parts/0": {"parts": [{"kind": "atom", "symbol": "he"}]},
    "": {"made": ...},
    "/colour": {"colour": "green"},
    "/tags": {"tags": ["a", "a"]},
    "/scores/a": {"scores": {"a": "x"}},
    "/note": {"note": 5},
}


@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_a_model_with_fields_of_many_types_is_accepted(mode):
    schema = Molecule.model_json_schema(mode=mode)
    assert errors(schema) == []
    assert payload_errors(Molecule.model_json_schema(), MOLECULE) == []


@pytest.mark.parametrize("pointer", INVALID)
def test_errors_point_to_the_invalid_field_of_a_model(pointer):
    invalid = {key: v for key, v in {**MOLECULE, **INVALID[pointer]}.items() if v is not ...}
    found = payload_errors(Molecule.model_json_schema(), invalid)
    assert [error.pointer for error in found] == [pointer]


@pytest.mark.parametrize(
    ("text", "valid"), [("1.50", True), ("-3", True), ("-.", False), ("+", False), ("x", False)]
)
def test_a_decimal_is_checked_by_its_pattern(text, valid):
    schema = {"pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"}
    assert errors(schema) == []
    assert (payload_errors(schema, text) == []) is valid


@pytest.mark.parametrize(
    "rest",
    [
        r"\d*\.?\d{0,2}0*$",
        r"(?:\d{0,8}|(?=[\d.]{1,11}0*$)\d{0,8}\.\d{0,2}0*$)",
        r"(?:\d{0,10}|(?=[\d.]{1,11}0*$)\d*\.\d*0*$)",
    ],
)
@pytest.mark.parametrize("text", ["1.50", "-3", "-.", "+", "x", "", "123456789012.123", "1.555"])
def test_the_pattern_of_a_bounded_decimal_agrees_with_re(rest, text):
    schema = {"pattern": r"^(?!^[-+.]*$)[+-]?0*" + rest}
    assert errors(schema) == []
    assert (payload_errors(schema, text) == []) is bool(re.search(schema["pattern"], text))


class Node(BaseModel):
    name: str
    children: list[Node] = []


class Tree(BaseModel):
    root: Node
    other: Tree | None = None


T = TypeVar("T")


class Box(BaseModel, Generic[T]):
    content: T


@dataclass
class Point:
    x: float
    y: float = 0


@pydantic_dataclass
class Line:
    start: Point
    end: Point


class Level(IntEnum):
    low = 1
    high = 2


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = Field(ge=0, le=9)


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: set[str] = Field(max_length=3)


class Pets(RootModel[list[Annotated[Cat | Dog, Field(discriminator="kind")]]]):
    pass


class Expression(BaseModel):
    left: Expression | float
    operator: Literal["+", "-"]
    right: Expression | float


ONE = {"left": 1, "operator": "+", "right": 2}

#: A type, valid payloads and invalid payloads.
TYPES = {
    "recursive model": (
        Tree,
        [{"root": {"name": "a", "children": [{"name": "b"}]}, "other": {"root": {"name": "c"}}}],
        [{"root": {"name": "a", "children": [{"name": 1}]}}, {"root": {}}],
    ),
    "recursive union": (Expression, [ONE, ONE | {"left": ONE}], [ONE | {"left": {"left": 1}}]),
    "discriminated union": (
        Pets,
        [[{"kind": "cat", "lives": 9}, {"kind": "dog", "tricks": ["sit"]}]],
        [[{"kind": "cat", "lives": 10}], [{"kind": "cow"}], [{"kind": "dog", "tricks": ["a"] * 2}]],
    ),
    "decimal": (Decimal, [1.5, "1.50", "-3"], [None, [], True]),
    "bounded decimal": (
        Annotated[Decimal, Field(max_digits=5, decimal_places=2, ge=0)],
        ["1.50", "123.45", 7],
        [-1, None],
    ),
    "generic": (Box[Box[int]], [{"content": {"content": 1}}], [{"content": {"content": "x"}}]),
    "dataclass": (Line, [{"start": {"x": 1}, "end": {"x": 1, "y": 2}}], [{"start": {"x": 1}}]),
    "text enum": (list[Literal["red", "blue"]], [["red"]], [["green"]]),
    "integer enum": (Level, [1, 2], [3, "low"]),
    "constrained integer": (conint(gt=0, multiple_of=5), [5], [0, 7]),
    "constrained text": (constr(min_length=1, pattern="^[a-z]+$"), ["a"], ["", "A"]),
    "tuple": (tuple[int, str], [[1, "a"]], [[1], [1, "a", 2], ["a", 1]]),
    "mapping": (dict[str, list[int | None]], [{"a": [1, None]}], [{"a": ["x"]}]),
    "mapping by pattern": (
        dict[Annotated[str, Field(pattern="^x")], int],
        [{"x1": 1}],
        [{"x1": "a"}],
    ),
    "times and identifiers": (
        tuple[date, datetime, timedelta, UUID],
        [["2024-01-01", "2024-01-01T00:00:00Z", "P1D", "0" * 32]],
        [[1, 2, 3, 4]],
    ),
}


@pytest.mark.parametrize(("type_", "valid", "invalid"), TYPES.values(), ids=TYPES)
def test_the_schema_of_each_type_is_accepted_and_checks_payloads(type_, valid, invalid):
    schema = TypeAdapter(type_).json_schema()
    assert errors(schema) == []
    checker = PayloadChecker(schema)
    assert [checker.errors(payload) for payload in valid] == [[] for _ in valid]
    assert [] not in [checker.errors(payload) for payload in invalid]
