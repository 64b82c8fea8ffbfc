"""JSON Schema (draft 2020-12) of jobs and the payloads checked against it.

Schemas come from clients and are not trusted, nor are payloads: references stay within the document
and never form a cycle, nothing is fetched, and what either costs is bounded, in size when a job is
registered and by a budget of work when a payload is checked.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any
from urllib.parse import urljoin

from jsonschema import Draft202012Validator
from jsonschema_specifications import REGISTRY as SPECIFICATIONS

from zndraw_joblib.exceptions import FieldError, json_pointer
from zndraw_joblib.schemas.checker import Budget, Checker, OutOfWork
from zndraw_joblib.schemas.keywords import reference_tokens, target
from zndraw_joblib.schemas.patterns import PatternError, compile_pattern, measured
from zndraw_joblib.schemas.values import shown

DIALECT = "https://json-schema.org/draft/2020-12/schema"

#: Faults told at most, and characters of all of them.
MAX_FAULTS = 1000
MAX_TOLD = 200_000
#: Subschemas of one schema.
MAX_SUBSCHEMAS = 4000
#: Subschemas that one validation may visit when each reference is followed, and how deep.
MAX_EXPANSION = 10_000
MAX_HEIGHT = 256
#: Size of all patterns of a schema, about 30 ms to compile.
MAX_PATTERNS = 60_000
#: Work to look at a schema, in tenths of a microsecond, estimated high.
MAX_SCHEMA_WORK = 1_500_000

#: Keywords that hold subschemas; those that do not apply them.
_KEPT = {"$defs", "contentSchema", "definitions"}
_BELOW = _KEPT | {
    *("additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then"),
    *("allOf", "anyOf", "oneOf", "prefixItems"),
    *("dependentSchemas", "patternProperties", "properties"),
}
_MAPS = ("$defs", "definitions", "dependentSchemas", "patternProperties", "properties")
_REFUSED = {
    "$dynamicRef": "is not supported; use $ref",
    "$recursiveRef": "is not supported; use $ref",
    "unevaluatedItems": "is not supported; use items",
    "unevaluatedProperties": "is not supported; use additionalProperties",
}
#: What a schema that `schema_faults` never saw may raise when payloads are checked against it.
_UNFIT = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
_AT_THE_TOP = ("$id", "$schema")


def schema_faults(schema: dict[str, Any], *, max_bytes: int, max_depth: int) -> list[FieldError]:
    """What is wrong with a job's schema; pointers are relative to it. Empty when it is fine.

    `max_bytes` bounds its compact JSON text, `max_depth` its nesting.
    """
    if detail := _out_of_bounds(schema, max_bytes, max_depth):
        return [FieldError(detail)]
    dialect = schema.get("$schema", DIALECT)
    if not isinstance(dialect, str) or dialect.rstrip("#") != DIALECT:
        return [FieldError(f"The dialect must be {DIALECT}.", "/$schema")]
    try:
        return _told(_Survey(schema).faults())
    except OutOfWork:
        return [FieldError("The schema takes too much work to check.")]


def validator(schema: dict[str, Any]) -> Checker:
    """What checks payloads against a schema that `schema_faults` found fine."""
    return Checker(schema)


def payload_faults(check: Checker, payload: Any, budget: Budget | None = None) -> list[FieldError]:
    """Where a payload breaks the schema of this `validator`; pointers are into the payload.

    Payloads that come together may share a `budget`; else each has its own.
    """
    try:
        faults = _told(
            FieldError(fault.detail, json_pointer(reversed(fault.path)))
            for fault in check.faults(payload, budget or Budget())
        )
    except OutOfWork:
        detail = "The payload takes too much work to check against this schema."
        return [FieldError(detail)]
    except _UNFIT as error:
        return [FieldError(f"The payload cannot be checked: {type(error).__name__}.")]
    return faults


def _told(faults: Iterable[FieldError]) -> list[FieldError]:
    """The faults in the order of their pointers, as many as an answer should hold."""
    told: list[FieldError] = []
    left = MAX_TOLD
    for fault in faults:
        if told and (len(told) == MAX_FAULTS or left < len(fault.pointer)):
            more = FieldError(f"There are more than these {len(told)} faults.")
            return [*sorted(told, key=_pointer), more]
        told.append(fault)
        left -= len(fault.pointer) + len(fault.detail)
    return sorted(told, key=_pointer)


def _pointer(fault: FieldError) -> str:
    return fault.pointer


def _out_of_bounds(schema: Any, max_bytes: int, max_depth: int) -> str | None:
    if not isinstance(schema, dict):
        return "The schema must be an object."
    stack: list[tuple[Any, int]] = [(schema, 1)]
    while stack:
        item, depth = stack.pop()
        if isinstance(item, dict | list):
            if depth > max_depth:
                return f"The schema must not be nested deeper than {max_depth}."
            children = item.values() if isinstance(item, dict) else item
            stack.extend((child, depth + 1) for child in children)
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        size = len(text.encode())
    except (TypeError, ValueError):
        return "The schema is not JSON."
    if size > max_bytes:
        return f"The schema has {size} bytes of JSON; at most {max_bytes} are accepted."
    return None


class _Node:
    """One subschema of a survey."""

    __slots__ = ("above", "cost", "height", "schema", "tokens", "used")

    def __init__(self, schema: Any, above: _Node | None, *tokens: str | int) -> None:
        self.schema = schema
        self.above = above
        self.tokens = tokens
        self.used: list[Any] = []
        #: Subschemas below it with references followed, and the longest way down; 0 while unknown.
        self.cost = self.height = 0

    @property
    def pointer(self) -> str:
        """Its place in the schema."""
        return (self.above.pointer if self.above else "") + json_pointer(self.tokens)


class _Survey:
    """A walk over every subschema, and over the references between them. No step recurses."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._nodes: dict[int, _Node] = {}
        self._budget = Budget(MAX_SCHEMA_WORK)
        self._patterns = 0

    def faults(self) -> Iterator[FieldError]:
        """What is wrong, in two passes: what can be seen in one place, then what cannot."""
        fine = True
        for fault in chain(self._each(), self._references()):
            fine = False
            yield fault
        if fine:
            yield from self._cycles()
            top = self._nodes[id(self._root)]
            if top.cost > MAX_EXPANSION:
                yield FieldError("The schema grows too large when its references are followed.")
            if top.height > MAX_HEIGHT:
                detail = f"Subschemas and references must not nest deeper than {MAX_HEIGHT}."
                yield FieldError(detail)

    def _each(self) -> Iterator[FieldError]:
        # Grows while it is read.
        nodes = [_Node(self._root, None)]
        for node in nodes:
            if len(self._nodes) == MAX_SUBSCHEMAS:
                yield FieldError(f"The schema must not have more than {MAX_SUBSCHEMAS} subschemas.")
                return
            self._nodes[id(node.schema)] = node
            if wrong := list(self._alone(node)):
                yield from wrong
                continue
            for keyword in filter(_BELOW.__contains__, node.schema):
                children = list(_children(node, keyword))
                nodes.extend(children)
                if keyword not in _KEPT:
                    node.used.extend(child.schema for child in children)

    def _alone(self, node: _Node) -> Iterator[FieldError]:
        """What is wrong with a subschema whatever the others are."""
        schema = node.schema
        misshapen = False
        for fault in _METASCHEMA.faults(schema, self._budget):
            misshapen = True
            yield FieldError(fault.detail, node.pointer + json_pointer(reversed(fault.path)))
        if misshapen:
            return
        for keyword in filter(_REFUSED.__contains__, schema):
            yield FieldError(f"{keyword} {_REFUSED[keyword]}.", f"{node.pointer}/{keyword}")
        if node.above is not None:
            for keyword in schema.keys() & _AT_THE_TOP:
                wrong = f"{keyword} is accepted at the top only."
                yield FieldError(wrong, f"{node.pointer}/{keyword}")
        if "pattern" in schema:
            yield from self._pattern_faults([schema["pattern"]], f"{node.pointer}/pattern")
        if patterns := schema.get("patternProperties"):
            yield from self._pattern_faults(patterns, f"{node.pointer}/patternProperties")

    def _pattern_faults(self, patterns: Iterable[str], pointer: str) -> Iterator[FieldError]:
        for pattern in patterns:
            if detail := self._pattern_fault(pattern):
                yield FieldError(f"The pattern {shown(pattern)} {detail}.", pointer)

    def _pattern_fault(self, text: str) -> str | None:
        try:
            pattern = measured(text)
            self._patterns += 100 + pattern.size
            if self._patterns > MAX_PATTERNS:
                return "is too large, together with those before it"
            compile_pattern(pattern)
        except PatternError as error:
            return str(error)
        return None

    def _references(self) -> Iterator[FieldError]:
        for node in self._nodes.values():
            reference = node.schema.get("$ref")
            if not isinstance(reference, str):
                continue
            tokens = reference_tokens(reference)
            if tokens is None:
                detail = "$ref must point into this schema (#/...)."
                yield FieldError(detail, f"{node.pointer}/$ref")
                continue
            to = target(self._root, tokens)
            if to is not True and to is not False and id(to) not in self._nodes:
                detail = f"$ref {shown(reference)} does not lead to a schema."
                yield FieldError(detail, f"{node.pointer}/$ref")
            node.used.append(to)

    def _cycles(self) -> Iterator[FieldError]:
        """Where references form a cycle; on the way, each node's cost and height."""
        pending: set[int] = set()
        for start in self._nodes.values():
            stack = [start]
            while stack:
                node = stack[-1]
                if node.height:
                    stack.pop()
                    continue
                below = [self._nodes[id(used)] for used in node.used if isinstance(used, dict)]
                if id(node) in pending:
                    # All below is known, but for what leads back.
                    node.height = 1 + max((other.height for other in below), default=0)
                    booleans = len(node.used) - len(below)
                    cost = 1 + booleans + sum(other.cost for other in below)
                    node.cost = min(cost, MAX_EXPANSION + 1)
                    pending.discard(id(node))
                    stack.pop()
                    continue
                pending.add(id(node))
                for other in {id(other): other for other in below}.values():
                    if id(other) in pending:
                        yield FieldError("References must not form a cycle.", other.pointer)
                    elif not other.height:
                        stack.append(other)


def _children(node: _Node, keyword: str) -> Iterator[_Node]:
    """The subschemas that a keyword holds, booleans left out."""
    held = node.schema[keyword]
    if keyword in _MAPS:
        pairs: Iterable[tuple[Any, Any]] = held.items()
    elif isinstance(held, list):
        pairs = enumerate(held)
    else:
        pairs = [(None, held)]
    for token, child in pairs:
        if isinstance(child, dict):
            yield _Node(child, node, keyword, *([] if token is None else [token]))


def _metaschema() -> Checker:
    """What `Draft202012Validator.check_schema` asks of one subschema, without those below it."""
    properties: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    for part in Draft202012Validator.META_SCHEMA["allOf"]:
        vocabulary = SPECIFICATIONS.contents(urljoin(DIALECT, part["$ref"]))
        properties |= vocabulary.get("properties", {})
        definitions |= vocabulary.get("$defs", {})
    properties |= Draft202012Validator.META_SCHEMA["properties"]
    return Checker(_flat({"properties": properties, "$defs": definitions}))


def _flat(value: Any) -> Any:
    """A copy that refers to itself alone, where a subschema is anything that may be one."""
    if isinstance(value, list):
        return [_flat(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "$dynamicRef" in value and isinstance(value["$dynamicRef"], str):
        return {"type": ["object", "boolean"]}
    flat = {key: _flat(item) for key, item in value.items()}
    if isinstance(flat.get("$ref"), str):
        flat["$ref"] = "#" + flat["$ref"].partition("#")[2]
    return flat


_METASCHEMA = _metaschema()
