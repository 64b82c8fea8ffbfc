"""Rows of a statement written by hand, without a queryset's machinery."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from operator import attrgetter, itemgetter
from typing import Any, TypeVar, overload

from django.db import connections, models
from django.db.models.base import ModelState

from zndraw_joblib.storage.fields import json_loads

M = TypeVar("M", bound=models.Model)


class Reader:
    """Knows a model's columns in order and how its fields convert what the database returns."""

    def __init__(self, model: type[models.Model], using: str) -> None:
        connection = connections[using]
        table = connection.ops.quote_name(model._meta.db_table)
        self.model: Any = model
        self.using = using
        self.names: list[str] = []
        columns: list[str] = []
        #: By the names of fields what converts their values, where they are not null.
        self.converters: dict[str, Callable[[Any], Any]] = {}
        fields: Any = model._meta.concrete_fields
        for field in fields:
            self.names.append(field.attname)
            columns.append(f"{table}.{connection.ops.quote_name(field.column)}")
            if converter := _converter(field, using):
                self.converters[field.attname] = converter
        self.columns = ", ".join(columns)

    def instance(self, row: Sequence[Any], *extra: str) -> Any:
        """An instance of the row; columns behind the model's are set as the attributes `extra`."""
        values: dict[str, Any] = dict(zip((*self.names, *extra), row, strict=True))
        for name, convert in self.converters.items():
            if values[name] is not None:
                values[name] = convert(values[name])
        return stored(self.model, self.using, values)


class Rows(Sequence[M]):
    """Rows that a statement returned as instances, which are made when somebody looks at one.

    Who needs nothing but some values has them from `columns` without.
    """

    def __init__(self, reader: Reader, rows: Sequence[Sequence[Any]], *extra: str) -> None:
        self._reader = reader
        self._rows = rows
        self._extra = extra

    @cached_property
    def _instances(self) -> list[M]:
        return [self._reader.instance(row, *self._extra) for row in self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> M: ...
    @overload
    def __getitem__(self, index: slice) -> list[M]: ...
    def __getitem__(self, index: int | slice) -> M | list[M]:
        return self._instances[index]

    def __iter__(self) -> Iterator[M]:
        return iter(self._instances)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._instances == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._instances)

    def columns(self, names: Sequence[str]) -> Iterable[Sequence[Any]]:
        """Two or more values of each row; None for what was not selected."""
        known = (*self._reader.names, *self._extra)
        rows = self._rows
        if not set(names).issubset(known):
            rows = [(*row, None) for row in rows]
        pick = itemgetter(*(known.index(name) if name in known else -1 for name in names))
        picked = map(pick, rows)
        converters = self._reader.converters
        places = [
            (place, converters[name]) for place, name in enumerate(names) if name in converters
        ]
        return (_converted(values, places) for values in picked) if places else picked


def _converted(
    values: Sequence[Any], converters: Iterable[tuple[int, Callable[[Any], Any]]]
) -> Sequence[Any]:
    converted = list(values)
    for place, convert in converters:
        if converted[place] is not None:
            converted[place] = convert(converted[place])
    return converted


def columns(instances: Sequence[Any], *names: str) -> Iterable[Sequence[Any]]:
    """Two or more attributes of each instance, from their `Rows` where they are such."""
    if isinstance(instances, Rows):
        return instances.columns(names)
    return map(attrgetter(*names), instances)


def stored(model: type[models.Model], using: str | None, values: dict[str, Any]) -> Any:
    """An instance that a database holds, which keeps this dict of its attributes.

    As `Model.from_db` does, at a tenth of its cost: without `__init__` and its signals.
    """
    state = values["_state"] = ModelState()
    state.adding, state.db = False, using
    instance = model.__new__(model)
    instance.__dict__ = values
    return instance


@lru_cache(maxsize=64)
def reader(model: type[models.Model], using: str) -> Reader:
    """The reader of a model on a database."""
    return Reader(model, using)


def _converter(field: Any, using: str) -> Callable[[Any], Any] | None:
    if type(field) is models.JSONField and field.decoder is None:
        return json_loads
    connection = connections[using]
    column = field.get_col(field.model._meta.db_table)
    chain = connection.ops.get_db_converters(column) + field.get_db_converters(connection)
    if not chain:
        return None

    def convert(value: Any) -> Any:
        for step in chain:
            value = step(value, column, connections[using])
        return value

    return convert
