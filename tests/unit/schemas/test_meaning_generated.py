"""`same_meaning` on drawn schemas, on schemas of pydantic, and on hostile ones."""

from __future__ import annotations

import json
import time
from copy import deepcopy
from enum import Enum
from itertools import combinations
from typing import Annotated, Any, Literal

import pytest
from django.db import connection
from hypothesis import given, strategies as st
from pydantic import BaseModel, Field, create_model

from tests.unit.schemas.test_agreement import DRAFTS, SCHEMAS, VALUES
from zndraw_joblib.schemas import PayloadChecker, same_meaning, schema_errors

LIMITS = {"max_bytes": 65_536, "max_depth": 32}


UNORDERED = {"required", "enum", "type", "anyOf", "allOf", "oneOf"}


def rewritten(draw, schema: Any) -> Any:
    """The schema with its keys and unordered arrays shuffled, and with annotations added."""
    if not isinstance(schema, dict):
        return {} if schema is True and draw(st.booleans()) else schema
    written: dict[str, Any] = {}
    for keyword in draw(st.permutations(list(schema))):
        value = schema[keyword]
        if keyword in ("properties", "patternProperties", "dependentSchemas", "dependencies"):
            value = {
                name: rewritten(draw, value[name]) for name in draw(st.permutations(list(value)))
            }
        elif keyword == "dependentRequired":
            value = {name: draw(st.permutations(names)) for name, names in value.items()}
        elif keyword in ("const", "enum", "default"):
            value = deepcopy(value)
        elif isinstance(value, list):
            value = [rewritten(draw, item) for item in value]
        elif isinstance(value, dict):
            value = rewritten(draw, value)
        elif type(value) is int and draw(st.booleans()):
            value = float(value)
        if keyword in UNORDERED and isinstance(value, list):
            value = draw(st.permutations(value))
        written[keyword] = value
    if draw(st.booleans()):
        written |= {"title": draw(st.text("ab")), "description": "d", "examples": [draw(VALUES)]}
    return written


once = pytest.mark.skipif(
    connection.vendor == "postgresql", reason="runs once, in the pass on SQLite"
)


@once
@given(
    SCHEMAS.filter(lambda schema: isinstance(schema, dict)), st.data(), st.sampled_from([*DRAFTS])
)
def test_a_rewritten_schema_is_the_same(schema, data, dialect):
    schema = {"$schema": dialect, **schema}
    if schema_errors(schema, **LIMITS):
        return
    assert same_meaning(schema, rewritten(data.draw, schema))


def small_schemas():
    """All schemas of one keyword that applies one or two of these parts."""
    parts = [{"const": 0}, {"enum": [0, 1]}, {"enum": [1, 0]}, {"enum": [0, 2]}, {"type": "array"}]
    yield from parts
    for part in parts:
        yield from ({"items": part}, {"not": part}, {"if": part, "then": False})
        for other in parts:
            for keyword in ("prefixItems", "anyOf", "oneOf", "allOf"):
                yield {keyword: [part, other]}
            yield {"properties": {"a": part, "b": other}}
            yield {"if": part, "else": other}


PAYLOADS = [
    *(0, 1, 2, "x", [], [0], [1], [0, 1], [1, 0], [0, 0], [2, 0], [[0], [1]], [[0], 0], [0, []]),
    *({"a": a, "b": b} for a in (0, 1, 2, []) for b in (0, 1, [])),
]


@once
def test_schemas_that_are_the_same_accept_the_same_payloads():
    """Control: failed where the order of `prefixItems`, or the values of `enum`, did not count."""
    accepted = []
    for schema in small_schemas():
        checker = PayloadChecker(schema)
        accepted.append((schema, [not checker.errors(payload) for payload in PAYLOADS]))
    for (one, verdicts), (other, other_verdicts) in combinations(accepted, 2):
        if same_meaning(one, other):
            assert verdicts == other_verdicts, (one, other)


class Renamed(BaseModel):
    """An edited docstring."""

    kind: Literal["part"]
    weight: float = 1


def test_a_nested_model_may_be_renamed():
    class Part(BaseModel):
        kind: Literal["part"]
        weight: float = 1

    def outer(part):
        return create_model("Outer", first=(part, ...), others=(list[part], [])).model_json_schema()  # type: ignore[valid-type]

    assert outer(Part) != outer(Renamed)
    assert same_meaning(outer(Part), outer(Renamed))


def test_members_of_a_discriminated_union_may_come_in_any_order():
    class Cat(BaseModel):
        kind: Literal["cat"]

    class Dog(BaseModel):
        kind: Literal["dog"]
        loud: bool = True

    def pets(union):
        field = Annotated[union, Field(discriminator="kind")]  # type: ignore[valid-type]
        return create_model("Pets", pet=(field, ...)).model_json_schema()

    assert pets(Cat | Dog) != pets(Dog | Cat)
    assert same_meaning(pets(Cat | Dog), pets(Dog | Cat))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": (int, 1)}, {"a": (int, 2)}),
        ({"a": (int, ...)}, {"a": (int, 1)}),
        ({"a": (list[int], [1, 2])}, {"a": (list[int], [2, 1])}),
        ({"a": (set[int], {1})}, {"a": (set[int], {2})}),
        ({"a": (Enum("E", {"A": "a"}), ...)}, {"a": (Enum("E", {"A": "b"}), ...)}),
        ({"a": (tuple[int, str], ...)}, {"a": (tuple[str, int], ...)}),
        ({"title": (int, ...)}, {"description": (int, ...)}),
    ],
)
def test_an_edited_model_is_another_schema(one, other):
    schemas = [create_model("Job", **fields).model_json_schema() for fields in (one, other)]
    assert not same_meaning(*schemas)


def chain(length, name, end):
    """A definition that leads to the next, and so on."""
    links = {f"{name}{i}": {"items": {"$ref": f"#/$defs/{name}{i + 1}"}} for i in range(length)}
    return {"$ref": f"#/$defs/{name}0", "$defs": {**links, f"{name}{length}": end}}


def test_long_chains_of_definitions_are_compared():
    assert same_meaning(chain(200, "a", {"minimum": 1}), chain(200, "b", {"minimum": 1}))
    assert not same_meaning(chain(200, "a", {"minimum": 1}), chain(200, "b", {"minimum": 2}))


def nested_sets(levels):
    schema: dict[str, Any] = {}
    value: Any = 1
    for _ in range(levels):
        schema, value = {"uniqueItems": True, "items": schema}, [value, value]
    return {**schema, "default": value}


HOSTILE = {
    "a long cycle": (
        chain(1100, "a", {"type": "array", "items": {"$ref": "#/$defs/a0"}}),
        chain(1100, "b", {"items": {"$ref": "#/$defs/b0"}, "type": "array"}),
    ),
    "a default below many subschemas": (
        {"allOf": [{"properties": {}}] * 1500, "default": {str(i): i for i in range(3000)}},
        {"default": {str(i): i for i in range(3000)}, "allOf": [{"properties": {}}] * 1500},
    ),
    "a default below many patterns": (
        {
            "patternProperties": {str(i): {} for i in range(800)},
            "default": {str(i): i for i in range(3000)},
        },
        {
            "default": {str(i): i for i in range(3000)},
            "patternProperties": {str(i): {} for i in range(800)},
        },
    ),
    "sets of sets": (nested_sets(12), {"title": "x", **nested_sets(12)}),
}


@pytest.mark.parametrize(("one", "other"), HOSTILE.values(), ids=HOSTILE)
def test_the_comparison_of_hostile_schemas_is_bounded(one, other):
    """Without the bounds each takes tens of seconds; the limit allows for a busy machine."""
    one, other = json.loads(json.dumps(one)), json.loads(json.dumps(other))
    started = time.process_time()
    same_meaning(one, other)
    assert time.process_time() - started < 3
