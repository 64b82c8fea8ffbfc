from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from zndraw_joblib.exceptions import MAX_ERRORS, FieldError
from zndraw_joblib.schemas import PayloadChecker, acceptance, schema_errors

LARGE = "a" * 250_000


def errors(schema):
    return schema_errors(schema, max_bytes=65_536, max_depth=32)


def payload_errors(schema, payload):
    return PayloadChecker(schema).errors(payload)


def test_errors_of_properties_point_to_their_keys():
    schema = {"patternProperties": {"^(a+)+$": {"type": "number"}}, "additionalProperties": False}
    long = "a" * 5_000
    assert not payload_errors(schema, {long: 1})
    assert [error.pointer for error in payload_errors(schema, {long: "x", "b!": 1})] == [
        f"/{long}",
        "/b!",
    ]


def test_a_form_of_many_fields_is_accepted():
    field = {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    schema = {"properties": {f"f{n}": field | {"title": f"F{n}"} for n in range(700)}}
    assert errors(schema) == []
    assert payload_errors(schema, {f"f{n}": "x" for n in range(700)}) == []


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
def test_a_large_ordinary_payload_is_accepted(schema, payload):
    assert errors(schema) == []
    assert payload_errors(schema, payload) == []


def test_at_most_a_thousand_errors_are_listed():
    found = payload_errors({"items": {"type": "string"}}, [1] * 5_000)
    assert len(found) == (MAX_ERRORS - 1) + 1
    assert found[-1] == FieldError("There are more than these 1000 errors.")
    assert len(payload_errors({"items": {"type": "string"}}, [1] * 1_000)) == 1_000


def test_the_size_of_the_listed_errors_is_bounded():
    payload = {"k" * 100_000: {f"{n}": 1 for n in range(1_000)}}
    schema = {"additionalProperties": {"additionalProperties": {"type": "string"}}}
    found = payload_errors(schema, payload)
    assert sum(len(error.pointer) + len(error.detail) for error in found) < 400_000
    assert found[-1].detail.startswith("There are more")


def test_messages_do_not_repeat_the_payload():
    schema = {"properties": {"a": {"not": {}}, "b": {"const": LARGE}, "c": {"pattern": "^b"}}}
    found = payload_errors(schema, {"a": LARGE, "b": LARGE + "b", "c": LARGE})
    assert [error.pointer for error in found] == ["/a", "/b", "/c"]
    assert all(len(error.detail) < 200 for error in found)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": "http://127.0.0.1:1/"},
        {"$ref": 5},
        {"type": "nonsense"},
        {"additionalProperties": {"minimum": "x"}},
        {"properties": {"a": 3}},
        {"patternProperties": {"(a)\\1": {}}},
        {"allOf": 5},
    ],
)
def test_a_payload_of_an_invalid_schema_is_refused_without_a_crash(schema):
    assert payload_errors(schema, {"a": 1, "b": [2]})
    assert payload_errors(schema, 5) is not None


def test_every_error_has_its_pointer():
    schema = {"properties": {"a/b": {"type": "integer"}, "c~d": {"items": {"minimum": 3}}}}
    payload = {"a/b": "x", "c~d": [1, 5, 2]}
    assert [error.pointer for error in payload_errors(schema, payload)] == [
        "/a~1b",
        "/c~0d/0",
        "/c~0d/2",
    ]


@pytest.mark.parametrize(
    ("items", "unique"),
    [([1, 2], True), ([1, 1.0], False), ([{"a": 1}, {"a": 1}], False), ([0, False], True)],
)
def test_unique_items_compares_numbers_by_value_and_booleans_apart(items, unique):
    assert bool(payload_errors({"uniqueItems": True}, items)) is not unique


def test_many_unique_objects_are_accepted():
    assert not payload_errors({"uniqueItems": True}, [{"n": n} for n in range(20_000)])


def test_a_number_that_overflows_is_no_crash():
    assert payload_errors({"multipleOf": 0.1}, int("9" * 300)) is not None


def test_formats_are_not_asserted():
    assert payload_errors({"format": "date-time"}, "no date") == []


def test_a_panic_of_the_engine_refuses_the_payload_and_is_logged(monkeypatch, caplog):
    """Control: without the branch for panics the exception reaches the caller."""

    class PanicException(BaseException):
        pass

    class Panicking:
        def is_valid(self, payload):
            raise PanicException("index out of bounds")

    monkeypatch.setattr(acceptance, "_engine", lambda schema: Panicking())
    found = PayloadChecker({}).errors({}, job_id="the-job")
    assert found == [FieldError("The payload cannot be checked against this schema.")]
    assert "the-job" in caplog.text


def test_an_interrupt_is_not_treated_as_a_panic(monkeypatch):
    class Interrupted:
        def is_valid(self, payload):
            raise KeyboardInterrupt

    monkeypatch.setattr(acceptance, "_engine", lambda schema: Interrupted())
    with pytest.raises(KeyboardInterrupt):
        PayloadChecker({}).errors({})


def test_only_the_first_error_of_a_large_payload_is_listed():
    found = payload_errors({"items": {"type": "string"}}, ["x", *range(100_000)])
    assert [error.pointer for error in found] == ["/1", ""]
    assert found[1].detail == "Only the first error is listed, because the payload is large."


def test_a_checker_may_be_shared_by_threads():
    checker = PayloadChecker({"items": {"$ref": "#"}, "type": "array"})
    payloads = [[[]], [[1]], [], [[[[[]]]]]] * 50
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(checker.errors, payloads))
    assert [not errors for errors in found] == [True, False, True, True] * 50
