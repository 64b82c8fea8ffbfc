"""An upper bound on the work that a check of a payload takes, known before the check begins.

The engine visits pairs of a subschema and a value of the payload. `Bound` computes from the schema
alone how much work one value `d` levels below the root can cause: in place (``allOf``, ``$ref``)
visits add up; below it, the greatest of the keywords that exclude each other counts (one child is
held by one of ``properties``), and those that overlap (``patternProperties``, ``contains``) add up.
The work of a payload is the sum of that over its levels, each times what the level holds.
Work is counted in units of 20 ns, estimated high from measurements of each keyword.
"""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock
from typing import Any, NamedTuple

from zndraw_joblib.schemas.levels import Level, number_weight, values_of
from zndraw_joblib.schemas.patterns import measure
from zndraw_joblib.schemas.subschemas import APPLICATORS, Document

#: Work of one payload, 0.25 s.
MAX_WORK = 12_500_000
#: Steps of recursion, of which 700 fill 512 KiB of stack where all errors are collected.
MAX_STEPS = 512
#: Works that one bound may add up, 0.1 s.
MAX_FOUND = 200_000
#: One error as an object of Python, one of those that another one holds, and a value that is
#: copied into it.
_ERROR, _BRANCH_ERROR, _COPY = 500, 300, 8
#: The steps back of a match of a pattern with look-around.
_LOOK_AROUND = 5000

_ASSERTIONS = {"type", "minLength", "maxLength", "minItems", "maxItems", "$ref", "$dynamicRef"} | {
    *("minProperties", "maxProperties", "$recursiveRef")
}
_NUMERIC = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}


class Work(NamedTuple):
    """What one value of the payload costs, by what of it is read."""

    #: Visits, times values.
    visits: int = 0
    #: Comparisons of numbers and matches of patterns, times the digits and characters of scalars.
    scalars: int = 0
    #: Comparisons with arrays and objects, times the values in them.
    containers: int = 0
    #: Matches of patterns with look-around, which read a text once for each of its characters.
    look_arounds: int = 0
    #: Errors that a list of all of them holds, and characters of constants that they show.
    errors: int = 0
    shown: int = 0
    #: The same within `anyOf` and `oneOf`, because the first error holds those too.
    branch_errors: int = 0
    branch_shown: int = 0
    #: Steps of recursion on the way.
    steps: int = 0


NOTHING = Work()


def added(works: list[Work]) -> Work:
    """The work of subschemas that are all applied to the value, one step further up."""
    if len(works) == 1:
        return works[0]._replace(steps=works[0].steps + 1)
    columns = list(zip(*works, strict=True))
    return Work._make([*map(sum, columns[:-1]), max(columns[-1]) + 1])


def greatest(works: list[Work]) -> Work:
    """The work of subschemas of which one is applied to the value."""
    return works[0] if len(works) == 1 else Work._make(map(max, zip(*works, strict=True)))


class _Node:
    """A subschema, or the part of it that notes which children were evaluated."""

    __slots__ = ("branches", "exclusive", "in_place", "overlapping", "own")

    def __init__(self, own: Work) -> None:
        self.own = own
        self.in_place: list[_Node] = []
        self.branches: list[_Node] = []
        self.exclusive: list[_Node] = []
        self.overlapping: list[_Node] = []


class Bound:
    """The bound of one schema; threads may share it."""

    def __init__(self, document: Document) -> None:
        #: Each after those that it applies to the same value.
        self._nodes: list[_Node] = []
        #: Work of each node at a level, by the level's distance; nodes without work are left out.
        self._levels: list[dict[int, Work]] = []
        self._found = 0
        self._lock = Lock()
        plain = {id(subschema): _Node(_own(subschema.schema)) for subschema in document.order}
        self._root = plain[id(document.root)]
        #: The most steps, and the most visits, of finding what one subschema evaluates.
        self.evaluated_steps = self.evaluated_visits = 0
        #: For `unevaluated...` the engine finds in a second pass which children each subschema
        #: evaluates; a twin of the subschema stands for that pass.
        twins = {}
        if any(subschema.has_unevaluated for subschema in document.order):
            twins = {key: _Node(Work(visits=4)) for key in plain}
        for subschema in document.order:
            node, twin = plain[id(subschema)], twins.get(id(subschema))
            node.in_place = [plain[id(child)] for child in subschema.in_place]
            node.branches = [plain[id(child)] for child in subschema.branches]
            node.exclusive = [plain[id(child)] for child in subschema.exclusive]
            node.overlapping = [plain[id(child)] for child in subschema.overlapping]
            if keys := [_pattern(text) for text in subschema.schema.get("patternProperties", ())]:
                node.overlapping.append(self._append(_Node(added([Work(visits=len(keys)), *keys]))))
            if twin is not None:
                # The engine asks whether each of these is valid, then what it evaluates.
                twin.in_place = [*node.in_place, *node.branches]
                for child in (*subschema.in_place, *subschema.branches):
                    twin.in_place.append(twins[id(child)])
                key = self._append(_Node(Work(visits=4)))
                twin.overlapping = [key, *node.overlapping]
                self._append(twin)
                if subschema.has_unevaluated:
                    node.in_place.append(twin)
            self._append(node)
        self._alive = self._nodes
        top = self.at(0)
        #: Visits and steps of a payload without children.
        self.visits, self.steps = (top.visits, top.steps) if top else (0, 0)
        for subschema in document.order:
            if subschema.has_unevaluated:
                work = self._levels[0][id(twins[id(subschema)])]
                self.evaluated_steps = max(self.evaluated_steps, work.steps)
                self.evaluated_visits += work.visits

    def _append(self, node: _Node) -> _Node:
        self._nodes.append(node)
        return node

    def at(self, distance: int) -> Work | None:
        """The most work of one value that is so many levels below the root.

        None where that would take too long to find: a large schema and a deep payload.
        """
        with self._lock:
            while len(self._levels) <= distance:
                if self._found > MAX_FOUND:
                    return None
                self._levels.append(self._next())
            return self._levels[distance].get(id(self._root), NOTHING)

    def _next(self) -> dict[int, Work]:
        """The works of all nodes one level further down."""
        above = self._levels[-1] if self._levels else None
        level: dict[int, Work] = {}
        alive = []
        for node in self._alive:
            works = [level[id(child)] for child in node.in_place if id(child) in level]
            for child in node.branches:
                if work := level.get(id(child)):
                    works.append(work._replace(branch_errors=work.errors, branch_shown=work.shown))
            if above is None:
                works.append(node.own)
            else:
                works += [above[id(child)] for child in node.overlapping if id(child) in above]
                if held := [above[id(child)] for child in node.exclusive if id(child) in above]:
                    works.append(greatest(held))
                    self._found += len(held)
            if works:
                self._found += 1 + len(works)
                alive.append(node)
                level[id(node)] = added(works)
        # A node without work at this level has none further down, so the next one skips it.
        self._alive = alive
        return level

    def check(self, levels: Iterable[Level]) -> Cost | None:
        """What a payload with these levels costs at most; None if that takes too long to find."""
        valid = errors = branch_errors = steps = 0
        for distance, level in enumerate(levels):
            work = self.at(distance)
            if work is None:
                return None
            number, reading = level.texts
            valid += work.visits * level.values + work.scalars * level.scalars
            valid += work.containers * (level.containers + level.collisions)
            valid += work.look_arounds * (number * _LOOK_AROUND + reading)
            # Each error copies the value that it is about, whole.
            copy = level.size * _COPY
            errors += work.errors * (level.values * _ERROR + copy)
            errors += work.shown * level.values
            branch_errors += work.branch_errors * (level.values * _BRANCH_ERROR + copy)
            branch_errors += work.branch_shown * level.values
            steps = max(steps, work.steps)
        return Cost(valid, errors, branch_errors, steps)


class Cost(NamedTuple):
    """Work of one check, in units of 20 ns: of its verdict, of all errors, of the first one."""

    verdict: int
    errors: int
    first_error: int
    steps: int


def _own(schema: dict[str, Any]) -> Work:
    """What the keywords of a subschema cost, those aside that apply other subschemas."""
    works = [Work(visits=2)]
    for keyword, value in schema.items():
        works.append(_keyword(keyword, value))
    return added(works)


def _keyword(keyword: str, value: Any) -> Work:
    if keyword in _NUMERIC:
        scalars = 3 if isinstance(value, float) else 1 + (keyword == "multipleOf")
        return Work(visits=2 + number_weight(value), scalars=scalars, errors=1)
    if keyword in ("const", "enum"):
        return _constants(value if keyword == "enum" else [value])
    if keyword == "pattern":
        return added([Work(visits=1, errors=1), _pattern(value)])
    if keyword == "required":
        return Work(visits=1 + len(value), errors=len(value))
    if keyword in ("dependentRequired", "dependencies", "dependentSchemas"):
        names = sum(len(names) for names in value.values() if isinstance(names, list))
        return Work(visits=1 + len(value) + names, errors=names)
    if keyword == "uniqueItems":
        return Work(containers=25 * bool(value), errors=1)
    if keyword in ("contentEncoding", "contentMediaType"):
        return Work(visits=1, scalars=5, errors=1)
    if keyword == "not":
        return Work(visits=1, errors=1, shown=len(str(value)))
    if keyword in APPLICATORS or keyword in _ASSERTIONS:
        return Work(visits=2, errors=1)
    return NOTHING


def _pattern(text: str) -> Work:
    pattern = measure(text)
    return Work(scalars=1 + pattern.states // 50, look_arounds=pattern.look_arounds)


def _constants(values: list[Any]) -> Work:
    """`enum` looks up texts, or small integers, in a set; it compares anything else one by one."""
    shown = len(str(values))
    kinds = set(map(type, values)) - {type(None)}
    if kinds <= {str} or (
        len(values) > 1 and kinds == {int} and all(number_weight(v) == 1 for v in values if v)
    ):
        return Work(visits=2, scalars=1, errors=1, shown=shown)
    visits = scalars = containers = 0
    for value in values:
        if isinstance(value, dict | list):
            containers += 7 + 3 * max(map(number_weight, _leaves(value)))
        else:
            visits += 7 + 3 * number_weight(value)
            scalars += 3
    return Work(visits, scalars, containers, errors=1, shown=shown)


def _leaves(value: Any) -> list[Any]:
    """All values within a value, itself included."""
    found = [value]
    for item in found:
        if isinstance(item, dict | list):
            found.extend(values_of(item))
    return found
