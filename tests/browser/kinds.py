"""Schemas for forms: as pydantic writes them, by hand, and hostile."""

from __future__ import annotations

import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field


class Sphere(BaseModel):
    """A ball."""

    kind: Literal["sphere"] = "sphere"
    radius: float = Field(1.0, gt=0, le=10, description="In ångström.")


class Box(BaseModel):
    """A cuboid."""

    kind: Literal["box"] = "box"
    edges: tuple[float, float, float] = (1, 2, 3)


class Node(BaseModel):
    """A node of a tree, which holds others."""

    name: str
    children: list[Node] = []
    parent: Node | None = None


class Inner(BaseModel):
    """A nested model."""

    label: str = Field(min_length=2, max_length=20)
    weight: float = 1.5


class Everything(BaseModel):
    """Each kind of field once."""

    angle: float = Field(90.0, ge=-360, le=360, description="Degrees.")
    seed: int = 12345678901234567890
    word: str
    note: str | None = None
    axis: Literal["x", "y", "z"] = "z"
    verbose: bool = False
    maybe: bool | None = None
    inner: Inner
    shape: Sphere | Box = Field(discriminator="kind")
    either: int | str = 3
    tags: list[str] = ["a", "b"]
    charges: dict[str, int] = {"H": 1}
    day: datetime.date = datetime.date(2026, 1, 2)
    tree: Node | None = None


EVERYTHING: dict[str, Any] = Everything.model_json_schema()

#: Texts of a schema that would run scripts if a page took them for markup.
MARKUP = "<img src=x onerror=hacked()>"
HOSTILE: dict[str, Any] = {
    "type": "object",
    "title": MARKUP,
    "description": f"<script>hacked()</script> <a href='javascript:hacked()'>link</a> {MARKUP}",
    "x-format": "nav",
    "properties": {
        MARKUP: {"type": "string", "default": MARKUP, "description": MARKUP},
        "__proto__": {"type": "integer", "title": f"{{{{ value }}}} {MARKUP}", "default": 1},
        "constructor": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.5},
        "a/b~c": {"enum": ["<b>bold</b>", "&lt;"], "default": "&lt;"},
        "toString": {"type": "object", "properties": {"x": {"const": MARKUP}}},
        "pattern": {"type": "string", "pattern": "(a+)+$", "default": "a" * 40},
    },
    "additionalProperties": {"type": "string", "title": MARKUP},
    "default": {MARKUP: MARKUP},
}


def deep(levels: int) -> dict[str, Any]:
    """A schema of nested objects that are all required."""
    schema: dict[str, Any] = {"type": "string", "default": "x"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


#: Two required branches at each of 40 levels: 2^40 fields, if a page made them all.
EXPLOSIVE: dict[str, Any] = {
    "type": "object",
    "properties": {"root": {"$ref": "#/$defs/n0"}},
    "required": ["root"],
    "$defs": {
        f"n{level}": {
            "type": "object",
            "properties": {side: {"$ref": f"#/$defs/n{level + 1}"} for side in ("l", "r")},
            "required": ["l", "r"],
        }
        for level in range(40)
    }
    | {"n40": {"type": "string"}},
}
#: Nobody can satisfy it, and a page that follows it never ends.
ENDLESS: dict[str, Any] = {
    "type": "object",
    "properties": {"next": {"$ref": "#"}},
    "required": ["next"],
}
MANY: dict[str, Any] = {
    "type": "object",
    "properties": {f"p{number}": {"type": "integer"} for number in range(1000)},
}
DRAFT_7: dict[str, Any] = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "definitions": {"size": {"type": "integer", "title": "Size", "default": 4}},
    "type": "object",
    "properties": {
        "size": {"allOf": [{"$ref": "#/definitions/size"}], "description": "Of the box."},
        "pair": {
            "type": "array",
            "items": [{"type": "integer"}, {"type": "string"}],
            "additionalItems": False,
            "default": [1, "one"],
        },
        "spot": {"type": "array", "items": [{"type": "number"}], "additionalItems": False},
        "kind": {"type": ["string", "null"], "default": None},
        "colour": {
            "oneOf": [{"const": "#f00", "title": "Red"}, {"const": "#0f0", "title": "Green"}],
            "default": "#0f0",
        },
    },
}
