"""Sums over each level of a payload, from which `bound` computes the work of a check.

Levels are read as whole lists by `map` and `sum`, because a loop over every value would take longer
than the check.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from itertools import chain
from typing import Any, NamedTuple

import orjson

#: Work of comparing a float of usual size with an integer, in units of 20 ns. A comparison with
#: another float is three times that, because the engine compares exact fractions.
FLOAT_WORK = 30
#: Most bytes of a payload for which `greatest_level` holds.
MAX_SHORT = 256
#: Most items that the engine compares pair by pair. Of longer lists it compares only items with
#: equal hashes.
_MAX_PAIRWISE = 15
#: Integers that may be equal as floats, and their digits that a float keeps.
_LARGE = re.compile(rb"(?<![.0-9])[0-9]{16}")
_DIGITS = re.compile(rb"([0-9]{15})[0-9]+")
#: An exponent of a number; also within texts, which does no harm.
_EXPONENT = re.compile(rb"[0-9][eE]")


class Level(NamedTuple):
    """Sums over the values at one distance from the root."""

    #: Number of values; an integer beyond 64 bits counts as several.
    values: int
    #: Digits of numbers, and characters of texts and of the keys of these values.
    scalars: int
    #: Number of texts and keys, and the work of matching them with a look-around.
    texts: tuple[int, int]
    #: Arrays and objects, and the values below them.
    containers: int
    #: Work of comparing items of one list whose hashes are equal though the items may differ.
    collisions: int
    #: Values of this level and below it, which an error copies.
    size: int


def number_weight(number: Any) -> int:
    """Work of a comparison with a number, in units of 20 ns."""
    if isinstance(number, float):
        exponent = abs(math.frexp(number)[1])
        return FLOAT_WORK if exponent < 30 else FLOAT_WORK + exponent * 7 // 5
    if isinstance(number, int) and not -(2**63) <= number < 2**63:
        return 35 + number.bit_length() ** 2 // 3600
    return 1


def read_levels(payload: Any, *, unique: bool) -> list[Level]:
    """Read a payload, root first. `unique` asks for the collisions too, which take longest."""
    rows: list[tuple[dict[type, list[Any]], list[str], int]] = []
    values: list[Any] = [payload]
    keys: list[str] = []
    while values:
        by_type = _by_type(values)
        rows.append((by_type, keys, len(values)))
        objects, arrays = by_type.get(dict, []), by_type.get(list, [])
        keys = [*chain.from_iterable(objects)]
        values = [*chain.from_iterable(map(dict.values, objects)), *chain.from_iterable(arrays)]
    levels: list[Level] = []
    below = size = 0
    for by_type, keys, number in reversed(rows):
        arrays, texts = by_type.get(list, []), by_type.get(str, [])
        containers = len(arrays) + len(by_type.get(dict, []))
        numbers, extra = _numbers(by_type.get(int, []), by_type.get(float, []))
        lengths = [*map(len, texts), *map(len, keys)]
        characters = sum(lengths)
        size += number + extra + characters // 50
        levels.append(
            Level(
                values=number + extra,
                scalars=numbers + characters + len(texts),
                texts=(len(lengths), sum(length * (35 + length // 14) for length in lengths)),
                containers=containers + below if containers else 0,
                collisions=_collisions(arrays) if unique else 0,
                size=size,
            )
        )
        below += levels[-1].values + levels[-1].scalars
    return levels[::-1]


def has_exponent(text: bytes) -> bool:
    """Whether JSON may have an exponent, because such a number takes more work than its length."""
    return _EXPONENT.search(text) is not None


def most_levels(text: bytes) -> int:
    """A power of 2 that is at least the number of levels of this JSON."""
    brackets = text.count(b"{") + text.count(b"[")
    return 1 << brackets.bit_length()


def greatest_level(size: int) -> Level:
    """A level that no level of any payload exceeds which has this many bytes of JSON.

    For payloads of about `MAX_SHORT` bytes without exponents. Collisions are left out.
    """
    # An integer beyond 64 bits has 19 digits or more, and counts as 2 or 3 values for each of them.
    values = 4 * size
    # The shortest float has three characters; each further digit adds less than 5 to its work.
    scalars = (2 + FLOAT_WORK // 3 + 5) * size
    return Level(
        values=values,
        scalars=scalars,
        texts=(size, size * (35 + size // 14)),
        containers=size + values + scalars,
        collisions=0,
        size=values + size,
    )


def _by_type(values: list[Any]) -> dict[type, list[Any]]:
    """The values by their types."""
    types = set(map(type, values))
    if len(types) == 1:
        return {types.pop(): values}
    return {kind: [value for value in values if type(value) is kind] for kind in types}


def _numbers(integers: list[int], floats: list[float]) -> tuple[int, int]:
    """Work of one comparison with each number, and the part of it for integers beyond 64 bits."""
    weight, extra = len(integers), 0
    if integers and (max(integers) >= 2**63 or min(integers) < -(2**63)):
        extra = sum(map(number_weight, integers)) - len(integers)
    if floats:
        sizes = [*filter(None, map(abs, floats))] or [1.0]
        usual = min(sizes) > 1e-8 and max(sizes) < 1e8
        weight += FLOAT_WORK * len(floats) if usual else sum(map(number_weight, floats))
    return weight, extra


def _collisions(arrays: list[Any]) -> int:
    """Work of comparing items whose hashes are equal, if the items of all these lists must differ.

    The engine hashes numbers as 64-bit floats, and arrays without their brackets.
    """
    work = 0
    for items in arrays:
        if len(items) <= _MAX_PAIRWISE:
            continue
        text = _json(items)
        if text.count(b"[") == 1 and not _LARGE.search(text):
            continue
        for key, times in Counter(map(_hash_text, items)).items():
            if times > 1:
                work += times * (times - 1) * (10 + len(key)) // 2
    return work


def _hash_text(item: Any) -> bytes:
    """A text that is equal for nearly all items with equal hashes."""
    return _DIGITS.sub(rb"\1", _json(item).translate(None, b"[]"))


def _json(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # An integer beyond 64 bits.
        return repr(value).encode()
