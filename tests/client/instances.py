"""Instances of models: `SENT` arrive as they are, `REFUSED` are refused at submit."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel

from tests.client.kinds import (
    Aliased,
    Base64,
    Box,
    ByName,
    Camel,
    Choices,
    Computed,
    Counter,
    Derived,
    Frozen,
    Hidden,
    Holder,
    Infinite,
    InfiniteDefault,
    Loose,
    Mapping,
    NameOnly,
    Nested,
    Open,
    OpenPoints,
    Owner,
    Packed,
    PathOnly,
    Plain,
    Point,
    Radians,
    RequiredAlias,
    RootEither,
    RootList,
    Secretive,
    SerializationAlias,
    Serialized,
    SerializedByAlias,
    Strict,
    Tree,
    TwoAliases,
    TwoGenerators,
    ValidationAlias,
    Values,
    WithCallable,
    WithJson,
    WithMatrix,
    Wrapped,
)

camel = Camel(nSteps=7)
upper = TwoGenerators.model_validate({"N_STEPS": 8, "INNER": {"nSteps": 9}})

SENT: list[BaseModel] = [
    Aliased(nSteps=5000),
    RequiredAlias(nSteps=3),
    ValidationAlias.model_validate({"steps in": 3}),
    SerializationAlias(n_steps=3),
    TwoAliases.model_validate({"in": 1, "a": 2}),
    Choices.model_validate({"count": 1, "b": 2, "third": 3}),
    ByName(n_steps=3),
    NameOnly(n_steps=3),
    SerializedByAlias(n_steps=3),
    camel,
    upper,
    Nested.model_validate(
        {
            "one": upper,
            "many": [{"in": 1, "a": 2}, {"in": 3, "a": 4}],
            "by_key": {2: {"nSteps": 5}, 1: {"nSteps": 6}},
            "pair": (camel, {"steps in": 7}),
            "choice": {"steps in": 8},
            "point": {"x": 1, "Y": 2},
            "options": {"size": 1, "theName": "n"},
            "root": [{"steps in": 9}],
        }
    ),
    Computed(width=3),
    WithJson(numbers="[1, 2]", anything='{"a": [1]}', inner='{"nSteps": 4}'),
    Box[int](content=1),
    Box[dict[str, Camel]](content={"a": camel}),
    Box[Box[date]](content=Box(content=date(2026, 1, 1))),
    Owner.model_validate(
        {"pet": {"kind": "dog", "yearsLeft": 9}, "other": {"kind": "cat", "livesLeft": 8}}
    ),
    Mapping({"a": 1}),
    Wrapped(camel),
    Tree(Label="a", Children=[Tree(Label="b", Children=[Tree(Label="c")])]),
    Frozen(number=3),
    Open.model_validate({"knownField": 2, "other_field": [1], "third": {"a": None}}),
    OpenPoints.model_validate({"p": {"nSteps": 4}}),
    Base64(data=bytes(range(256))),
    Values(),
    Strict(),
    Serialized(number=255, secret="open"),
    Packed(x=1, y=2),
    WithMatrix(matrix=[[1.0, 2.0]]),
    Counter(),
    Loose(value={"a": [1, 2.5, "x", None, True]}, sequence=[1], union=Path("a"), rounded=1.25),
    RootEither({"a": 1}),
]
for model in SENT:
    if isinstance(model, Frozen):
        model._cache["used"] = 1

#: Instances that no worker would get as they are, and texts of the errors.
REFUSED: list[tuple[BaseModel, str]] = [
    (Infinite(cutoff=float("inf")), "cutoff has no form in JSON"),
    (Infinite(cutoff=float("nan")), "cutoff has no form in JSON"),
    (Secretive(token="s"), "token is a secret"),
    (Secretive(key=b"s"), "key is a secret"),
    (Holder(base=Derived(b=3)), "base would change from Derived"),
    (Holder(any_base=Derived(b=3)), "any_base would change from Derived"),
    (PathOnly.model_validate({"deep": {"steps": 7}}), "n_steps would change from 7"),
    (Radians(angle=180), "angle would change from 3.14"),
    (Loose(value=datetime(2026, 1, 1)), "value would change from datetime"),
    (Loose(value={"a": [(1, 2)]}), r"value.a\[0\] would change from \(1, 2\) \(tuple\)"),
    (Loose(value={1: 2}), "value would change from {1: 2}"),
    (Loose(value=object()), "value has no form in JSON"),
    (Loose(value=float("inf")), "value would change from inf"),
    (Loose(value="\ud800"), "no form in JSON"),
    (Loose(sequence=(1, 2)), r"sequence would change from \(1, 2\) \(tuple\)"),
    (Loose(union="a"), "union would change from 'a'"),
    (Loose(data=b"\xff"), "data has no form in JSON"),
    (Loose(rounded=1.256), "rounded would change from 1.256"),
    (Loose.model_construct(tags=cast("Any", 3)), "worker would refuse it, tags: "),
    (Hidden(password="p"), "password would change from 'p'"),
    (RootEither([1]), "a payload is a JSON object"),
]

#: Classes that `register` refuses, and texts of the errors.
UNSUITABLE: list[tuple[type, str]] = [
    (RootList, "JSON type array"),
    (WithCallable, "has no JSON Schema"),
    (InfiniteDefault, "has no JSON Schema"),
    (Plain, "is not a class derived from"),
    (Point, "is not a class derived from"),
]
