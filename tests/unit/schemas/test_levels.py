"""The sums over a payload's levels, and those that a short payload cannot exceed."""

from __future__ import annotations

import operator

from hypothesis import assume, example, given, strategies as st

from zndraw_joblib.schemas import PayloadChecker
from zndraw_joblib.schemas.levels import (
    MAX_SHORT,
    Level,
    greatest_level,
    has_exponent,
    most_levels,
    read_levels,
)
from zndraw_joblib.storage.fields import json_bytes

NUMBERS = (
    st.integers(-9, 9)
    | st.integers(-(10**240), 10**240)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.floats(-1e15, 1e15).map(lambda number: round(number, 3))
)
PAYLOADS = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=30,
)


@given(payload=PAYLOADS)
@example(payload=[0.5] * 60)
@example(payload=[2**64] * 11)
@example(payload=10**255)
@example(payload="\U0001f600" * 60)
@example(payload=[[[[[[]]]]], {"": {"": {"": {}}}}])
@example(payload=0.1234567890123456)
def test_no_level_of_a_short_payload_exceeds_the_greatest(payload):
    text = json_bytes(payload)
    assume(len(text) <= MAX_SHORT and not has_exponent(text))
    levels, greatest = read_levels(payload, unique=False), greatest_level(len(text))
    assert len(levels) <= most_levels(text)
    for level in levels:
        assert all(map(operator.le, sums(level), sums(greatest))), (level, greatest)


def sums(level: Level) -> list[int]:
    return [
        level.values,
        level.scalars,
        *level.texts,
        level.containers,
        level.collisions,
        level.size,
    ]


def test_a_number_with_an_exponent_is_recognised():
    assert [has_exponent(json_bytes(n)) for n in (1e300, 1e-300, -1.5e22, 12.5, 10**30)] == [
        *[True] * 3,
        *[False] * 2,
    ]


def test_a_short_payload_of_an_expensive_schema_is_not_taken_for_cheap():
    schema = {"items": {"enum": [[n] for n in range(9000)]}}
    checker = PayloadChecker(schema)
    text = json_bytes([[9]] * 40)
    assert not checker._is_cheap(text)
    assert PayloadChecker({"type": "array"})._is_cheap(text)
