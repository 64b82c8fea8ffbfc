from __future__ import annotations

import json
import re
import socket
import time
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, constr

from zndraw_joblib.exceptions import FieldError
from zndraw_joblib.schemas import validation
from zndraw_joblib.schemas.checker import MAX_WORK, Budget
from zndraw_joblib.schemas.validation import schema_faults


def payload_faults(schema, payload):
    return validation.payload_faults(validation.validator(schema), payload)


def faults(schema):
    return [
        (fault.pointer, fault.detail)
        for fault in schema_faults(schema, max_bytes=65_536, max_depth=32)
    ]


@pytest.fixture(autouse=True)
def no_sockets(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)


DOUBLED = {
    "$defs": {
        **{f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(30)},
        "d30": {"type": "object"},
    },
    "$ref": "#/$defs/d0",
}
DEEP: dict = {}
for _ in range(40):
    DEEP = {"items": DEEP}

HOSTILE = {
    "remote": ({"$ref": "http://127.0.0.1:1/x"}, "/$ref"),
    "file": ({"$ref": "file:///etc/passwd"}, "/$ref"),
    "relative": ({"$ref": "other.json"}, "/$ref"),
    "nowhere": ({"$ref": "#/$defs/none"}, "/$ref"),
    "itself": ({"$ref": "#"}, ""),
    "cycle": (
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        "/$defs/a",
    ),
    "cycle by properties": (
        {"$defs": {"n": {"properties": {"next": {"$ref": "#/$defs/n"}}}}, "$ref": "#/$defs/n"},
        "/$defs/n",
    ),
    "doubled": (DOUBLED, ""),
    "dynamic": ({"$dynamicRef": "#x"}, "/$dynamicRef"),
    "inner id": ({"properties": {"a": {"$id": "http://x/"}}}, "/properties/a/$id"),
    "deep": (DEEP, ""),
    "dialect below the top": (
        {"properties": {"x": {"$schema": validation.DIALECT, "pattern": "^(a+)+$"}}},
        "/properties/x/$schema",
    ),
    "older dialect below the top": (
        {
            "$defs": {
                "a": {
                    "$schema": "http://json-schema.org/draft-03/schema#",
                    "extends": [{"$ref": "#/$defs/b"}] * 2,
                },
                "b": {},
            },
            "$ref": "#/$defs/a",
        },
        "/$defs/a/$schema",
    ),
    "encoded cycle": (
        {"$defs": {"a": {"$ref": "#/$defs/%61"}, "%61": {}}, "$ref": "#/$defs/a"},
        "/$defs/a",
    ),
    "cycle nobody uses": ({"$defs": {"a": {"$ref": "#/$defs/a"}}}, "/$defs/a"),
    "cycle in a dialect of old": (
        {"definitions": {"a": {"not": {"$ref": "#/definitions/a"}}}},
        "/definitions/a",
    ),
    "into a constant": ({"const": {"type": 12}, "$ref": "#/const"}, "/$ref"),
    "into an example": ({"examples": [{"properties": [1]}], "$ref": "#/examples/0"}, "/$ref"),
    "into what is no keyword": ({"x": {"$ref": 5}, "$ref": "#/x"}, "/$ref"),
    "into a map of schemas": (
        {"properties": {"x": {"$ref": "#/properties"}}},
        "/properties/x/$ref",
    ),
    "by an index of another form": ({"allOf": [{}, {"$ref": "#/allOf/00"}]}, "/allOf/1/$ref"),
    "by an anchor": ({"$defs": {"a": {"$anchor": "a"}}, "$ref": "#a"}, "/$ref"),
    "no reference": ({"$ref": 5}, "/$ref"),
    "long chain": (
        {"$defs": {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(600)} | {"d600": {}}}
        | {"$ref": "#/$defs/d0"},
        "",
    ),
    "many": ({"properties": {f"p{n}": {} for n in range(validation.MAX_SUBSCHEMAS)}}, ""),
    "unevaluated properties": ({"unevaluatedProperties": False}, "/unevaluatedProperties"),
    "unevaluated items": ({"unevaluatedItems": {}}, "/unevaluatedItems"),
    "large class, repeated": ({"pattern": r"\w{200}"}, "/pattern"),
    "repeats of repeats": ({"pattern": "((a{100}){100}){100}"}, "/pattern"),
    "repeats in a row": ({"pattern": "a{100}{100}{100}"}, "/pattern"),
    "verbose pattern": ({"pattern": "(?x)\\w #(\n{400}"}, "/pattern"),
    "many patterns": (
        {"properties": {f"x{n}": {"pattern": rf"\w{{20}}{n}"} for n in range(300)}},
        "/properties/x299/pattern",
    ),
    "repeat beyond all numbers": ({"pattern": "a{99999999999999999999}"}, "/pattern"),
    "deep pattern": ({"pattern": "(" * 3000 + ")" * 3000}, "/pattern"),
    "open pattern": ({"pattern": "(" * 5000}, "/pattern"),
    "open class": ({"pattern": "[" * 500}, "/pattern"),
    "not quite a Decimal": ({"pattern": "^(?!^[-+.]*$)(?!a)b"}, "/pattern"),
    "pattern of another type": ({"patternProperties": 5}, "/patternProperties"),
    "endless numbers": ({"multipleOf": float("inf")}, ""),
    "lone surrogates": ({"title": "\ud800"}, ""),
    "more digits than Python writes": ({"minLength": 10**5000}, ""),
    "large": ({"description": "x" * 70_000}, ""),
    "look-ahead": ({"pattern": "^(?=a)b"}, "/pattern"),
    "back-reference": ({"pattern": r"(a)\1"}, "/pattern"),
    "pattern key": ({"patternProperties": {"(a)\\1": {}}}, "/patternProperties"),
    "not a schema": ({"type": "nonsense"}, "/type"),
    "wrong minimum": ({"minimum": "1"}, "/minimum"),
    "other dialect": ({"$schema": "http://json-schema.org/draft-07/schema#"}, "/$schema"),
    "dialect of another type": ({"$schema": 5}, "/$schema"),
}


@pytest.mark.parametrize(("schema", "pointer"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_schemas_are_refused_where_they_are_wrong(schema, pointer):
    assert pointer in [found for found, _ in faults(schema)]


LARGE = "a" * 250_000
ITEMS = [1] * 120_000
KEYS = {f"k{n}": 1 for n in range(20_000)}

#: Schema, payload, and whether the payload is valid; None where that takes too much work.
DECIDED = {
    "exponential pattern": ({"pattern": "^(a+)+$"}, LARGE + "!", False),
    "exponential alternatives": ({"pattern": "^(a|a)*$"}, LARGE + "!", False),
    "exponential pattern of keys": (
        {"patternProperties": {"^(a*)*$": False}},
        {LARGE + "!": 1},
        True,
    ),
    "counted repeats": ({"pattern": "^((a{1,20}){1,20})$"}, LARGE + "!", None),
    "states upon states": ({"pattern": "[ab]*a[ab]{3000}c"}, "ab" * 120_000, None),
    "wide characters": ({"pattern": r"\w{60}$"}, "\u4e00" * 80_000 + "!", None),
    "numbers": ({"items": {"type": "number"}}, ITEMS, True),
    "numbers, again and again": ({"items": {"allOf": [{"type": "integer"}] * 50}}, ITEMS, None),
    "enum": ({"items": {"enum": [*range(10_000)]}}, [9999] * 40_000, True),
    "constant": ({"items": {"const": [1] * 20_000}}, [[1] * 20_000] * 3, True),
    "branches that say what they saw": (
        {"anyOf": [{"type": "string"}] * 2500},
        {"x": LARGE},
        False,
    ),
    "constants against a list": ({"anyOf": [{"const": n} for n in range(2500)]}, ITEMS, None),
    "patterns against keys": (
        {"patternProperties": {f"^k{n}$": {} for n in range(500)}},
        KEYS,
        None,
    ),
    "other keys": (
        {"patternProperties": {f"^z{n}$": {} for n in range(500)}, "additionalProperties": {}},
        KEYS,
        None,
    ),
    "names of keys": ({"propertyNames": {"allOf": [{"pattern": "^k"}] * 500}}, KEYS, None),
    "fan-out": ({"additionalProperties": {"allOf": [{"type": "integer"}] * 3000}}, KEYS, None),
    "contained": (
        {"contains": {"enum": [*range(5000)]}, "minContains": 1000, "maxContains": 1e9},
        [-1] * 120_000,
        None,
    ),
    "one of many": (
        {"items": {"oneOf": [{"const": n} for n in range(1000)]}},
        [999] * 40_000,
        None,
    ),
    "unique numbers": ({"uniqueItems": True}, [*range(40_000)], True),
    "unique numbers that collide": (
        {"uniqueItems": True},
        [n * (2**61 - 1) for n in range(12_000)],
        True,
    ),
    "unique, again and again": ({"allOf": [{"uniqueItems": True}] * 2000}, [*range(40_000)], None),
    "required": ({"required": [f"k{n}" for n in range(6000)]}, {}, False),
    "dependencies": (
        {"dependentRequired": {f"k{n}": [f"k{m}" for m in range(50)] for n in range(100)}},
        KEYS,
        True,
    ),
    "chain of references": (
        {"$defs": {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(250)}}
        | {"$ref": "#/$defs/d0"},
        {},
        True,
    ),
    "multiples": ({"items": {"multipleOf": 1e-300}}, [int("9" * 300)] * 800, False),
    "multiples of next to nothing": ({"multipleOf": 5e-324}, 1e308, True),
    "multiples of a large number": ({"multipleOf": 10**400}, 1.5, False),
    "length beyond all numbers": ({"minLength": 10**400}, "a", False),
    "length of another kind": ({"minItems": 1e300}, [], False),
    "encoded reference": ({"$defs": {"a": {"type": "string"}}, "$ref": "#/%24defs/a"}, 1, False),
    "anchors": (
        {"$anchor": "x", "$dynamicAnchor": "meta", "$vocabulary": {"http://x": True}},
        1,
        True,
    ),
    "identifier that is no address": (
        {"$id": "http://[::1", "allOf": [{"$ref": "#/$defs/a"}]} | {"$defs": {"a": {}}},
        1,
        True,
    ),
    "identifier of the dialect": (
        {"$id": validation.DIALECT, "$ref": "#/$defs/a"} | {"$defs": {"a": {"type": "string"}}},
        1,
        False,
    ),
    "dependencies of old": (
        {"dependencies": {"x": {"$ref": "http://127.0.0.1:1/"}}},
        {"x": 1},
        True,
    ),
    "schema of a content": ({"contentSchema": {"type": "string"}}, 1, True),
    "booleans": ({"properties": {"a": True, "b": False}}, {"a": 1, "b": 1}, False),
    "depth": (
        {
            "$defs": {"d0": {}}
            | {
                f"d{n}": {"anyOf": [{"properties": {"x": {"$ref": f"#/$defs/d{n - 1}"}}}]}
                for n in range(1, 80)
            },
            "$ref": "#/$defs/d79",
        },
        {"x": {"x": 1}},
        True,
    ),
}
DECIDED["chain of references"][0]["$defs"]["d250"] = {}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("schema", [schema for schema, _ in HOSTILE.values()], ids=HOSTILE)
def test_looking_at_a_hostile_schema_is_bounded_work(schema):
    assert faults(schema) == faults(schema) != []


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("schema", "payload", "valid"), DECIDED.values(), ids=DECIDED)
def test_hostile_payloads_are_decided_or_refused_before_they_take_too_much_work(
    schema, payload, valid
):
    """The budget is what bounds the time; `test_the_budget_is_in_proportion_to_the_time` why."""
    assert faults(schema) == []
    found = payload_faults(schema, payload)
    assert (found == [TOO_MUCH]) is (valid is None)
    assert (found == []) is (valid is True)
    assert all(len(fault.detail) < 400 for fault in found)


TOO_MUCH = FieldError("The payload takes too much work to check against this schema.")


def test_a_budget_can_be_shared():
    check, budget = validation.validator({"items": {"minimum": 0}}), Budget(5_000)
    answers = [validation.payload_faults(check, [1] * 100, budget) for _ in range(20)]
    assert answers[0] == []
    assert answers[-1] == [TOO_MUCH]


def test_a_verdict_does_not_depend_on_what_others_compiled():
    schema = {"allOf": [{"pattern": f"a{n}"} for n in range(400)]}

    def used():
        budget = Budget()
        validation.payload_faults(validation.validator(schema), "b", budget)
        return budget.left

    cold = used()
    assert faults(schema) == []
    assert used() == cold


def cpu_seconds(call):
    """The least of three, in CPU time: what else the machine does is not counted."""

    def once():
        began = time.process_time()
        call()
        return time.process_time() - began

    return min(once() for _ in range(3))


COSTLY = {
    "bounds": {"items": {"minimum": 0, "maximum": 2, "type": "integer"}},
    "branches": {"items": {"anyOf": [{"const": 2}, {"minimum": 3}, {"maximum": 3}]}},
    "negations": {"items": {"not": {"not": {"not": {"not": {}}}}}},
    "conditions": {"items": {"if": {"minimum": 0}, "then": {"maximum": 3}, "else": {}}},
    "containment": {"items": True, "contains": {"type": "string"}, "minContains": 0},
    "faults": {"anyOf": [{"items": {"minimum": 3, "multipleOf": 0.3}}, {}]},
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("schema", COSTLY.values(), ids=COSTLY)
def test_the_budget_is_in_proportion_to_the_time(schema):
    """Work of a unit takes about as long as a few dictionary look-ups, whatever the keyword."""
    check, budget, payload = validation.validator(schema), Budget(), [1] * 4_000
    assert validation.payload_faults(check, payload, budget) == []
    used = MAX_WORK - budget.left
    table = {n: n for n in range(100)}
    look_ups = cpu_seconds(lambda: [table[n % 100] for n in range(used)])
    assert cpu_seconds(lambda: validation.payload_faults(check, payload)) < 10 * look_ups + 0.001


def test_an_exponential_pattern_runs_in_linear_time():
    schema = {"pattern": "^(a+)+$", "type": "string"}
    assert faults(schema) == []
    assert payload_faults(schema, "a" * 50_000 + "!")
    assert not payload_faults(schema, "a" * 50_000)


def test_exponential_pattern_keys_too():
    schema = {"patternProperties": {"^(a+)+$": {"type": "number"}}, "additionalProperties": False}
    long = "a" * 5_000
    assert not payload_faults(schema, {long: 1})
    assert [fault.pointer for fault in payload_faults(schema, {long: "x", "b!": 1})] == [
        f"/{long}",
        "/b!",
    ]


def test_what_pydantic_writes_is_accepted():
    class Inner(BaseModel):
        price: Decimal

    class Outer(BaseModel):
        inner: Inner
        others: list[Inner]
        names: dict[str, Inner | None]

    schema = Outer.model_json_schema()
    assert faults(schema) == []
    good = {"inner": {"price": "1.50"}, "others": [{"price": 2}], "names": {"x": None}}
    assert payload_faults(schema, good) == []
    assert payload_faults(schema, {**good, "others": [{}]})[0].pointer == "/others/0"


class Colour(Enum):
    red = "red"
    blue = "blue"


class Atom(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Literal["atom"]
    symbol: constr(pattern=r"^[A-Z][a-z]?$", max_length=2)
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
WRONG = {
    "/parts": {"parts": []},
    "/parts/0": {"parts": [{"kind": "atom", "symbol": "he"}]},
    "": {"made": ...},
    "/colour": {"colour": "green"},
    "/tags": {"tags": ["a", "a"]},
    "/scores/a": {"scores": {"a": "x"}},
    "/note": {"note": 5},
}


@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_what_pydantic_writes_of_a_model_is_accepted(mode):
    schema = Molecule.model_json_schema(mode=mode)
    assert faults(schema) == []
    assert payload_faults(Molecule.model_json_schema(), MOLECULE) == []


@pytest.mark.parametrize("pointer", WRONG)
def test_and_what_breaks_it_is_told(pointer):
    wrong = {key: v for key, v in {**MOLECULE, **WRONG[pointer]}.items() if v is not ...}
    found = payload_faults(Molecule.model_json_schema(), wrong)
    assert [fault.pointer for fault in found] == [pointer]


def test_a_form_of_many_fields_is_accepted():
    field = {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    schema = {"properties": {f"f{n}": field | {"title": f"F{n}"} for n in range(700)}}
    assert faults(schema) == []
    assert payload_faults(schema, {f"f{n}": "x" for n in range(700)}) == []


POSITIONS = {
    "properties": {
        "positions": {
            "items": {"items": {"type": "number"}, "minItems": 3, "maxItems": 3, "type": "array"}
        }
    }
}


@pytest.mark.parametrize(
    ("schema", "payload"),
    [
        (POSITIONS, {"positions": [[1.5, 2.5, 3.5]] * 12_000}),
        ({"items": {"anyOf": [{"type": "number"}, {"type": "null"}]}}, [1.5, None] * 25_000),
        ({"items": {"enum": ["a", "b"], "type": "string"}}, ["a"] * 60_000),
        ({"items": {"minimum": 0, "maximum": 9, "type": "integer"}}, [1] * 60_000),
        (
            {"items": {"properties": {"x": {"type": "number"}, "y": {"type": "number"}}}}
            | {"required": ["x"]},
            [{"x": 1, "y": 2}] * 15_000,
        ),
        ({"uniqueItems": True}, [{"n": n} for n in range(20_000)]),
    ],
    ids=["positions", "optional", "literals", "bounded", "objects", "unique"],
)
def test_a_large_honest_payload_is_accepted(schema, payload):
    assert faults(schema) == []
    assert payload_faults(schema, payload) == []


def test_spaces_that_nobody_sent_do_not_count():
    schema = {"enum": [1] * 100}
    size = len(json.dumps(schema, separators=(",", ":")))
    assert schema_faults(schema, max_bytes=size, max_depth=9) == []
    assert schema_faults(schema, max_bytes=size - 1, max_depth=9) != []


def test_definitions_that_are_not_used_do_not_count():
    defs = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(250)} | {"d250": {}}
    assert faults({"$defs": defs}) == []


def test_what_is_left_out_is_said():
    found = payload_faults({"items": {"type": "string"}}, [1] * 5_000)
    assert len(found) == validation.MAX_FAULTS + 1
    assert found[-1] == FieldError("There are more than these 1000 faults.")
    assert len(payload_faults({"items": {"type": "string"}}, [1] * 1_000)) == 1_000


def test_an_answer_has_a_bounded_size():
    payload = {"k" * 100_000: {f"{n}": 1 for n in range(1_000)}}
    schema = {"additionalProperties": {"additionalProperties": {"type": "string"}}}
    found = payload_faults(schema, payload)
    assert sum(len(fault.pointer) + len(fault.detail) for fault in found) < 400_000
    assert found[-1].detail.startswith("There are more")


def test_messages_do_not_repeat_the_payload():
    schema = {"properties": {"a": {"not": {}}, "b": {"const": LARGE}, "c": {"pattern": "^b"}}}
    found = payload_faults(schema, {"a": LARGE, "b": LARGE + "b", "c": LARGE})
    assert [fault.pointer for fault in found] == ["/a", "/b", "/c"]
    assert all(len(fault.detail) < 200 for fault in found)


def test_a_checker_stays_itself_below_a_dialect():
    """The walk refuses such a schema; checking must not fall back on another validator either."""
    schema = {"properties": {"x": {"$schema": validation.DIALECT, "pattern": "^(a+)+$"}}}
    assert payload_faults(schema, {"x": "a" * 5_000 + "!"})


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": "http://127.0.0.1:1/"},
        {"$ref": 5},
        {"type": "nonsense"},
        {"additionalProperties": {"minimum": "x"}},
        {"properties": {"a": 3}},
        {"patternProperties": {"(?=a)": {}}},
        {"allOf": 5},
    ],
)
def test_a_schema_that_was_never_looked_at_is_a_fault_not_a_crash(schema):
    assert payload_faults(schema, {"a": 1, "b": [2]})
    assert payload_faults(schema, 5) is not None


@pytest.mark.parametrize(
    ("text", "fits"), [("1.50", True), ("-3", True), ("-.", False), ("+", False), ("x", False)]
)
def test_the_pattern_that_pydantic_writes_for_decimals(text, fits):
    schema = {"pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"}
    assert faults(schema) == []
    assert (payload_faults(schema, text) == []) is fits


@pytest.mark.parametrize(
    "rest",
    [
        r"\d*\.?\d{0,2}0*$",
        r"(?:\d{0,8}|(?=[\d.]{1,11}0*$)\d{0,8}\.\d{0,2}0*$)",
        r"(?:\d{0,10}|(?=[\d.]{1,11}0*$)\d*\.\d*0*$)",
    ],
)
@pytest.mark.parametrize("text", ["1.50", "-3", "-.", "+", "x", "", "123456789012.123", "1.555"])
def test_and_with_bounds_it_agrees_with_the_pattern(rest, text):
    schema = {"pattern": r"^(?!^[-+.]*$)[+-]?0*" + rest}
    assert faults(schema) == []
    assert (payload_faults(schema, text) == []) is bool(re.search(schema["pattern"], text))


def test_every_fault_has_its_pointer():
    schema = {"properties": {"a/b": {"type": "integer"}, "c~d": {"items": {"minimum": 3}}}}
    payload = {"a/b": "x", "c~d": [1, 5, 2]}
    assert [fault.pointer for fault in payload_faults(schema, payload)] == [
        "/a~1b",
        "/c~0d/0",
        "/c~0d/2",
    ]


@pytest.mark.parametrize(
    ("items", "unique"),
    [([1, 2], True), ([1, 1.0], False), ([{"a": 1}, {"a": 1}], False), ([0, False], True)],
)
def test_unique_items(items, unique):
    assert bool(payload_faults({"uniqueItems": True}, items)) is not unique


def test_many_different_objects_are_compared_quickly():
    assert not payload_faults({"uniqueItems": True}, [{"n": n} for n in range(20_000)])


def test_numbers_that_overflow_are_a_fault_not_a_crash():
    assert payload_faults({"multipleOf": 0.1}, int("9" * 300)) is not None


def test_names_that_look_like_keywords_are_properties():
    schema = {"properties": {"$ref": {"type": "string"}, "pattern": {"type": "number"}}}
    assert faults(schema) == []
    assert payload_faults(schema, {"$ref": 1})[0].pointer == "/$ref"


def test_formats_are_not_asserted():
    assert payload_faults({"format": "date-time"}, "no date") == []
