"""Checking payloads against a schema by the keywords of `jsonschema`, under a budget of work.

`jsonschema` advises to compose its validators rather than to derive from them. This is one that
prepares each subschema once, stays itself below a `$schema`, asks no registry, and counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from jsonschema import Draft202012Validator

from zndraw_joblib.schemas.keywords import ANY, KEYWORDS, PREPARED, Fault, Faults, never
from zndraw_joblib.schemas.patterns import Matcher

#: Work that one payload may take, in tenths of a microsecond of a quiet core, estimated high.
MAX_WORK = 750_000

_NONE: frozenset[type] = frozenset()


class OutOfWork(Exception):
    """The budget is used up."""


class Budget:
    """Work that is left, in tenths of a microsecond."""

    __slots__ = ("left",)

    def __init__(self, left: int = MAX_WORK) -> None:
        self.left = left

    def charge(self, amount: int) -> None:
        """Take work off.

        Raises
        ------
        OutOfWork
            So much is not left.
        """
        self.left -= amount
        if self.left < 0:
            raise OutOfWork


class _Plan(NamedTuple):
    """A subschema made ready: what to call, what that costs, and what is valid at a glance."""

    steps: tuple[tuple[Callable[..., Faults], Any], ...]
    cost: int
    plain: frozenset[type]


class Checker:
    """One schema, made ready piece by piece as payloads get there. Threads may share it."""

    def __init__(self, schema: Any) -> None:
        self.schema = schema
        self._plans: dict[int, _Plan] = {}

    def faults(self, payload: Any, budget: Budget) -> Iterator[Fault]:
        """What is wrong with a payload, lazily.

        Raises
        ------
        OutOfWork
            The budget does not suffice.
        """
        return Run(self, budget).descend(payload, self.schema)

    def plan(self, schema: Any) -> _Plan:
        """How to check a subschema."""
        # Subschemas live as long as the schema, so that their ids are theirs.
        plan = self._plans.get(id(schema))
        if plan is None:
            plan = self._plans[id(schema)] = self._prepare(schema)
        return plan

    def _prepare(self, schema: Any) -> _Plan:
        if schema is True:
            return _Plan((), 1, ANY)
        if schema is False:
            return _Plan(((never, None),), 1, _NONE)
        steps, cost, plain = [], 4, ANY
        for keyword, value in schema.items():
            if keyword not in KEYWORDS:
                continue
            prepare = PREPARED.get(keyword)
            steps.append(
                (KEYWORDS[keyword], prepare(value, schema, self.schema) if prepare else value)
            )
            plain = _NONE
            if len(steps) > 1:
                pass
            elif keyword == "type":
                plain = steps[0][1].kinds
            elif keyword == "anyOf":
                plain = _NONE.union(*(self.plan(branch).plain for branch in value))
            cost += 2
            if isinstance(value, dict | list) and keyword not in ("const", "enum"):
                cost += 4 + len(value)
        return _Plan(tuple(steps), cost, plain)


class Run:
    """One payload on its way; what `jsonschema` hands to its keywords as the validator."""

    __slots__ = ("_plan", "charge", "matches")

    def __init__(self, checker: Checker, budget: Budget) -> None:
        self._plan = checker.plan
        self.charge = budget.charge
        self.matches = Matcher(budget.charge).matches

    is_type = Draft202012Validator.TYPE_CHECKER.is_type

    def descend(
        self,
        instance: Any,
        schema: Any,
        path: str | int | None = None,
        schema_path: str | int | None = None,
    ) -> Iterator[Fault]:
        """What is wrong with a part of the payload; `path` leads to it from where we are."""
        plan = self._plan(schema)
        self.charge(plan.cost)
        for keyword, value in plan.steps:
            for fault in keyword(self, value, instance, schema) or ():
                self.charge(8)
                if path is not None:
                    fault.path.append(path)
                yield fault

    def valid(self, instance: Any, schema: Any) -> bool:
        """Whether nothing is wrong; stops at the first fault."""
        plan = self._plan(schema)
        self.charge(plan.cost)
        for keyword, value in plan.steps:
            for _ in keyword(self, value, instance, schema) or ():
                self.charge(8)
                return False
        return True

    def descend_each(self, parts: Iterable[tuple[str | int, Any]], schema: Any) -> Iterator[Fault]:
        """`descend` into several parts with the same subschema."""
        steps, cost, plain = self._plan(schema)
        for path, instance in parts:
            if type(instance) in plain:
                continue
            self.charge(cost)
            for keyword, value in steps:
                for fault in keyword(self, value, instance, schema) or ():
                    self.charge(8)
                    fault.path.append(path)
                    yield fault

    def plain(self, schema: Any) -> frozenset[type]:
        """Types of which anything is valid, without a look at it."""
        return self._plan(schema).plain
