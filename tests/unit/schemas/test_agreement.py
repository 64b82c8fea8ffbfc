"""Generated schemas and payloads: verdicts agree with `jsonschema`, and every payload has one."""

from __future__ import annotations

import json

import pytest
from django.db import connection
from hypothesis import given, settings, strategies as st
from jsonschema import Draft7Validator, Draft201909Validator, Draft202012Validator
from jsonschema.exceptions import SchemaError

from zndraw_joblib.schemas import PayloadChecker, schema_errors
from zndraw_joblib.storage.fields import json_bytes

pytestmark = pytest.mark.skipif(
    connection.vendor == "postgresql", reason="runs once, in the pass on SQLite"
)

DRAFTS = {
    "https://json-schema.org/draft/2020-12/schema": Draft202012Validator,
    "https://json-schema.org/draft/2019-09/schema": Draft201909Validator,
    "http://json-schema.org/draft-07/schema#": Draft7Validator,
}
LIMITS = {"max_bytes": 65_536, "max_depth": 32}
#: More cases than in other tests, because each is short and rarely meets a given pair of keywords.
drawn = settings(max_examples=5 * settings.default.max_examples)
SCALARS = st.one_of(
    *(st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([0.5, 1.0, -2.0, 1e300])),
    st.text("ab", max_size=3),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=6,
)
SMALL = st.integers(0, 3)
NAMES = st.lists(st.sampled_from("abc"), max_size=2, unique=True)
PATTERNS = st.sampled_from(["^a", "b$", "a|b", "^(ab)+$", "[ab]{2}", "."])
TYPES = st.sampled_from(["array", "boolean", "integer", "null", "number", "object", "string"])


def holders(inner):
    """Schemas of objects, arrays and combinations; keywords that depend on each other co-occur."""
    some = st.lists(inner, min_size=1, max_size=3)
    named = st.dictionaries(st.sampled_from("abc"), inner, min_size=1)
    return st.one_of(
        st.fixed_dictionaries(
            {"properties": named, "additionalProperties": inner},
            optional={
                "patternProperties": st.dictionaries(PATTERNS, inner, max_size=2),
                "propertyNames": inner,
                "dependentSchemas": named,
                "required": NAMES,
            },
        ),
        st.fixed_dictionaries(
            {"items": inner, "contains": inner},
            optional={"prefixItems": some, "minContains": SMALL, "maxContains": SMALL},
        ),
        st.fixed_dictionaries({"prefixItems": some}, optional={"items": inner}),
        st.fixed_dictionaries(
            {"unevaluatedProperties": inner},
            optional={"properties": named, "allOf": some, "anyOf": some, "if": inner},
        ),
        st.fixed_dictionaries(
            {"unevaluatedItems": inner}, optional={"prefixItems": some, "oneOf": some}
        ),
        st.fixed_dictionaries({"if": inner}, optional={"then": inner, "else": inner}),
        *(st.fixed_dictionaries({keyword: some}) for keyword in ("allOf", "anyOf", "oneOf")),
        st.fixed_dictionaries({"not": inner}, optional={"type": TYPES}),
    )


LEAVES = st.fixed_dictionaries(
    {},
    optional={
        "type": TYPES | st.lists(TYPES, min_size=1, max_size=2, unique=True),
        "enum": st.lists(VALUES, min_size=1, max_size=4),
        "const": VALUES,
        "multipleOf": st.sampled_from([1, 2, 0.5]),
        **dict.fromkeys(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"], SMALL),
        **dict.fromkeys(["minLength", "maxLength", "minItems", "maxItems"], SMALL),
        **dict.fromkeys(["minProperties", "maxProperties"], SMALL),
        "pattern": PATTERNS,
        "required": NAMES,
        "dependentRequired": st.dictionaries(st.sampled_from("abc"), NAMES),
        "uniqueItems": st.booleans(),
        "$ref": st.sampled_from(["#/$defs/number", "#/$defs/text", "#/$defs/tree"]),
        "title": st.just("A title"),
    },
)
SCHEMAS = st.recursive(st.booleans() | LEAVES, holders, max_leaves=6)
DEFS = {
    "number": {"type": "number"},
    "text": {"minLength": 2, "type": "string"},
    "tree": {"type": ["array", "null"], "items": {"$ref": "#/$defs/tree"}},
}


def mixes_booleans_with_numbers(value):
    """Whether `jsonschema` may miss equal items, because it sorts booleans among numbers."""
    return any(word in json.dumps(value) for word in ("true", "false"))


def older(schema):
    """Remove the keywords that older drafts lack, or that `jsonschema` interprets otherwise."""
    if isinstance(schema, list):
        return [older(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    removed = ("dependentSchemas", "dependentRequired", "minContains", "maxContains", "prefixItems")
    return {
        keyword: older(value)
        for keyword, value in schema.items()
        if keyword not in removed and not keyword.startswith("unevaluated")
    }


@drawn
@given(
    schema=SCHEMAS.flatmap(lambda schema: holders(st.just(schema) | LEAVES)),
    payloads=st.lists(VALUES, min_size=5, max_size=10),
    dialect=st.sampled_from([*DRAFTS]),
)
def test_verdicts_agree_with_jsonschema_in_three_drafts(schema, payloads, dialect):
    if DRAFTS[dialect] is not Draft202012Validator:
        schema = older(schema)
    whole = {"$schema": dialect, "$defs": DEFS, "allOf": [schema]}
    assert schema_errors(whole, **LIMITS) == []
    checker, reference = PayloadChecker(whole), DRAFTS[dialect](whole)
    unique = '"uniqueItems": true' in json.dumps(schema)
    for payload in payloads:
        if not (unique and mixes_booleans_with_numbers(payload)):
            valid = reference.is_valid(payload)
            assert (checker.errors(payload) == []) is valid, payload
            # A short one may take another way where its text is known.
            assert (checker.errors(payload, text=json_bytes(payload)) == []) is valid, payload


KEYWORDS = [*sorted(Draft202012Validator.VALIDATORS), "$anchor", "$defs", "$id", "$schema", "title"]
ANYTHING = st.recursive(
    SCALARS | st.sampled_from(["#/a", "#/$defs/a", "#", "(", "\\w{50}", "string", "number"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*KEYWORDS, "a", "b"]), inner, max_size=4)
    ),
    max_leaves=15,
)


@drawn
@given(
    schema=st.dictionaries(st.sampled_from(KEYWORDS), ANYTHING | SCHEMAS, max_size=4),
    payload=VALUES,
)
def test_every_payload_of_an_accepted_schema_can_be_checked(schema, payload):
    accepted = schema_errors(schema, **LIMITS) == []
    errors = PayloadChecker(schema).errors(payload)
    assert accepted is not any("cannot be checked" in error.detail for error in errors)


@drawn
@given(schema=st.dictionaries(st.sampled_from(KEYWORDS), ANYTHING | SCHEMAS, max_size=4))
def test_a_schema_that_jsonschema_refuses_is_refused(schema):
    try:
        Draft202012Validator.check_schema(schema, format_checker=None)
    except SchemaError:
        assert schema_errors(schema, **LIMITS) != []
