"""Hook of MkDocs: parts of the reference made from the code and from docs/asyncapi.yml."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from zndraw_joblib.exceptions import PROBLEM_TYPES

DOCS = Path(__file__).parent / "docs"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace each mark by what it names."""
    for name, make in MADE.items():
        mark = f"<!-- made: {name} -->"
        if mark in markdown:
            markdown = markdown.replace(mark, make())
    return markdown


def problems() -> str:
    """A table of the problem types."""
    rows = ["| slug | status | title | meaning |", "|---|---|---|---|"]
    for slug, problem in sorted(PROBLEM_TYPES.items()):
        rows.append(f"| `{slug}` | {problem.status} | {problem.title} | {problem.description()} |")
    return "\n".join(rows)


def asyncapi() -> str:
    """The channels of docs/asyncapi.yml with their messages and parameters, and the schemas."""
    path = DOCS / "asyncapi.yml"
    document = yaml.safe_load(path.read_text())
    parts = [f"[Download it](../{path.name}).", document.get("info", {}).get("description", "")]
    for name, channel in document["channels"].items():
        parts += [f"## {channel.get('title', name)}", f"`{channel['address']}`"]
        parts.append(channel.get("description", ""))
        query = channel.get("bindings", {}).get("ws", {}).get("query", {}).get("properties", {})
        rows = [
            f"| `{shown}` | {_one_line(resolved(document, about).get('description', ''))} |"
            for shown, about in [
                *channel.get("parameters", {}).items(),
                *((f"?{name}=", about) for name, about in query.items()),
            ]
        ]
        if rows:
            parts.append("\n".join(["| parameter | meaning |", "|---|---|", *rows]))
        for key, message in channel.get("messages", {}).items():
            parts += _message(key, resolved(document, message))
    if schemas := document.get("components", {}).get("schemas", {}):
        parts.append("## Schemas")
        for name, schema in schemas.items():
            parts += [f"### {name} {{#schema-{name.lower()}}}", _json(schema)]
    return "\n\n".join(part for part in parts if part)


def _message(key: str, message: dict[str, Any]) -> list[str]:
    payload = message.get("payload", {})
    name = payload.get("$ref", "").rpartition("/")[2]
    return [
        f"### {message.get('title', message.get('name', key))}",
        message.get("summary", ""),
        message.get("description", ""),
        f"Schema: [{name}](#schema-{name.lower()})" if name else _json(payload),
    ]


def _json(value: Any) -> str:
    return f"```json\n{json.dumps(value, indent=2, ensure_ascii=False)}\n```"


def resolved(document: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    """The value that a reference within the document points at, or the value itself."""
    while "$ref" in value:
        target: Any = document
        for token in value["$ref"].removeprefix("#/").split("/"):
            target = target[token.replace("~1", "/").replace("~0", "~")]
        value = target
    return value


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


MADE = {"problems": problems, "asyncapi": asyncapi}
