"""The subschemas of a job's schema, and how each is applied to a payload.

All keywords are read in all drafts: a draft that ignores one only makes the bound on work higher.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import chain
from typing import Any
from urllib.parse import unquote

from zndraw_joblib.exceptions import FieldError, json_pointer
from zndraw_joblib.text import Message

#: Most subschemas of a schema, and most targets of its references.
MAX_SUBSCHEMAS = 4000
MAX_REFERENCES = 8000

#: Keywords whose value is a subschema, or an array or an object of them. The first set applies it
#: to the value itself.
_IN_PLACE = {"allOf", "not", "if", "then", "else", "dependentSchemas", "dependencies"}
#: So does this set; an error of these keywords contains the errors of each subschema.
_BRANCHES = {"anyOf", "oneOf"}
#: Applied to children of the value; no two of these apply to the same child.
_EXCLUSIVE = {"properties", "additionalProperties", "items", "prefixItems", "additionalItems"}
_UNEVALUATED = {"unevaluatedProperties", "unevaluatedItems"}
#: Applied to children of the value, to which other keywords may apply as well.
_OVERLAPPING = {"patternProperties", "propertyNames", "contains"} | _UNEVALUATED
_NOT_APPLIED = {"$defs", "definitions", "contentSchema"}
_OBJECTS = {"$defs", "definitions", "dependentSchemas", "dependencies"} | {
    *("patternProperties", "properties")
}
_ARRAYS = {"allOf", "anyOf", "oneOf", "prefixItems"}
APPLICATORS = _IN_PLACE | _BRANCHES | _EXCLUSIVE | _OVERLAPPING | _NOT_APPLIED

REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_ANCHORS = ("$anchor", "$dynamicAnchor")
_ROOT_ONLY = ("$id", "$schema")


class Subschema:
    """An object within the schema that is a schema itself, with the subschemas that it applies."""

    __slots__ = (
        *("branches", "exclusive", "in_place", "overlapping"),
        *("parent", "references", "schema", "tokens"),
    )

    def __init__(self, schema: dict[str, Any], parent: Subschema | None = None) -> None:
        self.schema = schema
        self.parent = parent
        self.tokens: tuple[str | int, ...] = ()
        self.in_place: list[Subschema] = []
        self.branches: list[Subschema] = []
        self.exclusive: list[Subschema] = []
        self.overlapping: list[Subschema] = []
        #: The targets of each keyword that refers to other subschemas; they are in `in_place` too.
        self.references: dict[str, list[Subschema]] = {}

    @property
    def pointer(self) -> str:
        """The JSON pointer from the root of the schema to this subschema."""
        return (self.parent.pointer if self.parent else "") + json_pointer(self.tokens)

    @property
    def has_unevaluated(self) -> bool:
        """Whether it has a keyword for the children that no other keyword evaluates."""
        return not self.schema.keys().isdisjoint(_UNEVALUATED)


class Document:
    """The subschemas of a schema with resolved references; `errors` is empty for a valid schema."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.root = Subschema(schema)
        self.subschemas = [self.root]
        #: Stand for the schemas `True` and `False`.
        self.booleans = {True: Subschema({}), False: Subschema({"not": {}})}
        self.errors: list[FieldError] = []
        #: All subschemas; one comes after those that it applies to the same value.
        self.order: list[Subschema] = []
        self._known = {id(schema): self.root}
        self._anchors: dict[str, list[Subschema]] = {}
        self._collect()
        self._resolve()
        if not self.errors:
            self._sort()

    @cached_property
    def keywords(self) -> frozenset[str]:
        """The keywords of all subschemas."""
        return frozenset(chain.from_iterable(one.schema for one in self.subschemas))

    def subschema(self, schema: Any) -> Subschema:
        """The subschema of an object or a boolean within the schema, which must be valid."""
        return self.booleans[schema] if isinstance(schema, bool) else self._known[id(schema)]

    def _add_error(self, detail: str, at: Subschema, keyword: str) -> None:
        self.errors.append(FieldError(detail, f"{at.pointer}/{keyword}"))

    def _collect(self) -> None:
        # The list grows while it is read, because recursion could fill the stack.
        for node in self.subschemas:
            if len(self.subschemas) > MAX_SUBSCHEMAS:
                detail = Message(
                    "The schema must not have more than {limit} subschemas.", limit=MAX_SUBSCHEMAS
                )
                self.errors.append(FieldError(detail))
                return
            for keyword in filter(APPLICATORS.__contains__, node.schema):
                self._collect_children(node, keyword)
            for keyword in filter(node.schema.get, _ANCHORS):
                self._anchors.setdefault(str(node.schema[keyword]), []).append(node)
            if node is not self.root:
                for keyword in filter(node.schema.__contains__, _ROOT_ONLY):
                    self._add_error(
                        Message("{keyword} is accepted at the top only.", keyword=keyword),
                        node,
                        keyword,
                    )

    def _collect_children(self, node: Subschema, keyword: str) -> None:
        pairs = paths_and_schemas(keyword, node.schema[keyword])
        if pairs is None:
            self._add_error(
                Message("{keyword} must contain schemas.", keyword=keyword), node, keyword
            )
            return
        edges = _edges(node, keyword)
        for tokens, schema in pairs:
            if isinstance(schema, bool):
                edges.append(self.booleans[schema])
                continue
            if keyword == "dependencies" and isinstance(schema, list):
                continue
            if not isinstance(schema, dict):
                detail = Message("A schema must be an object or a boolean.")
                self._add_error(detail, node, keyword + json_pointer(tokens))
                continue
            child = self._known.get(id(schema))
            if child is None:
                child = self._known[id(schema)] = Subschema(schema, node)
                child.tokens = (keyword, *tokens)
                self.subschemas.append(child)
            edges.append(child)

    def _resolve(self) -> None:
        resolved = 0
        for node in self.subschemas:
            for keyword in filter(node.schema.__contains__, REFERENCES):
                reference = node.schema[keyword]
                if not isinstance(reference, str):
                    self._add_error(
                        Message("{keyword} must be text.", keyword=keyword), node, keyword
                    )
                elif reference[:1] not in ("", "#"):
                    self._add_error(
                        Message("{keyword} must point into this schema (#...).", keyword=keyword),
                        node,
                        keyword,
                    )
                elif (targets := self._targets(unquote(reference[1:]))) is None:
                    self._add_error(
                        Message("{keyword} does not lead to a schema.", keyword=keyword),
                        node,
                        keyword,
                    )
                else:
                    node.references[keyword] = targets
                    node.in_place.extend(targets)
                    resolved += len(targets)
                    if resolved > MAX_REFERENCES:
                        self._add_error(
                            Message("References lead to too many anchors."), node, keyword
                        )
                        return

    def _targets(self, fragment: str) -> list[Subschema] | None:
        if fragment and fragment[0] != "/":
            return self._anchors.get(fragment)
        place: Any = self.root.schema
        for token in fragment.split("/")[1:]:
            token = token.replace("~1", "/").replace("~0", "~")
            if isinstance(place, list) and token.isascii() and token.isdigit() and len(token) < 9:
                canonical = token == str(int(token)) and int(token) < len(place)
                place = place[int(token)] if canonical else None
            else:
                place = place.get(token) if isinstance(place, dict) else None
        if isinstance(place, bool):
            return [self.booleans[place]]
        target = self._known.get(id(place))
        return None if target is None else [target]

    def _sort(self) -> None:
        """Fill `order`, innermost first; a cycle that stays on the same value is an error."""
        self.order += self.booleans.values()
        done = set(map(id, self.order))
        pending: set[int] = set()
        for start in self.subschemas:
            stack = [start]
            while stack:
                node = stack[-1]
                if id(node) in done or id(node) in pending:
                    stack.pop()
                    if id(node) in pending:
                        pending.discard(id(node))
                        done.add(id(node))
                        self.order.append(node)
                    continue
                pending.add(id(node))
                for child in {id(c): c for c in (*node.in_place, *node.branches)}.values():
                    if id(child) in pending:
                        detail = Message("References must not lead back to the same value.")
                        self.errors.append(FieldError(detail, child.pointer))
                    elif id(child) not in done:
                        stack.append(child)


def _edges(node: Subschema, keyword: str) -> list[Subschema]:
    if keyword in _IN_PLACE:
        return node.in_place
    if keyword in _BRANCHES:
        return node.branches
    if keyword in _EXCLUSIVE:
        return node.exclusive
    return node.overlapping if keyword in _OVERLAPPING else []


def paths_and_schemas(
    keyword: str, value: Any
) -> Iterable[tuple[tuple[str | int, ...], Any]] | None:
    """The schemas in a keyword's value with their paths in it; None for a value of a wrong type."""
    if keyword in _OBJECTS:
        return _paths(value.items()) if isinstance(value, dict) else None
    if keyword in _ARRAYS or (keyword == "items" and isinstance(value, list)):
        return _paths(enumerate(value)) if isinstance(value, list) else None
    return [((), value)]


def _paths(pairs: Iterable[tuple[str | int, Any]]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    for token, value in pairs:
        yield (token,), value
