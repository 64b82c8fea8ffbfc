"""Whether two schemas mean the same, however they are written.

A schema is read as a graph of its subschemas. Two subschemas mean the same if they have the same
keywords with the same values, and lead by the same keywords to subschemas that mean the same. The
graphs of two schemas are compared by partition refinement: all subschemas begin in one class, and
each round splits the classes by what their members lead to, until a round splits no class. So the
names of definitions do not count, and recursive schemas can be compared.

The comparison may find a difference between schemas that accept the same payloads (`type` and
`anyOf` for two types), because only some ways of writing are known to be equal. It finds none only
if both have the same payloads, the same defaults and the same keywords that JSON Schema does not
know.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from zndraw_joblib.schemas.subschemas import (
    APPLICATORS,
    REFERENCES,
    Document,
    Subschema,
    paths_and_schemas,
)

#: Most visits of subschemas, about 0.3 s. A form needs about as many rounds as it has levels; a
#: hostile chain of definitions needs a thousand, and is found different.
MAX_VISITS = 300_000
#: Most subschemas of one value that are searched for `uniqueItems`. With more, order counts.
MAX_APPLIED = 64

_DRAFT_7 = "http://json-schema.org/draft-07/schema"
_DRAFT_2020 = "https://json-schema.org/draft/2020-12/schema"
#: Keywords that describe a value to people. `discriminator` repeats the constants of a `oneOf`.
_DESCRIPTIONS = {"title", "description", "examples", "$comment", "discriminator"}
#: Keywords that name a schema, or hold schemas that references lead to.
_NAMES = {"$schema", "$id", "$anchor", "$defs", "definitions"}

#: Values with which keywords accept everything; some generators write them, some leave them out.
_WITHOUT_EFFECT: dict[str, Any] = {
    "required": [],
    "properties": {},
    "patternProperties": {},
    "dependentRequired": {},
    "dependentSchemas": {},
    "dependencies": {},
    "uniqueItems": False,
    "minLength": 0,
    "minItems": 0,
    "minProperties": 0,
}
#: Keywords that accept everything with the schema `true`.
_FOR_THE_REST = {"additionalProperties", "additionalItems", "items"}

#: The classes of subschemas that one keyword leads to, as the keyword compares them.
_Compare = Callable[[Iterable[int]], tuple[int, ...]]


def same_meaning(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether two accepted schemas mean the same.

    Order counts only where JSON Schema gives it a meaning. Titles, descriptions, examples and
    comments do not count, nor do names of definitions, the notation of a number (``1`` or ``1.0``),
    and whether a subschema is written in its place or referred to.
    """
    documents = [Document(first), Document(second)]
    if any(document.errors for document in documents) or _dialect(first) != _dialect(second):
        return False
    readings = {
        subschema: _Reading(document, subschema)
        for document in documents
        for subschema in document.order
    }
    numbers: dict[Subschema, int] = {}
    kept: list[_Reading] = []
    for subschema, reading in readings.items():
        if reading.alias_of is None:
            numbers[subschema] = len(kept)
            kept.append(reading)
        else:
            # Known by now, because `order` begins with the innermost subschemas.
            numbers[subschema] = numbers[reading.alias_of]
    graph = [
        (
            reading.own,
            [(compare, [numbers[s] for s in leads_to]) for compare, leads_to in reading.edges],
        )
        for reading in kept
    ]
    return _are_in_one_class(graph, *(numbers[document.root] for document in documents))


def _are_in_one_class(
    graph: Sequence[tuple[str, list[tuple[_Compare, list[int]]]]], first: int, second: int
) -> bool:
    """Whether two vertices are still in one class when no class is split any more."""
    classes, count = [0] * len(graph), 1
    for _ in range(MAX_VISITS // len(graph)):
        found: dict[Any, int] = {}
        split = [
            found.setdefault(
                (own, *(compare([classes[v] for v in leads_to]) for compare, leads_to in edges)),
                len(found),
            )
            for own, edges in graph
        ]
        if split[first] != split[second]:
            return False
        if len(found) == count:
            return True
        classes, count = split, len(found)
    return False


def _dialect(schema: dict[str, Any]) -> str:
    return str(schema.get("$schema", _DRAFT_2020)).rstrip("#")


def _in_order(classes: Iterable[int]) -> tuple[int, ...]:
    return tuple(classes)


def _in_no_order(classes: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(classes))


def _each_once(classes: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(set(classes)))


class _Reading:
    """The meaning of one subschema, apart from the meaning of those that it leads to.

    Attributes
    ----------
    own
        Text of all keywords; equal for subschemas that differ in the edges only.
    edges
        Subschemas that the keywords lead to, in the order of the keywords in `own`.
    alias_of
        The only subschema that this one applies, if it does nothing else.
    """

    __slots__ = ("alias_of", "edges", "own")

    def __init__(self, document: Document, subschema: Subschema) -> None:
        schema = subschema.schema
        own: dict[str, Any] = {}
        self.edges: list[tuple[_Compare, list[Subschema]]] = []
        # With them, `additionalProperties: true` takes values away from `unevaluatedProperties`.
        takes_away = any(keyword.startswith("unevaluated") for keyword in document.keywords)
        # A reference is one more member of `allOf`, except in draft 7, where the keywords beside a
        # reference are ignored.
        conjuncts: list[Subschema] = []
        for keyword in sorted(schema.keys() - _DESCRIPTIONS - _NAMES):
            value = schema[keyword]
            if keyword in _WITHOUT_EFFECT and value == _WITHOUT_EFFECT[keyword]:
                continue
            if keyword in _FOR_THE_REST and not takes_away and _accepts_everything(value):
                continue
            if keyword == "$ref" and _dialect(document.root.schema) != _DRAFT_7:
                conjuncts += subschema.references[keyword]
            elif keyword in REFERENCES:
                # The name of a dynamic reference counts, because its target depends on it.
                own[keyword] = None if keyword == "$ref" else value
                self.edges.append((_each_once, subschema.references[keyword]))
            elif keyword == "allOf":
                conjuncts += map(document.subschema, value)
            elif keyword in APPLICATORS and subschema is not document.booleans[False]:
                own[keyword] = self._read_applicator(document, keyword, value)
            elif keyword == "default":
                own[keyword] = _default(document, value, [subschema])
            else:
                own[keyword] = _plain_keyword(keyword, value)
        # `const` is an `enum` of one value; some generators write both.
        if "const" in own and own.get("enum", own["const"]) == own["const"]:
            own["enum"] = own.pop("const")
        if conjuncts:
            self.edges.append((_each_once, conjuncts))
        self.own = _text(own)
        alone = len(conjuncts) == 1 and not own
        self.alias_of = conjuncts[0] if alone else None

    def _read_applicator(self, document: Document, keyword: str, value: Any) -> Any:
        """Add the edges of a keyword with subschemas; returns the rest of its value."""
        pairs = list(paths_and_schemas(keyword, value) or ())
        if isinstance(value, dict):
            pairs.sort(key=lambda pair: pair[0])
        leads_to = [document.subschema(s) for _, s in pairs if isinstance(s, dict | bool)]
        compare = {"anyOf": _each_once, "oneOf": _in_no_order}.get(keyword, _in_order)
        self.edges.append((compare, leads_to))
        if keyword in ("anyOf", "oneOf"):
            return None
        # `dependencies` may have arrays of names beside subschemas.
        return [(path, sorted(set(s)) if isinstance(s, list) else None) for path, s in pairs]


def _accepts_everything(schema: Any) -> bool:
    return schema is True or (isinstance(schema, dict) and not schema.keys() - _DESCRIPTIONS)


def _plain_keyword(keyword: str, value: Any) -> Any:
    """The value of a keyword without subschemas, in the form in which it is compared."""
    match keyword, value:
        case "type", str():
            return [value]
        case ("required" | "type", list()):
            return sorted(set(value))
        case "enum", list():
            return sorted(set(map(_text, value)))
        case "const", _:
            return [_text(value)]
        case "dependentRequired", dict():
            return {name: sorted(set(names)) for name, names in value.items()}
        case _:
            return _without_notation(value)


def _text(value: Any) -> str:
    """The same text for equal JSON: ``1`` and ``1.0`` are equal, ``true`` and ``1`` are not."""
    return _canonical(_without_notation(value))


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _without_notation(value: Any) -> Any:
    """A copy of a value in which each number that is an integer is written as one."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case list():
            return [_without_notation(item) for item in value]
        case dict():
            return {key: _without_notation(item) for key, item in value.items()}
        case _:
            return value


def _default(document: Document, value: Any, subschemas: Iterable[Subschema]) -> Any:
    """A default value in which arrays that `uniqueItems` applies to are sorted.

    Such an array may come from a set, whose order differs from process to process.
    """
    match value:
        case list():
            applied = _applied(subschemas)
            items = [
                _default(document, item, _below(document, applied, index))
                for index, item in enumerate(value)
            ]
            if any(subschema.schema.get("uniqueItems") is True for subschema in applied):
                items.sort(key=_canonical)
            return items
        case dict():
            applied = _applied(subschemas)
            return {
                key: _default(document, item, _below(document, applied, key))
                for key, item in value.items()
            }
        case _:
            return _without_notation(value)


def _applied(subschemas: Iterable[Subschema]) -> list[Subschema]:
    """All subschemas that apply to the value of these; none if there are more than a few."""
    found: dict[Subschema, None] = {}
    pending = [iter(subschemas)]
    while pending:
        for subschema in pending.pop():
            if subschema not in found:
                found[subschema] = None
                pending.append(chain(subschema.in_place, subschema.branches))
                if len(found) > MAX_APPLIED:
                    return []
    return list(found)


def _below(document: Document, applied: Iterable[Subschema], key: str | int) -> Iterator[Subschema]:
    """The subschemas of one child of a value."""
    for subschema in applied:
        schema = subschema.schema
        below: Iterable[Any]
        if isinstance(key, str):
            named = schema.get("properties", {})
            other = [named[key] if key in named else schema.get("additionalProperties")]
            below = chain(other, schema.get("patternProperties", {}).values())
        else:
            items = schema.get("items")
            listed = items if isinstance(items, list) else schema.get("prefixItems", [])
            rest = schema.get("additionalItems") if isinstance(items, list) else items
            below = [listed[key] if key < len(listed) else rest]
        for schema in below:
            # A boolean has no `uniqueItems`.
            if isinstance(schema, dict):
                yield document.subschema(schema)
