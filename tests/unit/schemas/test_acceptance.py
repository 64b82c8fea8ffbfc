from __future__ import annotations

import json
import socket
import time

import pytest

from zndraw_joblib.exceptions import FieldError
from zndraw_joblib.schemas import PayloadChecker, schema_errors
from zndraw_joblib.schemas.acceptance import DIALECTS
from zndraw_joblib.schemas.subschemas import MAX_SUBSCHEMAS


def errors(schema):
    return schema_errors(schema, max_bytes=65_536, max_depth=32)


def cpu_seconds(call):
    """CPU time, least of three runs, because other processes use the machine too."""

    def once():
        began = time.thread_time()
        call()
        return time.thread_time() - began

    return min(once() for _ in range(3))


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
    "unknown target": ({"$ref": "#/$defs/none"}, "/$ref"),
    "to itself": ({"$ref": "#"}, ""),
    "cycle": (
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        "/$defs/a",
    ),
    "doubled": (DOUBLED, ""),
    "dynamic": ({"$dynamicRef": "#x"}, "/$dynamicRef"),
    "inner id": ({"properties": {"a": {"$id": "http://x/"}}}, "/properties/a/$id"),
    "deep": (DEEP, ""),
    "dialect below the top": (
        {"properties": {"x": {"$schema": DIALECTS[0], "pattern": "^(a+)+$"}}},
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
    "unused cycle": ({"$defs": {"a": {"$ref": "#/$defs/a"}}}, "/$defs/a"),
    "cycle in `definitions`": (
        {"definitions": {"a": {"not": {"$ref": "#/definitions/a"}}}},
        "/definitions/a",
    ),
    "into a constant": ({"const": {"type": 12}, "$ref": "#/const"}, "/$ref"),
    "into an example": ({"examples": [{"properties": [1]}], "$ref": "#/examples/0"}, "/$ref"),
    "into an unknown keyword": ({"x": {"$ref": 5}, "$ref": "#/x"}, "/$ref"),
    "into a map of schemas": (
        {"properties": {"x": {"$ref": "#/properties"}}},
        "/properties/x/$ref",
    ),
    "index with a leading zero": ({"allOf": [{}, {"$ref": "#/allOf/00"}]}, "/allOf/1/$ref"),
    "reference that is no string": ({"$ref": 5}, "/$ref"),
    "long chain": (
        {"$defs": {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(600)} | {"d600": {}}}
        | {"$ref": "#/$defs/d0"},
        "",
    ),
    "many": ({"properties": {f"p{n}": {} for n in range(MAX_SUBSCHEMAS)}}, ""),
    "repeats of repeats": ({"pattern": "((a{100}){100}){100}"}, "/pattern"),
    "repeats in a row": ({"pattern": "a{100}{100}{100}"}, "/pattern"),
    "verbose pattern": ({"pattern": "(?x)\\w #(\n{400}"}, "/pattern"),
    "many patterns": (
        {"properties": {f"x{n}": {"pattern": rf"[ab]{{500}}{n}"} for n in range(300)}},
        "/properties/x299/pattern",
    ),
    "look-around within a look-around": (
        {"pattern": "(?:(?=(?:(?=a*)a)*)a)*b"},
        "/pattern",
    ),
    "possessive repeat": ({"pattern": "(?:(?=a*)a)*+b"}, "/pattern"),
    "remote in dependencies": (
        {"dependencies": {"x": {"$ref": "http://127.0.0.1:1/"}}},
        "/dependencies/x/$ref",
    ),
    "many anchors of one name": (
        {
            "$defs": {f"d{n}": {"$anchor": "a", "items": {"$ref": "#a"}} for n in range(900)},
            "$ref": "#a",
        },
        "/$defs/d7/items/$ref",
    ),
    "unevaluated, doubled": (
        {
            "$defs": {
                **{
                    f"d{n}": {
                        "allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2,
                        "unevaluatedProperties": False,
                    }
                    for n in range(8)
                },
                "d8": {},
            },
            "$ref": "#/$defs/d0",
        },
        "",
    ),
    "unevaluated over a long chain": (
        {
            "$defs": {
                **{f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}]} for n in range(60)},
                "d60": {},
            },
            "$ref": "#/$defs/d0",
            "unevaluatedProperties": False,
        },
        "",
    ),
    "long list of types": ({"type": ["x"] * 15_000}, "/type"),
    "many subschemas of another type": (
        {"properties": {f"a{n}": 5 for n in range(3000)}},
        "/properties/a2999",
    ),
    "repeat beyond 64 bits": ({"pattern": "a{99999999999999999999}"}, "/pattern"),
    "deep pattern": ({"pattern": "(" * 3000 + ")" * 3000}, "/pattern"),
    "open pattern": ({"pattern": "(" * 5000}, "/pattern"),
    "open class": ({"pattern": "[" * 500}, "/pattern"),
    "pattern of another type": ({"patternProperties": 5}, "/patternProperties"),
    "infinite number": ({"multipleOf": float("inf")}, ""),
    "lone surrogates": ({"title": "\ud800"}, ""),
    "integer of 5,000 digits": ({"minLength": 10**5000}, ""),
    "large": ({"description": "x" * 70_000}, ""),
    "back-reference": ({"pattern": r"(a)\1"}, "/pattern"),
    "pattern key": ({"patternProperties": {"(a)\\1": {}}}, "/patternProperties"),
    "not a schema": ({"type": "nonsense"}, "/type"),
    "wrong minimum": ({"minimum": "1"}, "/minimum"),
    "draft 4": ({"$schema": "http://json-schema.org/draft-04/schema#"}, "/$schema"),
    "unknown dialect": ({"$schema": "http://127.0.0.1:1/"}, "/$schema"),
    "dialect of another type": ({"$schema": 5}, "/$schema"),
}


@pytest.mark.parametrize(("schema", "pointer"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_schema_is_refused_with_a_pointer(schema, pointer):
    assert pointer in [error.pointer for error in errors(schema)]


@pytest.mark.parametrize("schema", [schema for schema, _ in HOSTILE.values()], ids=HOSTILE)
def test_a_hostile_schema_is_refused_within_300_ms(schema):
    assert cpu_seconds(lambda: errors(schema)) < 0.3


DRAFT_7, DRAFT_2019 = f"{DIALECTS[2]}#", DIALECTS[1]
TREE = {
    "$defs": {"n": {"properties": {"next": {"$ref": "#/$defs/n"}}, "type": "object"}},
    "$ref": "#/$defs/n",
}
EXTENSIBLE = {
    "$dynamicAnchor": "node",
    "type": "object",
    "properties": {"children": {"items": {"$dynamicRef": "#node"}}},
}

#: A schema, a valid payload and an invalid payload.
ACCEPTED = {
    "recursion by properties": (TREE, {"next": {"next": {}}}, {"next": {"next": 1}}),
    "recursion by the root": (
        {"type": "array", "items": {"$ref": "#"}},
        [[], [[]]],
        [[], [[1]]],
    ),
    "mutual recursion": (
        {
            "$defs": {
                "a": {"properties": {"b": {"$ref": "#/$defs/b"}}, "type": "object"},
                "b": {"items": {"$ref": "#/$defs/a"}, "type": "array"},
            },
            "$ref": "#/$defs/a",
        },
        {"b": [{"b": []}]},
        {"b": [{"b": {}}]},
    ),
    "anchor": ({"$defs": {"a": {"$anchor": "a", "type": "string"}}, "$ref": "#a"}, "x", 1),
    "dynamic reference": (EXTENSIBLE, {"children": [{}]}, {"children": [1]}),
    "draft 2019-09 recursion": (
        {
            "$schema": DRAFT_2019,
            "type": "object",
            "properties": {"a": {"$recursiveRef": "#"}},
        },
        {"a": {"a": {}}},
        {"a": {"a": 1}},
    ),
    "draft 2019-09 tuple": (
        {"$schema": DRAFT_2019, "items": [{"type": "integer"}], "additionalItems": False},
        [1],
        [1, 2],
    ),
    "draft 7 definitions": (
        {"$schema": DRAFT_7, "definitions": {"a": {"type": "string"}}, "$ref": "#/definitions/a"},
        "x",
        1,
    ),
    "draft 7 dependencies": (
        {"$schema": DRAFT_7, "dependencies": {"a": ["b"], "c": {"required": ["d"]}}},
        {"a": 1, "b": 1},
        {"c": 1},
    ),
    "draft 7 ignores the siblings of a reference": (
        {
            "$schema": DRAFT_7,
            "definitions": {"a": {"type": "string"}},
            "properties": {"x": {"$ref": "#/definitions/a", "maxLength": 1}},
        },
        {"x": "long"},
        {"x": 1},
    ),
    "unevaluated properties": (
        {
            "allOf": [{"properties": {"a": {"type": "integer"}}}],
            "properties": {"b": True},
            "unevaluatedProperties": False,
        },
        {"a": 1, "b": 2},
        {"a": 1, "c": 3},
    ),
    "unevaluated items": (
        {"allOf": [{"prefixItems": [{"type": "integer"}]}], "unevaluatedItems": False},
        [1],
        [1, 2],
    ),
    "look-ahead": ({"pattern": "^(?=x)[xy]+$"}, "xy", "yx"),
    "negative look-ahead": ({"pattern": "^((?!foo).)*$"}, "bar", "a foo"),
    "look-behind": ({"pattern": "(?<=a)b"}, "ab", "cb"),
    "repeated class": ({"pattern": r"^\w{200}$"}, "a" * 200, "a"),
    "bytes of a pattern": (
        {"pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}$"},
        "0" * 8 + "-0000" * 3,
        "",
    ),
    "percent-encoded reference": (
        {"$ref": "#/%24defs/a%25b", "$defs": {"a%b": {"type": "string"}}},
        "x",
        1,
    ),
    "identifier of the dialect": (
        {"$id": DIALECTS[0], "$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}},
        "x",
        1,
    ),
    "exact decimals": ({"multipleOf": 0.1}, 0.3, 0.35),
    "integer beyond 64 bits": ({"minimum": 2**70}, 2**70, 2**70 - 1),
    "large float": ({"maximum": 1e308}, 1e308, 1.1e308),
    "chain of 200 references": (
        {
            "$defs": {
                **{f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(200)},
                "d200": {"type": "string"},
            },
            "$ref": "#/$defs/d0",
        },
        "x",
        1,
    ),
}


@pytest.mark.parametrize(("schema", "valid", "invalid"), ACCEPTED.values(), ids=ACCEPTED)
def test_an_ordinary_schema_is_accepted_and_checks_payloads(schema, valid, invalid):
    assert errors(schema) == []
    checker = PayloadChecker(schema)
    assert checker.errors(valid) == []
    assert checker.errors(invalid) != []


@pytest.mark.parametrize("dialect", [*DIALECTS, *(f"{dialect}#" for dialect in DIALECTS)])
def test_a_supported_draft_is_accepted(dialect):
    assert errors({"$schema": dialect}) == []


def test_the_size_of_a_schema_is_that_of_compact_json():
    schema = {"enum": [1] * 100}
    size = len(json.dumps(schema, separators=(",", ":")))
    assert schema_errors(schema, max_bytes=size, max_depth=9) == []
    assert schema_errors(schema, max_bytes=size - 1, max_depth=9) != []


def test_unused_definitions_do_not_count_towards_the_bound():
    definitions = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(250)} | {"d250": {}}
    assert errors({"$defs": definitions}) == []


def test_a_property_may_have_the_name_of_a_keyword():
    schema = {"properties": {"$ref": {"type": "string"}, "pattern": {"type": "number"}}}
    assert errors(schema) == []
    assert PayloadChecker(schema).errors({"$ref": 1})[0].pointer == "/$ref"


def test_keywords_within_constants_are_ignored():
    schema = {"default": {"$id": "::", "$ref": 5}, "enum": [{"$schema": "x", "$ref": "y"}]}
    assert errors(schema) == []
    assert PayloadChecker(schema).errors({"$schema": "x", "$ref": "y"}) == []


def test_all_invalid_keywords_are_listed():
    schema = {"type": "x", "properties": {"a": {"minimum": "1", "maximum": 1}, "b": 5}}
    assert errors(schema) == [
        FieldError("A schema must be an object or a boolean.", "/properties/b"),
        FieldError("type does not take such a value.", "/type"),
        FieldError("minimum does not take such a value.", "/properties/a/minimum"),
    ]
