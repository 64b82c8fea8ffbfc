"""Accepts or refuses a job's schema, and compiles it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs

from zndraw_joblib.exceptions import FieldError, json_pointer
from zndraw_joblib.schemas.bound import MAX_STEPS, MAX_WORK, Bound
from zndraw_joblib.schemas.patterns import MAX_STATES, OPTIONS, measure
from zndraw_joblib.schemas.subschemas import APPLICATORS, Document, Subschema
from zndraw_joblib.text import Message
from zndraw_joblib.translation import library_message

#: The drafts that `$schema` may name. The first applies to a schema without `$schema`.
DIALECTS = (
    "https://json-schema.org/draft/2020-12/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "http://json-schema.org/draft-07/schema",
)
#: Most steps of recursion to find the children that a subschema evaluates, because the engine fills
#: 512 KiB of stack when it compiles 110 of them.
MAX_EVALUATED_STEPS = 60
#: Most visits of subschemas on these ways, because the engine compiles a subschema at each visit.
MAX_EVALUATED_VISITS = 20_000
#: Most characters of a message.
MAX_MESSAGE = 180

#: The base of all references, so that none of them is an address to fetch.
_BASE_URI = "urn:zndraw-joblib:schema"
_MASK = "the value"


def schema_errors(schema: Any, *, max_bytes: int, max_depth: int) -> list[FieldError]:
    """The reasons to refuse a job's schema, with pointers into it; empty for an accepted schema.

    `max_bytes` limits its compact JSON text, `max_depth` its nesting.
    """
    if detail := _size_error(schema, max_bytes, max_depth):
        return [FieldError(detail)]
    try:
        compile_schema(schema)
    except SchemaRefused as refusal:
        return refusal.errors
    return []


class SchemaRefused(Exception):
    """The schema is not accepted."""

    def __init__(self, *errors: FieldError) -> None:
        self.errors = list(errors)
        super().__init__(self.errors[0].detail)


def compile_schema(schema: dict[str, Any]) -> tuple[jsonschema_rs.Validator, Bound, bool]:
    """Compile a schema; returns the engine's validator, the bound on its work, and a flag.

    The flag is whether a keyword `uniqueItems` is true, for which `read_levels` reads more.

    Raises
    ------
    SchemaRefused
        The schema is not accepted.
    """
    dialect = schema.get("$schema", DIALECTS[0])
    if not isinstance(dialect, str) or dialect.rstrip("#") not in DIALECTS:
        raise SchemaRefused(
            FieldError(
                Message("$schema must be one of {dialects}.", dialects=", ".join(DIALECTS)),
                "/$schema",
            )
        )
    document = Document(schema)
    if errors := [*document.errors, *_keyword_errors(document, dialect)]:
        raise SchemaRefused(*errors)
    bound = Bound(document)
    if bound.steps > MAX_STEPS:
        detail = Message(
            "Subschemas and references must not nest deeper than {limit}.", limit=MAX_STEPS
        )
        raise SchemaRefused(FieldError(detail))
    if bound.visits > MAX_WORK:
        raise SchemaRefused(
            FieldError(Message("The schema grows too large when its references are followed."))
        )
    if bound.evaluated_steps > MAX_EVALUATED_STEPS or bound.evaluated_visits > MAX_EVALUATED_VISITS:
        raise SchemaRefused(
            FieldError(Message("An unevaluated keyword has too many subschemas beside it."))
        )
    unique = any(subschema.schema.get("uniqueItems") is True for subschema in document.subschemas)
    return _engine(schema), bound, unique


def _engine(schema: dict[str, Any]) -> jsonschema_rs.Validator:
    # Without `$id`, because references must lead into this document and not to the address there.
    schema = {keyword: value for keyword, value in schema.items() if keyword != "$id"}
    try:
        return jsonschema_rs.validator_for(
            schema,
            offline=True,
            base_uri=_BASE_URI,
            validate_formats=False,
            mask=_MASK,
            pattern_options=OPTIONS,
        )
    except jsonschema_rs.ValidationError as error:
        detail = library_message(error.message[:MAX_MESSAGE])
        raise SchemaRefused(FieldError(detail, json_pointer(error.instance_path))) from None
    except jsonschema_rs.ReferencingError as error:
        raise SchemaRefused(FieldError(library_message(error.message[:MAX_MESSAGE]))) from None


def _keyword_errors(document: Document, dialect: str) -> Iterator[FieldError]:
    """The errors of keywords that do not apply subschemas, and of patterns.

    The engine itself reports only the first error, and may build a list of thousands for it.
    """
    states = 0
    for subschema in document.subschemas:
        keywords = {
            keyword: value
            for keyword, value in subschema.schema.items()
            if keyword not in APPLICATORS
        }
        if not jsonschema_rs.meta.is_valid(keywords | {"$schema": dialect}):
            for keyword, value in keywords.items():
                if not jsonschema_rs.meta.is_valid({"$schema": dialect, keyword: value}):
                    yield FieldError(
                        Message("{keyword} does not take such a value.", keyword=keyword),
                        f"{subschema.pointer}/{keyword}",
                    )
            continue
        for keyword, text in _patterns(subschema):
            pattern = measure(text)
            states += pattern.states + 20
            error = pattern.error
            if states > MAX_STATES:
                error = Message("is too large, together with those before it")
            if error:
                detail = Message(
                    "The pattern {pattern} {error}.", pattern=repr(text[:60]), error=error
                )
                yield FieldError(detail, f"{subschema.pointer}/{keyword}")


def _patterns(subschema: Subschema) -> Iterator[tuple[str, str]]:
    if isinstance(text := subschema.schema.get("pattern"), str):
        yield "pattern", text
    if isinstance(texts := subschema.schema.get("patternProperties"), dict):
        for text in texts:
            yield "patternProperties", text


def _size_error(schema: Any, max_bytes: int, max_depth: int) -> str | None:
    if not isinstance(schema, dict):
        return Message("The schema must be an object.")
    stack: list[tuple[Any, int]] = [(schema, 1)]
    while stack:
        item, depth = stack.pop()
        if isinstance(item, dict | list):
            if depth > max_depth:
                return Message(
                    "The schema must not be nested deeper than {limit}.", limit=max_depth
                )
            children = item.values() if isinstance(item, dict) else item
            stack.extend((child, depth + 1) for child in children)
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        size = len(text.encode())
    except (TypeError, ValueError):
        return Message("The schema is not JSON.")
    if size > max_bytes:
        return Message(
            "The schema has {size} bytes of JSON; at most {limit} are accepted.",
            size=size,
            limit=max_bytes,
        )
    return None
