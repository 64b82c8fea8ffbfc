"""The JSON of a result: the value that the code of a task returned."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence, Set, ValuesView
from io import IOBase
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from zndraw_joblib.client.batches import encode
from zndraw_joblib.client.differences import describe, describe_place
from zndraw_joblib.client.payloads import with_validation_aliases

#: Most bytes of a result, by the server's default, for a server that does not tell its limit.
MAX_RESULT_BYTES = 262_144
#: Added to the error of a result that the server does not accept because of its size.
REMEDY = "Upload it as a file: task.upload(path_or_bytes, name)."
#: Levels down to which the place of an error is searched, because a value may contain itself.
_SEARCH_DEPTH = 20
#: U+0000 in JSON: an escape sequence whose backslash is not itself escaped.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


class ResultError(ValueError):
    """A result has no form in JSON, or more bytes than the server accepts."""


class _TooLarge(Exception):
    """An array has too many numbers for a result; it was not converted to a list."""


def result_json(result: Any, limit: int = MAX_RESULT_BYTES) -> bytes | None:
    """The JSON of a result; None for None, and for an open file, which is a handle and no value.

    Pydantic models, dataclasses, times, sets and the like are written as pydantic does, under the
    names that their validation accepts. Arrays and scalars of NumPy, and other values with a method
    `tolist`, become lists and numbers.

    Parameters
    ----------
    result
        The value.
    limit
        Most bytes.

    Raises
    ------
    ResultError
        The result has no form in JSON, such as NaN, or it has more than `limit` bytes.
    """
    if result is None or isinstance(result, IOBase):
        return None
    try:
        text = _plain_json(result)
        if text is None:
            text = _json(result, limit)
    except _TooLarge:
        raise ResultError(f"The result has more than {limit} bytes of JSON. {REMEDY}") from None
    except Exception as error:
        raise ResultError(_refusal(result, error, limit)) from error
    if len(text) > limit:
        size = len(text)
        raise ResultError(
            f"The result has {size} bytes of JSON, and the server accepts {limit}. {REMEDY}"
        )
    return text


def _plain_json(value: Any) -> bytes | None:
    """The JSON of plain dicts, lists and scalars; None for other values.

    It takes a tenth of the time of pydantic's way.
    """
    try:
        text = encode(value)
    except (TypeError, ValueError, RecursionError):
        return None
    return None if _has_nul(text) else text


def _json(value: Any, limit: int) -> bytes:
    if isinstance(value, IOBase):
        # Pydantic would read its lines.
        raise TypeError(f"a file has no form in JSON; {REMEDY[0].lower()}{REMEDY[1:]}")
    dumped = _dumped(value, limit)
    if isinstance(value, BaseModel):
        try:
            value.model_validate_json(encode(dumped))
        except ValidationError:
            # Without computed fields, and with fields of type `Json` as text, because the submitter
            # makes an instance of the result.
            dumped = _dumped(value, limit, round_trip=True)
    text = encode(dumped)
    if _has_nul(text):
        raise ValueError("it contains the character U+0000")
    return text


def _dumped(value: Any, limit: int, *, round_trip: bool = False) -> Any:
    def convert(other: Any) -> Any:
        return _converted(other, limit)

    dumped = to_jsonable_python(value, round_trip=round_trip, fallback=convert)
    return with_validation_aliases(value, dumped)


def _converted(value: Any, limit: int) -> Any:
    """A value that pydantic does not know, as one that it does.

    Raises
    ------
    TypeError
        There is no such value.
    _TooLarge
        It is an array whose list would have more than `limit` bytes.
    """
    # By its methods, because NumPy need not be installed, and other libraries have arrays too.
    if hasattr(value, "tolist"):
        size = getattr(value, "size", 0)
        # A number and its comma have two characters at least.
        if isinstance(size, int) and 2 * size > limit:
            raise _TooLarge
        if getattr(getattr(value, "dtype", None), "kind", "") in {"M", "m"}:
            # Of microseconds, because NumPy makes plain integers of nanoseconds.
            value = value.astype(f"{value.dtype.kind}8[us]")
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return dict(value)
    # Not every collection, because iterating over a table, for instance, gives its columns alone.
    if isinstance(value, Sequence | Set | ValuesView):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _has_nul(text: bytes) -> bool:
    """Whether a JSON text contains U+0000, which PostgreSQL does not store."""
    return b"\\u0000" in text and _NUL.search(text) is not None


def _refusal(result: Any, error: Exception, limit: int) -> str:
    place, value = _culprit(result, limit)
    where = f"result{describe_place(place)}" if place else "result"
    if place and isinstance(place[0], str):
        where = f"result.{describe_place(place)}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{where} is {value}, which JSON does not have. Return None or a text in its place."
    try:
        described = describe(value)
    except Exception:
        described = type(value).__name__
    return f"{where} has no form in JSON: {described}. {type(error).__name__}: {error}"


def _culprit(result: Any, limit: int) -> tuple[list[Any], Any]:
    """The place and the value of the innermost part of a result that has no form in JSON."""
    place: list[Any] = []
    value = result
    while (found := _first_bad_part(value, limit)) and len(place) < _SEARCH_DEPTH:
        key, value = found
        place.append(key)
        if value is result:
            break
    return place, value


def _first_bad_part(value: Any, limit: int) -> tuple[Any, Any] | None:
    for key, part in _parts(value):
        try:
            _json(part, limit)
        except Exception:
            return key, part
    return None


def _parts(value: Any) -> Iterator[tuple[Any, Any]]:
    """The parts of a value with their keys; a text and a number have none."""
    if isinstance(value, BaseModel):
        yield from value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield field.name, getattr(value, field.name, None)
    elif isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, str | bytes | bytearray | memoryview):
        return
    elif hasattr(value, "tolist"):
        listed = value.tolist()
        if isinstance(listed, list):
            yield from enumerate(listed)
    elif isinstance(value, Collection):
        yield from enumerate(value)
