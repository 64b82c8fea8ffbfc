"""Compares an instance of a job's class with the instance that a worker would get."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, Secret, SecretBytes, SecretStr

#: Stands for a field that an instance lacks, as after `model_construct`.
_MISSING = object()


def difference(sent: Any, arrived: Any, *place: Any) -> str | None:
    """The first difference between two values, as a text that names its place; None if equal.

    An int may equal a float, and a text a member of an `Enum`. Private attributes of models are not
    compared, because they belong to the process.
    """
    if sent is arrived:
        return None
    alike = type(sent) is type(arrived)
    if alike and (fields := _fields(sent)) is not None:
        return _part_difference(fields, _fields(arrived) or {}, place)
    if _equal(sent, arrived):
        return None
    if alike and isinstance(sent, dict) and sent.keys() == arrived.keys():
        return _part_difference(sent, arrived, place)
    if alike and isinstance(sent, list | tuple) and len(sent) == len(arrived):
        return _part_difference(dict(enumerate(sent)), dict(enumerate(arrived)), place)
    where = describe_place(place)
    if isinstance(sent, Secret | SecretBytes | SecretStr):
        return (
            f"{where} is a secret, which pydantic masks in JSON; declare a plain type, or a "
            "serializer that reveals it (field_serializer with when_used='json')"
        )
    if arrived is _MISSING:
        return f"{where} would not arrive"
    return f"{where} would change from {describe(sent)} to {describe(arrived)}"


def describe_place(keys: Iterable[Any]) -> str:
    """A place in an instance, such as ``atoms[3].mass``."""
    text = "".join(f".{key}" if isinstance(key, str) else f"[{key!r}]" for key in keys)
    return text.removeprefix(".") or "the value"


def describe(value: Any) -> str:
    """A value, shortened, with its type."""
    return f"{reprlib.repr(value)} ({type(value).__name__})"


def _part_difference(
    sent: dict[Any, Any], arrived: dict[Any, Any], place: tuple[Any, ...]
) -> str | None:
    for key in sent | arrived:
        found = difference(sent.get(key, _MISSING), arrived.get(key, _MISSING), *place, key)
        if found:
            return found
    return None


def _fields(value: Any) -> dict[str, Any] | None:
    """The fields of a model, a dataclass, or an object that has no `__eq__` of its own."""
    if isinstance(value, BaseModel):
        values = vars(value)
        fields = {name: values.get(name, _MISSING) for name in type(value).model_fields}
        return fields | (value.model_extra or {})
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: getattr(value, name, _MISSING) for name in names}
    equality: Any = type(value).__eq__
    if equality is object.__eq__ and not callable(value):
        return getattr(value, "__dict__", None)
    return None


def _equal(sent: Any, arrived: Any) -> bool:
    # NaN differs from itself.
    if isinstance(sent, float | Decimal) and sent != sent and arrived != arrived:
        return True
    try:
        same = sent == arrived
        while True:
            try:
                return bool(same)
            except ValueError:
                # The comparison of NumPy arrays and pandas frames has a result for each element.
                same = same.all()
    except Exception:
        # Values that cannot be compared, such as NumPy arrays of different shapes.
        return False
