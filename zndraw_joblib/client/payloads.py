"""The JSON of a job's class: its schema, the payload of an instance, the instance of a payload.

`payload_json` and `load` are inverse, because `payload_json` loads each payload that it made, and
refuses an instance that it does not get back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    PydanticUserError,
    RootModel,
    ValidationError,
)
from pydantic.fields import FieldInfo

from zndraw_joblib.client.batches import encode
from zndraw_joblib.client.differences import describe, describe_place, difference
from zndraw_joblib.client.exceptions import RoundTripError

M = TypeVar("M", bound=BaseModel)


def schema_of(cls: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of a class's payloads, with the names that its validation accepts.

    Raises
    ------
    TypeError
        The class is no pydantic model, has no JSON Schema, or its payloads are not JSON objects.
    """
    if not (isinstance(cls, type) and issubclass(cls, BaseModel)):
        raise TypeError(f"{cls!r} is not a class derived from pydantic.BaseModel")
    try:
        schema = cls.model_json_schema()
        # A default may be NaN or an infinity, which JSON does not have.
        encode(schema)
    except (PydanticUserError, ValueError, TypeError) as error:
        raise TypeError(f"{cls.__name__} has no JSON Schema: {error}") from error
    if (kind := schema.get("type", "object")) != "object":
        raise TypeError(f"{cls.__name__} is of JSON type {kind}, but a payload is an object")
    return schema


def load(cls: type[M], payload: dict[str, Any]) -> M:
    """The instance of a payload.

    It is validated as JSON, because strict models accept times, sets and tuples from JSON alone.

    Raises
    ------
    pydantic.ValidationError
        The class refuses the payload.
    """
    return cls.model_validate_json(encode(payload))


def payload_json(instance: BaseModel) -> bytes:
    """The payload of an instance, as JSON.

    Raises
    ------
    RoundTripError
        `load` would not restore the instance.
    TypeError
        The class has no JSON Schema.
    """
    cls = type(instance)
    has_aliases = _has_aliases(cls)
    try:
        # `round_trip` leaves computed fields out, and writes fields of type `Json` as text. Without
        # warnings about values of a wrong type, because the comparison below finds them.
        payload: Any = instance.model_dump(
            mode="json", by_alias=has_aliases, round_trip=True, warnings=False
        )
        if has_aliases:
            payload = with_validation_aliases(instance, payload)
        text = encode(payload)
    except (ValueError, TypeError, RecursionError) as error:
        name = _without_json(instance)
        raise RoundTripError(cls, f"{name} has no form in JSON: {error}") from error
    if not isinstance(payload, dict):
        raise RoundTripError(cls, f"a payload is a JSON object, and not {describe(payload)}")
    try:
        arrived = cls.model_validate_json(text)
    except Exception as error:
        raise RoundTripError(cls, f"its worker would refuse it, {_first_error(error)}") from error
    if found := difference(instance, arrived):
        raise RoundTripError(cls, found)
    return text


def _without_json(instance: BaseModel) -> str:
    """The first field of an instance that has no form in JSON."""
    for name in [*type(instance).model_fields, *(instance.model_extra or {})]:
        try:
            encode(instance.model_dump(mode="json", include={name}, warnings=False))
        except (ValueError, TypeError, RecursionError):
            return name
    return "it"


def _first_error(error: Exception) -> str:
    """The first error of a validation, with its place."""
    if not isinstance(error, ValidationError):
        return f"{type(error).__name__}: {error}"
    first = error.errors(include_url=False, include_context=False)[0]
    return f"{describe_place(first['loc'])}: {first['msg']}, not {describe(first['input'])}"


@lru_cache(maxsize=256)
def _has_aliases(cls: type[BaseModel]) -> bool:
    """Whether a field, at any depth, is validated under another name than its own."""
    schema_of(cls)
    return cls.model_json_schema(by_alias=True) != cls.model_json_schema(by_alias=False)


def with_validation_aliases(value: Any, dumped: Any) -> Any:
    """Rename the fields in a dump from serialization aliases to validation aliases.

    Validation accepts these names, and the JSON Schema has them.
    """
    if isinstance(value, RootModel):
        return with_validation_aliases(value.root, dumped)
    if isinstance(dumped, dict):
        # A model or a pydantic dataclass.
        if fields := getattr(type(value), "__pydantic_fields__", None):
            return _with_renamed_fields(value, dumped, fields)
        if isinstance(value, Mapping) and len(value) == len(dumped):
            items = zip(value.values(), dumped.items(), strict=True)
            return {key: with_validation_aliases(one, entry) for one, (key, entry) in items}
    if isinstance(dumped, list) and isinstance(value, Collection) and len(value) == len(dumped):
        return [with_validation_aliases(*pair) for pair in zip(value, dumped, strict=True)]
    return dumped


def _with_renamed_fields(
    value: Any, dumped: dict[str, Any], fields: dict[str, FieldInfo]
) -> dict[str, Any]:
    model_config = getattr(value, "model_config", None)
    config = getattr(value, "__pydantic_config__", {}) if model_config is None else model_config
    by_alias = config.get("validate_by_alias") is not False
    rest, renamed = dict(dumped), {}
    for name, field in fields.items():
        written = field.serialization_alias or name
        if written in rest:
            entry = with_validation_aliases(getattr(value, name, None), rest.pop(written))
            renamed[_validation_alias(name, field) if by_alias else name] = entry
    extra = getattr(value, "__pydantic_extra__", None) or {}
    return renamed | {
        key: with_validation_aliases(extra.get(key), entry) for key, entry in rest.items()
    }


def _validation_alias(name: str, field: FieldInfo) -> str:
    """The name of a field in the JSON Schema: the first alias that is no path into other values."""
    alias = field.validation_alias
    for choice in alias.choices if isinstance(alias, AliasChoices) else [alias]:
        path = choice.path if isinstance(choice, AliasPath) else [choice]
        if len(path) == 1 and isinstance(path[0], str):
            return path[0]
    return name
