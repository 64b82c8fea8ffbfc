"""`same_meaning`: equal ways of writing a schema, and changes that count."""

from __future__ import annotations

from copy import deepcopy

import pytest

from zndraw_joblib.schemas import same_meaning, schema_errors

DRAFT_7 = "http://json-schema.org/draft-07/schema#"
DRAFT_2020 = "https://json-schema.org/draft/2020-12/schema"
LIMITS = {"max_bytes": 65_536, "max_depth": 32}


def of(name, schema):
    return {"properties": {name: schema}}


def tree(name, leaf):
    """A recursive schema, whose definition has this name."""
    node = {"properties": {"children": {"items": {"$ref": f"#/$defs/{name}"}}, "leaf": leaf}}
    return {"$ref": f"#/$defs/{name}", "$defs": {name: node}}


SAME = {
    "keys": ({"type": "object", "minProperties": 1}, {"minProperties": 1, "type": "object"}),
    "required": ({"required": ["a", "b"]}, {"required": ["b", "a"]}),
    "type": ({"type": ["string", "null"]}, {"type": ["null", "string"]}),
    "one type": ({"type": ["string"]}, {"type": "string"}),
    "enum": ({"enum": ["a", 1, {"x": 1}]}, {"enum": [{"x": 1.0}, "a", 1]}),
    "const": ({"const": "a"}, {"enum": ["a"]}),
    "const and enum": ({"const": "a", "enum": ["a"]}, {"const": "a"}),
    "numbers": ({"minimum": 1, "default": 2.0}, {"minimum": 1.0, "default": 2}),
    "anyOf": (
        {"anyOf": [{"minimum": 1}, {"type": "null"}]},
        {"anyOf": [{"type": "null"}, {"minimum": 1}]},
    ),
    "oneOf": ({"oneOf": [{"const": 1}, {"const": 2}]}, {"oneOf": [{"const": 2}, {"const": 1}]}),
    "allOf": (
        {"allOf": [{"minimum": 1}, {"maximum": 3}]},
        {"allOf": [{"maximum": 3}, {"minimum": 1}]},
    ),
    "dependentRequired": (
        {"dependentRequired": {"a": ["b", "c"], "d": ["e"]}},
        {"dependentRequired": {"d": ["e"], "a": ["c", "b"]}},
    ),
    "dependencies": (
        {"$schema": DRAFT_7, "dependencies": {"a": ["b", "c"], "d": {"title": "x"}}},
        {"$schema": DRAFT_7, "dependencies": {"d": {}, "a": ["c", "b"]}},
    ),
    "annotations": (
        of("a", {"title": "A", "description": "d", "examples": [1, 2], "$comment": "c"}),
        of("a", {}),
    ),
    "annotations within": (
        {"items": {"anyOf": [{"title": "x", "type": "null"}]}},
        {"items": {"anyOf": [{"type": "null"}], "description": "y"}, "title": "z"},
    ),
    "true": (of("a", True), of("a", {})),
    "keywords that accept everything": (
        {
            "type": "object",
            "required": [],
            "properties": {},
            "patternProperties": {},
            "dependentRequired": {},
            "minProperties": 0,
            "additionalProperties": True,
        },
        {"type": "object"},
    ),
    "any keys": (
        of("a", {"type": "object", "additionalProperties": {"title": "x"}}),
        of("a", {"type": "object"}),
    ),
    "any items": (
        of("a", {"items": {}, "uniqueItems": False, "minItems": 0, "minLength": 0.0}),
        of("a", {}),
    ),
    "dialect": ({"$schema": DRAFT_2020 + "#", "type": "object"}, {"type": "object"}),
    "id": ({"$id": "https://example.org/a", "type": "object"}, {"type": "object"}),
    "anchor": (
        {"$ref": "#a", "$defs": {"A": {"$anchor": "a", "type": "object"}}},
        {"$ref": "#b", "$defs": {"A": {"$anchor": "b", "type": "object"}}},
    ),
    "names of definitions": (tree("Node", {"minimum": 1}), tree("Tree", {"minimum": 1})),
    "order of definitions": (
        {
            "properties": {"a": {"$ref": "#/$defs/A"}, "b": {"$ref": "#/$defs/B"}},
            "$defs": {"A": {"minimum": 1}, "B": {}},
        },
        {
            "$defs": {"B": {}, "A": {"minimum": 1}},
            "properties": {"b": {"$ref": "#/$defs/B"}, "a": {"$ref": "#/$defs/A"}},
        },
    ),
    "an unused definition": ({"$defs": {"A": {"minimum": 1}}}, {}),
    "a reference": (
        {**of("a", {"$ref": "#/$defs/A"}), "$defs": {"A": {"minimum": 1}}},
        of("a", {"minimum": 1}),
    ),
    "a reference in allOf": (
        {
            **of("a", {"allOf": [{"$ref": "#/$defs/A"}], "default": 3}),
            "$defs": {"A": {"minimum": 1}},
        },
        {**of("a", {"$ref": "#/$defs/A", "default": 3}), "$defs": {"A": {"minimum": 1}}},
    ),
    "an unrolled recursion": (
        {"$ref": "#/$defs/A", "$defs": {"A": {"items": {"$ref": "#/$defs/A"}}}},
        {
            "items": {"items": {"$ref": "#/$defs/A"}},
            "$defs": {"A": {"items": {"$ref": "#/$defs/A"}}},
        },
    ),
    "a default set": (
        {"uniqueItems": True, "default": [3, "a", {"x": 1}]},
        {"uniqueItems": True, "default": [{"x": 1}, 3, "a"]},
    ),
    "an optional default set": (
        {"anyOf": [{"type": "array", "uniqueItems": True}, {"type": "null"}], "default": [1, 2]},
        {"anyOf": [{"type": "array", "uniqueItems": True}, {"type": "null"}], "default": [2, 1]},
    ),
    "default sets in a default": (
        {
            "default": {"named": [1, 2], "other": [[1, 2]], "fixed": [0, [3, 1]]},
            "properties": {
                "named": {"$ref": "#/$defs/Set"},
                "fixed": {"prefixItems": [{}, {"uniqueItems": True}]},
            },
            "additionalProperties": {"items": {"uniqueItems": True}},
            "$defs": {"Set": {"uniqueItems": True}},
        },
        {
            "default": {"other": [[2, 1]], "named": [2, 1], "fixed": [0, [1, 3]]},
            "properties": {
                "named": {"$ref": "#/$defs/Set"},
                "fixed": {"prefixItems": [{}, {"uniqueItems": True}]},
            },
            "additionalProperties": {"items": {"uniqueItems": True}},
            "$defs": {"Set": {"uniqueItems": True}},
        },
    ),
    "discriminator": (
        {"oneOf": [{"const": 1}], "discriminator": {"propertyName": "a"}},
        {"oneOf": [{"const": 1}]},
    ),
}

DIFFERENT = {
    "values for unevaluatedProperties": (
        {"unevaluatedProperties": False, "additionalProperties": True},
        {"unevaluatedProperties": False},
    ),
    "values for unevaluatedItems in allOf": (
        {"unevaluatedItems": False, "allOf": [{"items": True}]},
        {"unevaluatedItems": False},
    ),
    "no further keys": ({"additionalProperties": False}, {}),
    "a least length": ({"minLength": 1}, {"minLength": 0}),
    "a property without keywords": ({"required": ["properties"]}, {"required": []}),
    "a property": (of("a", {}), of("b", {})),
    "a property named title": (of("title", {"minimum": 1}), {"properties": {}}),
    "a property named description": (
        of("description", {"minimum": 1}),
        of("description", {"minimum": 2}),
    ),
    "a property named $defs": (of("$defs", {"minimum": 1}), of("$defs", {"minimum": 2})),
    "a name in required": ({"required": ["title"]}, {"required": ["examples"]}),
    "a title in const": ({"const": {"title": 1}}, {"const": {"title": 2}}),
    "a title in enum": ({"enum": [{"title": 1}, 2]}, {"enum": [{}, 2]}),
    "a title in a default": ({"default": {"title": 1}}, {"default": {}}),
    "an extra value": ({"enum": [1, 2]}, {"enum": [1, 2, 3]}),
    "const within enum": ({"const": "a", "enum": ["a", "b"]}, {"enum": ["a", "b"]}),
    "an array in enum": ({"enum": [[1, 2]]}, {"enum": [[2, 1]]}),
    "true and one": ({"const": True}, {"const": 1}),
    "text and number": ({"const": "1"}, {"const": 1}),
    "prefixItems": ({"prefixItems": [{"const": 1}, {}]}, {"prefixItems": [{}, {"const": 1}]}),
    "items of draft 7": (
        {"$schema": DRAFT_7, "items": [{"const": 1}, {}]},
        {"$schema": DRAFT_7, "items": [{}, {"const": 1}]},
    ),
    "a repeated member of oneOf": (
        {"oneOf": [{"const": 1}]},
        {"oneOf": [{"const": 1}, {"const": 1}]},
    ),
    "anyOf and oneOf": ({"anyOf": [{}, {"const": 1}]}, {"oneOf": [{}, {"const": 1}]}),
    "if and then": (
        {"if": {"minimum": 1}, "then": {"maximum": 2}},
        {"if": {"maximum": 2}, "then": {"minimum": 1}},
    ),
    "false": (of("a", False), of("a", True)),
    "a bound": (of("a", {"minimum": 1}), of("a", {"minimum": 2})),
    "a default": ({"default": 1}, {"default": 2}),
    "no default": ({"default": None}, {}),
    "a default list": ({"items": {}, "default": [1, 2]}, {"items": {}, "default": [2, 1]}),
    "a default list beside a set": (
        {"default": {"a": [1, 2]}, "properties": {"b": {"uniqueItems": True}}},
        {"default": {"a": [2, 1]}, "properties": {"b": {"uniqueItems": True}}},
    ),
    "an unknown keyword": ({"x-unit": ["nm", "s"]}, {"x-unit": ["s", "nm"]}),
    "dialect": ({"$schema": DRAFT_7, "type": "object"}, {"type": "object"}),
    "beside a reference in draft 7": (
        {
            "$schema": DRAFT_7,
            **of("a", {"$ref": "#/definitions/A", "minimum": 3}),
            "definitions": {"A": {}},
        },
        {"$schema": DRAFT_7, **of("a", {"allOf": [{}], "minimum": 3})},
    ),
    "swapped definitions": (
        {**of("a", {"$ref": "#/$defs/A"}), "$defs": {"A": {"const": 1}, "B": {"const": 2}}},
        {**of("a", {"$ref": "#/$defs/B"}), "$defs": {"A": {"const": 1}, "B": {"const": 2}}},
    ),
    "deep in a recursion": (tree("Node", {"minimum": 1}), tree("Node", {"minimum": 2})),
    "a reference to another level": (
        {"properties": {"a": {"properties": {"b": {"$ref": "#"}}}}},
        {"properties": {"a": {"properties": {"b": {"$ref": "#/properties/a"}}}}},
    ),
    "dependentRequired": (
        {"dependentRequired": {"a": ["b"]}},
        {"dependentRequired": {"b": ["a"]}},
    ),
    "dependencies": (
        {"$schema": DRAFT_7, "dependencies": {"a": ["b"]}},
        {"$schema": DRAFT_7, "dependencies": {"a": ["c"]}},
    ),
    "patternProperties": ({"patternProperties": {"^a": {}}}, {"patternProperties": {"^b": {}}}),
}


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME)
def test_another_way_of_writing_is_the_same_schema(one, other):
    for schema in (one, other):
        assert schema_errors(schema, **LIMITS) == []
    assert same_meaning(one, other)
    assert same_meaning(other, one)
    # As parts of a larger schema, too.
    if not {"$schema", "$id", "$defs"} & (one.keys() | other.keys()):
        assert same_meaning(of("x", {"items": one}), of("x", {"items": other}))


@pytest.mark.parametrize(("one", "other"), DIFFERENT.values(), ids=DIFFERENT)
def test_another_meaning_is_another_schema(one, other):
    for schema in (one, other):
        assert schema_errors(schema, **LIMITS) == []
        assert same_meaning(schema, deepcopy(schema))
    assert not same_meaning(one, other)
    assert not same_meaning(other, one)
