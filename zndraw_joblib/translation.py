"""Shows messages in the language of the request: all of an answer, or none of it.

Libraries give their messages as English text only. `library_message` finds the template and the
values of those that it knows; an answer with another one is English as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

from django.utils.translation import get_language, gettext, override

from zndraw_joblib.text import InActiveLanguage, Message

ENGLISH = "en"
#: Languages with a catalogue in `locale/`, and English.
LANGUAGES = (ENGLISH, "de")

#: Templates of messages of jsonschema-rs, pydantic and this app's validators.
LIBRARY_TEMPLATES = (
    # jsonschema-rs
    "{property} is a required property",
    "{expected} was expected",
    "{schema} is not allowed for the value",
    "the value has less than 1 property",
    "the value has less than {limit} properties",
    "the value has more than 1 property",
    "the value has more than {limit} properties",
    "the value has less than 1 item",
    "the value has less than {limit} items",
    "the value has more than 1 item",
    "the value has more than {limit} items",
    "the value has non-unique elements",
    "the value is shorter than 1 character",
    "the value is shorter than {limit} characters",
    "the value is longer than 1 character",
    "the value is longer than {limit} characters",
    "{name} is longer than {limit} characters",
    "{name} is shorter than {limit} characters",
    "the value does not match {pattern}",
    "{name} does not match {pattern}",
    "the value is less than or equal to the minimum of {limit}",
    "the value is greater than or equal to the maximum of {limit}",
    "the value is less than the minimum of {limit}",
    "the value is greater than the maximum of {limit}",
    "the value is not a multiple of {number}",
    "the value is not of type {type}",
    "the value is not of types {types}",
    "the value is not one of {options}",
    "{name} is not one of {options}",
    "None of the value are valid under the given schema",
    "the value does not contain items matching the given schema",
    "the value is valid under more than one of the schemas listed in the 'oneOf' keyword",
    "the value is not valid under any of the schemas listed in the 'oneOf' keyword",
    "the value is not valid under any of the schemas listed in the 'anyOf' keyword",
    # pydantic
    "Field required",
    "Input should be a valid string",
    "Input should be a valid integer",
    "Input should be a valid number",
    "Input should be a valid boolean",
    "Input should be greater than or equal to {limit}",
    "Input should be less than or equal to {limit}",
    "Input should be greater than {limit}",
    "Input should be less than {limit}",
    "Input should be a valid UUID, {reason}",
    "Input should be '{options}'",
    "String should have at least {limit} character",
    "String should have at least {limit} characters",
    "String should have at most {limit} character",
    "String should have at most {limit} characters",
    "List should have at least {limit} item after validation, not {number}",
    "List should have at least {limit} items after validation, not {number}",
    "List should have at most {limit} item after validation, not {number}",
    "List should have at most {limit} items after validation, not {number}",
    # This app's own, in `api`
    "Must be a JSON object.",
    "Must be a JSON array.",
    "Must be at most {limit}.",
    "Must be a time with an offset (RFC 3339), such as 2030-01-31T12:00:00Z.",
    "Does not go beside run_at.",
    "Goes with the status {statuses} or {last} only.",
    "Goes with the status {status} only.",
)
_PLACE = re.compile(r"\\{(\w+)\\}")


@lru_cache(maxsize=1)
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple(
        (template, re.compile(_PLACE.sub(r"(?P<\1>.+)", re.escape(template)), re.DOTALL))
        for template in LIBRARY_TEMPLATES
    )


def library_message(text: str) -> Message:
    """The message that a library's English text is; one without a translation if it is unknown.

    An explanation by the library, such as why a text is no UUID, has no translation either.
    """
    for template, pattern in _patterns():
        if match := pattern.fullmatch(text):
            values: dict[str, object] = dict(match.groupdict())
            if "reason" in values:
                values["reason"] = library_message(match["reason"])
            return Message(template, **values)
    return Message("{text}", text=_Untranslatable(text))


class _Untranslatable(str):
    """A text in English that has no template."""


#: Values of a message that are shown in its language; others are data.
_TEXTS = (Message, InActiveLanguage, _Untranslatable)


def answer_language() -> str:
    """The language of this request's problems: the active one if this app ships it, or English."""
    language = _active_language()
    return language if language in LANGUAGES else ENGLISH


def in_answer_language() -> AbstractContextManager[Any]:
    """A context for the texts of Django and DRF, which have more languages than this app ships."""
    return nullcontext() if _active_language() in LANGUAGES else override(ENGLISH)


def _active_language() -> str:
    return (get_language() or ENGLISH).partition("-")[0]


def translated(texts: Sequence[str]) -> tuple[list[str], str]:
    """The texts of one answer, all in the active language or all in English; and the language."""
    language = answer_language()
    if language != ENGLISH:
        found = [_translation(text) for text in texts]
        shown = [text for text in found if text is not None]
        if len(shown) == len(found):
            return shown, language
    return [str(text) for text in texts], ENGLISH


def _translation(text: str) -> str | None:
    if isinstance(text, InActiveLanguage):
        return str(text)
    if not isinstance(text, Message):
        return None
    template = gettext(text.template)
    if template == text.template and re.search(r"\w", re.sub(r"\{\w+\}", "", template)):
        return None
    values: dict[str, object] = {}
    for name, value in text.values.items():
        shown = _translation(value) if isinstance(value, _TEXTS) else value
        if shown is None:
            return None
        values[name] = shown
    return template.format_map(values) if values else template
