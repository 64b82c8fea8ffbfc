"""JSON Schema (draft 2020-12) of jobs and the payloads checked against it.

Schemas come from clients and are not trusted: references stay within the document and never form
a cycle, nothing is fetched, patterns run on a linear-time engine, and what would grow
exponentially is refused at registration.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import Annotated, Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError as Fault
from jsonschema.validators import extend
from pydantic import StringConstraints, TypeAdapter
from pydantic_core import SchemaError as PatternError, ValidationError as NoMatch
from referencing import Registry
from referencing.exceptions import Unresolvable

from zndraw_joblib.exceptions import FieldError, escape_pointer, json_pointer

#: Faults reported at most, and characters of each.
MAX_FAULTS = 100
MAX_DETAIL = 300
#: Subschemas that one validation may visit when each reference is followed.
MAX_EXPANSION = 10_000

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_ONE = (
    *("additionalProperties", "contains", "contentSchema", "else", "if", "items", "not"),
    *("propertyNames", "then", "unevaluatedItems", "unevaluatedProperties"),
)
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_MAPS = ("$defs", "definitions", "dependentSchemas", "patternProperties", "properties")
_REFUSED = ("$dynamicRef", "$recursiveRef")

# pydantic writes this look-ahead before the pattern of a Decimal: "not signs and dots alone".
_DECIMAL = re.compile(r"^\^\(\?!\^\[-\+\.\]\*\$\)")


@lru_cache(maxsize=1024)
def _engine(pattern: str) -> TypeAdapter[str]:
    # pydantic's engine is Rust's regex: linear time, without look-around and back-references.
    return TypeAdapter(Annotated[str, StringConstraints(pattern=pattern)])


def matches(pattern: str, text: str) -> bool:
    """Whether the pattern is found in the text, in time linear in the text."""
    if _DECIMAL.match(pattern):
        if not text.strip("-+."):
            return False
        pattern = _DECIMAL.sub("^", pattern)
    try:
        _engine(pattern).validate_python(text)
    except NoMatch:
        return False
    return True


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Fault]:
    if isinstance(instance, str) and not matches(pattern, instance):
        yield Fault(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(
    validator: Any, patterns: dict[str, Any], instance: Any, schema: Any
) -> Iterator[Fault]:
    if isinstance(instance, dict):
        for pattern, subschema in patterns.items():
            for key, value in instance.items():
                if matches(pattern, key):
                    yield from validator.descend(value, subschema, path=key, schema_path=pattern)


def _additional_properties(
    validator: Any, subschema: Any, instance: Any, schema: dict[str, Any]
) -> Iterator[Fault]:
    if not isinstance(instance, dict):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for key, value in instance.items():
        if key in known or any(matches(pattern, key) for pattern in patterns):
            continue
        if subschema is False:
            yield Fault("is not a known property", path=[key])
        else:
            yield from validator.descend(value, subschema, path=key)


def _unique_items(validator: Any, unique: bool, instance: Any, schema: Any) -> Iterator[Fault]:
    if unique and isinstance(instance, list):
        texts = {json.dumps(_plain(item), sort_keys=True) for item in instance}
        if len(texts) < len(instance):
            yield Fault("has items that are not unique")


def _plain(value: Any) -> Any:
    # JSON Schema takes 1.0 and 1 for the same number.
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


_Validator = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "uniqueItems": _unique_items,
    },
)


def schema_faults(schema: dict[str, Any], *, max_bytes: int, max_depth: int) -> list[FieldError]:
    """What is wrong with a job's schema; pointers are relative to it. Empty when it is fine.

    `max_bytes` bounds its JSON text, `max_depth` its nesting.
    """
    size = len(json.dumps(schema, ensure_ascii=False).encode())
    if size > max_bytes:
        return [FieldError(f"The schema has {size} bytes; at most {max_bytes} are accepted.")]
    if _depth(schema) > max_depth:
        return [FieldError(f"The schema must not be nested deeper than {max_depth}.")]
    dialect = schema.get("$schema", DIALECT)
    if not isinstance(dialect, str) or dialect.rstrip("#") != DIALECT:
        return [FieldError(f"The dialect must be {DIALECT}.", "/$schema")]
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return [FieldError(error.message[:MAX_DETAIL], json_pointer(error.absolute_path))]
    return list(islice(_Walk(schema).faults(), MAX_FAULTS))


def validator(schema: dict[str, Any]) -> Any:
    """What checks payloads against a schema that `schema_faults` found fine."""
    return _Validator(schema, registry=Registry())


def payload_faults(check: Any, payload: Any) -> list[FieldError]:
    """Where a payload breaks the schema of this `validator`; pointers are into the payload."""
    try:
        faults = [
            FieldError(fault.message[:MAX_DETAIL], json_pointer(fault.absolute_path))
            for fault in islice(check.iter_errors(payload), MAX_FAULTS)
        ]
    except (ArithmeticError, RecursionError, Unresolvable) as error:
        return [FieldError(f"The payload cannot be checked: {type(error).__name__}.")]
    return sorted(faults, key=lambda fault: fault.pointer)


def _depth(value: Any) -> int:
    deepest, stack = 0, [(value, 1)]
    while stack:
        item, depth = stack.pop()
        if isinstance(item, dict | list):
            deepest = max(deepest, depth)
            children = item.values() if isinstance(item, dict) else item
            stack.extend((child, depth + 1) for child in children)
    return deepest


class _Walk:
    """A walk over every subschema, each reference followed once."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._sizes: dict[str, int] = {}
        self._open: set[str] = set()
        self._patterns = False
        self._unevaluated: str | None = None
        self._found: list[FieldError] = []

    def faults(self) -> list[FieldError]:
        size = self._visit(self._root, "")
        if size > MAX_EXPANSION:
            self._fault("The schema grows too large when its references are followed.", "")
        if self._unevaluated is not None and self._patterns:
            self._fault(
                "unevaluatedProperties cannot be used with patternProperties.", self._unevaluated
            )
        return self._found

    def _fault(self, detail: str, pointer: str) -> None:
        self._found.append(FieldError(detail, pointer))

    def _visit(self, schema: Any, pointer: str) -> int:
        """The number of subschemas under this one, references followed."""
        if not isinstance(schema, dict):
            return 1
        if pointer in self._sizes:
            return self._sizes[pointer]
        if pointer in self._open:
            self._fault("References must not form a cycle.", pointer)
            return 1
        self._open.add(pointer)
        size = 1 + sum(self._visit(child, at) for child, at in self._children(schema, pointer))
        self._open.discard(pointer)
        self._sizes[pointer] = size
        return size

    def _children(self, schema: dict[str, Any], pointer: str) -> Iterator[tuple[Any, str]]:
        for keyword in _REFUSED:
            if keyword in schema:
                self._fault(f"{keyword} is not supported; use $ref.", f"{pointer}/{keyword}")
        if "$id" in schema and pointer:
            self._fault("$id is accepted at the top only.", f"{pointer}/$id")
        if "unevaluatedProperties" in schema:
            self._unevaluated = f"{pointer}/unevaluatedProperties"
        if "pattern" in schema:
            self._check_pattern(schema["pattern"], f"{pointer}/pattern")
        for pattern in schema.get("patternProperties", {}):
            self._patterns = True
            self._check_pattern(pattern, f"{pointer}/patternProperties")
        if "$ref" in schema:
            yield from self._target(schema["$ref"], f"{pointer}/$ref")
        for keyword in _ONE:
            if keyword in schema:
                yield schema[keyword], f"{pointer}/{keyword}"
        for keyword in _LISTS:
            for index, child in enumerate(schema.get(keyword, [])):
                yield child, f"{pointer}/{keyword}/{index}"
        for keyword in _MAPS:
            for name, child in schema.get(keyword, {}).items():
                yield child, f"{pointer}/{keyword}/{escape_pointer(name)}"

    def _target(self, reference: str, pointer: str) -> Iterator[tuple[Any, str]]:
        if reference != "#" and not reference.startswith("#/"):
            self._fault("$ref must point into this schema (#/...).", pointer)
            return
        target: Any = self._root
        for token in reference[2:].split("/") if len(reference) > 1 else []:
            key = token.replace("~1", "/").replace("~0", "~")
            if isinstance(target, list) and key.isascii() and key.isdigit():
                target = target[int(key)] if len(key) < 9 and int(key) < len(target) else None
            else:
                target = target.get(key) if isinstance(target, dict) else None
        if not isinstance(target, dict | bool):
            self._fault(f"$ref {reference[:MAX_DETAIL]!r} leads nowhere.", pointer)
            return
        yield target, reference[1:]

    def _check_pattern(self, pattern: str, pointer: str) -> None:
        try:
            matches(pattern, "x")
        except PatternError:
            self._fault("The pattern must do without look-around and back-references.", pointer)
