"""JSON values: which are equal in the sense of JSON Schema, and how a message shows them."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from zndraw_joblib.schemas.patterns import Charge

#: Characters of a value or a name in a message.
MAX_SHOWN = 60

_LONG = 10**MAX_SHOWN
#: Whether a text of JSON may hold a number that is no integer.
_FLOAT = re.compile(rb"\.|[0-9]e")
_encode = json.JSONEncoder(sort_keys=True).encode


def shown(value: Any) -> str:
    """The beginning of a value's JSON, for a message."""
    if isinstance(value, str) and len(value) > MAX_SHOWN:
        return json.dumps(value[:MAX_SHOWN], ensure_ascii=False) + "…"
    if isinstance(value, int) and abs(value) > _LONG:
        return "a very large number" if value > 0 else "a very small number"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


def key(value: Any, charge: Charge) -> Any:
    """What equal values have in common: 1 and 1.0 are equal, 1 and true are not.

    Numbers become bytes, which no payload can make collide in a set.
    """
    kind = type(value)
    if kind is int:
        return str(value).encode()
    if kind is float:
        return str(int(value)).encode() if value.is_integer() else repr(value).encode()
    if kind not in (list, dict):
        return value
    try:
        text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        if _FLOAT.search(text):
            charge(2 * len(text))
            text = orjson.dumps(_plain(value), option=orjson.OPT_SORT_KEYS)
    except TypeError:  # An integer beyond 64 bits.
        text = _encode(_plain(value)).encode()
        charge(2 * len(text))
    charge(12 + len(text) // 2)
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
