"""An upper bound on the work of checking a payload, computed before the check begins.

The engine visits pairs of a subschema and a value of the payload. From the schema alone `Bound`
computes the most work that one value `d` levels below the root can cause. Keywords that apply
subschemas to the same value (``allOf``, ``$ref``) add up. Of keywords that exclude each other for a
child (``properties``) the greatest counts; keywords that overlap (``patternProperties``,
``contains``) add up. The work of a payload is the sum over its levels of this work, times the
values of the level. Work is counted in units of 20 ns, estimated high from measurements of each
keyword.
"""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock
from typing import Any, NamedTuple

from zndraw_joblib.schemas.levels import Level, number_weight
from zndraw_joblib.schemas.patterns import measure
from zndraw_joblib.schemas.subschemas import APPLICATORS, Document

#: Most work of one payload, 0.25 s.
MAX_WORK = 12_500_000
#: Most steps of recursion; 700 fill 512 KiB of stack when all errors are collected.
MAX_STEPS = 512
#: Most additions of `Work` of one bound, which take 0.1 s.
MAX_ADDITIONS = 200_000
#: Work of an error as a Python object, of an error within another one, and of each value that is
#: copied into an error.
_ERROR, _BRANCH_ERROR, _COPY = 500, 300, 8
#: Work of the backtracking of one match of a pattern with look-around.
_LOOK_AROUND = 5000

_ASSERTIONS = {"type", "minLength", "maxLength", "minItems", "maxItems", "$ref", "$dynamicRef"} | {
    *("minProperties", "maxProperties", "$recursiveRef")
}
_NUMERIC = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}


class Work(NamedTuple):
    """Work for one value of a payload. Each part is multiplied by another property of its level."""

    #: Visits of the value; multiplied by the number of values.
    visits: int = 0
    #: Comparisons of numbers and matches of patterns; by the digits and characters of scalars.
    scalars: int = 0
    #: Comparisons with arrays and objects; by the values in them.
    containers: int = 0
    #: Matches of patterns with look-around, which read a text once for each of its characters.
    look_arounds: int = 0
    #: Errors in a list of all errors.
    errors: int = 0
    #: Characters of constants that these errors show.
    shown: int = 0
    #: Errors within `anyOf` and `oneOf`, because even the first error contains them.
    branch_errors: int = 0
    #: Characters of constants that these show.
    branch_shown: int = 0
    #: Steps of recursion from the root.
    steps: int = 0


NOTHING = Work()


def added(works: list[Work]) -> Work:
    """The work of applying all of these subschemas to a value, and one step of recursion."""
    if len(works) == 1:
        return works[0]._replace(steps=works[0].steps + 1)
    columns = list(zip(*works, strict=True))
    return Work._make([*map(sum, columns[:-1]), max(columns[-1]) + 1])


def greatest(works: list[Work]) -> Work:
    """The most work of applying one of these subschemas to a value."""
    return works[0] if len(works) == 1 else Work._make(map(max, zip(*works, strict=True)))


class _Node:
    """A subschema, or the pass that finds which children the subschema evaluates."""

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
        #: All nodes; a node comes after the nodes that it applies to the same value.
        self._nodes: list[_Node] = []
        #: By distance from the root: the work of each node by its id, nodes without work left out.
        self._levels: list[dict[int, Work]] = []
        self._additions = 0
        self._lock = Lock()
        nodes = {id(subschema): _Node(_own_work(subschema.schema)) for subschema in document.order}
        self._root = nodes[id(document.root)]
        #: For keywords such as `unevaluatedItems` the engine makes a second pass, which finds the
        #: children that each subschema evaluates: the most steps and all visits of it.
        self.evaluated_steps = self.evaluated_visits = 0
        #: A node for each subschema in that pass.
        evaluations = {}
        if any(subschema.has_unevaluated for subschema in document.order):
            evaluations = {key: _Node(Work(visits=4)) for key in nodes}
        for subschema in document.order:
            node, evaluation = nodes[id(subschema)], evaluations.get(id(subschema))
            node.in_place = [nodes[id(child)] for child in subschema.in_place]
            node.branches = [nodes[id(child)] for child in subschema.branches]
            node.exclusive = [nodes[id(child)] for child in subschema.exclusive]
            node.overlapping = [nodes[id(child)] for child in subschema.overlapping]
            if keys := [
                _pattern_work(text) for text in subschema.schema.get("patternProperties", ())
            ]:
                node.overlapping.append(self._append(_Node(added([Work(visits=len(keys)), *keys]))))
            if evaluation is not None:
                # The engine checks each of these first, and then finds the children it evaluates.
                evaluation.in_place = [*node.in_place, *node.branches]
                for child in (*subschema.in_place, *subschema.branches):
                    evaluation.in_place.append(evaluations[id(child)])
                key = self._append(_Node(Work(visits=4)))
                evaluation.overlapping = [key, *node.overlapping]
                self._append(evaluation)
                if subschema.has_unevaluated:
                    node.in_place.append(evaluation)
            self._append(node)
        self._alive = self._nodes
        top = self.work_at(0)
        #: Visits and steps of a payload without children.
        self.visits, self.steps = (top.visits, top.steps) if top else (0, 0)
        for subschema in document.order:
            if subschema.has_unevaluated:
                work = self._levels[0][id(evaluations[id(subschema)])]
                self.evaluated_steps = max(self.evaluated_steps, work.steps)
                self.evaluated_visits += work.visits

    def _append(self, node: _Node) -> _Node:
        self._nodes.append(node)
        return node

    def work_at(self, distance: int) -> Work | None:
        """The most work of one value that is `distance` levels below the root.

        None if the computation would take too long, for a large schema and a deep payload.
        """
        with self._lock:
            while len(self._levels) <= distance:
                if self._additions > MAX_ADDITIONS:
                    return None
                self._levels.append(self._next_level())
            return self._levels[distance].get(id(self._root), NOTHING)

    def _next_level(self) -> dict[int, Work]:
        """The work of each node at the level below the last one computed."""
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
                if exclusive := [above[id(c)] for c in node.exclusive if id(c) in above]:
                    works.append(greatest(exclusive))
                    self._additions += len(exclusive)
            if works:
                self._additions += 1 + len(works)
                alive.append(node)
                level[id(node)] = added(works)
        # Without the nodes that have no work here, because they have none further down.
        self._alive = alive
        return level

    def cost(self, levels: Iterable[Level]) -> Cost | None:
        """The most work of a payload with these levels; None if that takes too long to compute."""
        valid = errors = branch_errors = steps = 0
        for distance, level in enumerate(levels):
            work = self.work_at(distance)
            if work is None:
                return None
            number, reading = level.texts
            valid += work.visits * level.values + work.scalars * level.scalars
            valid += work.containers * (level.containers + level.collisions)
            valid += work.look_arounds * (number * _LOOK_AROUND + reading)
            # Each error contains a copy of the invalid value with all values below it.
            copy = level.size * _COPY
            errors += work.errors * (level.values * _ERROR + copy)
            errors += work.shown * level.values
            branch_errors += work.branch_errors * (level.values * _BRANCH_ERROR + copy)
            branch_errors += work.branch_shown * level.values
            steps = max(steps, work.steps)
        return Cost(valid, errors, branch_errors, steps)


class Cost(NamedTuple):
    """Work of one check: of the verdict, of a list of all errors, of the first error; and steps."""

    verdict: int
    errors: int
    first_error: int
    steps: int


def _own_work(schema: dict[str, Any]) -> Work:
    """Work of the keywords of a subschema, without the work in the subschemas that they apply."""
    works = [Work(visits=2)]
    for keyword, value in schema.items():
        works.append(_keyword_work(keyword, value))
    return added(works)


def _keyword_work(keyword: str, value: Any) -> Work:
    if keyword in _NUMERIC:
        scalars = 3 if isinstance(value, float) else 1 + (keyword == "multipleOf")
        return Work(visits=2 + number_weight(value), scalars=scalars, errors=1)
    if keyword in ("const", "enum"):
        return _constants_work(value if keyword == "enum" else [value])
    if keyword == "pattern":
        return added([Work(visits=1, errors=1), _pattern_work(value)])
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


def _pattern_work(text: str) -> Work:
    pattern = measure(text)
    return Work(scalars=1 + pattern.states // 50, look_arounds=pattern.look_arounds)


def _constants_work(values: list[Any]) -> Work:
    """Work of `const` and `enum`, which look texts and small integers up and compare the rest."""
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
            found.extend(item.values() if isinstance(item, dict) else item)
    return found
