"""The catalogues in `locale/` are complete, compiled, and agree with the source code."""

from __future__ import annotations

import ast
import io
import re

import pytest
from babel.messages.mofile import read_mo, write_mo
from babel.messages.pofile import read_po

from tests.messages import PACKAGE, all_messages, calls, sources
from zndraw_joblib.exceptions import PROBLEM_TYPES
from zndraw_joblib.translation import ENGLISH, LANGUAGES, library_message

REMEDY = "correct locale/*/LC_MESSAGES/django.po, then run `make messages`"
SHIPPED = [language for language in LANGUAGES if language != ENGLISH]


def catalogue(language):
    path = PACKAGE / "locale" / language / "LC_MESSAGES" / "django.po"
    return read_po(io.BytesIO(path.read_bytes()), locale=language)


def translations(catalogue):
    found = {}
    for each in filter(lambda entry: entry.id, catalogue):
        # A message with a plural has several texts, and as many translations.
        texts, strings = [
            [value] if isinstance(value, str) else value for value in (each.id, each.string)
        ]
        found |= dict(zip(texts, strings, strict=True))
    return found


def names(text):
    return sorted(re.findall(r"\{\w+\}|%\(\w+\)[sd]", text))


def test_each_catalogue_belongs_to_a_language_that_answers_have():
    assert sorted(path.name for path in (PACKAGE / "locale").iterdir()) == SHIPPED


@pytest.mark.parametrize("language", SHIPPED)
def test_every_message_is_translated_and_no_other(language):
    found = catalogue(language)
    assert set(translations(found)) == all_messages(), REMEDY
    assert [each.id for each in found if each.id and (each.fuzzy or not each.string)] == []


def test_each_error_of_our_own_that_pydantic_raises_is_found_again_by_its_text():
    """pydantic returns the text alone, without its template."""
    templates = [
        str(call.args[1].value)
        for _path, tree in sources()
        for name, call in calls(tree)
        if name == "PydanticCustomError" and isinstance(call.args[1], ast.Constant)
    ]
    assert len(templates) > 3
    texts = [re.sub(r"\{\w+\}", "x", template) for template in templates]
    assert [text for text in texts if library_message(text).template == "{text}"] == []


@pytest.mark.parametrize("language", SHIPPED)
def test_translations_have_the_values_of_their_messages(language):
    for message, translation in translations(catalogue(language)).items():
        assert names(message) == names(translation), (message, REMEDY)


@pytest.mark.parametrize("language", SHIPPED)
def test_the_compiled_catalogue_is_that_of_the_text(language):
    compiled = PACKAGE / "locale" / language / "LC_MESSAGES" / "django.mo"
    expected = io.BytesIO()
    write_mo(expected, catalogue(language))
    expected.seek(0)
    with compiled.open("rb") as file:
        assert translations(read_mo(file)) == translations(read_mo(expected)), REMEDY


#: Calls whose first argument appears in an answer.
SHOWN = {cls.__name__ for cls in PROBLEM_TYPES.values()} | {"FieldError", "invalid"}


def test_no_answer_has_a_text_that_cannot_be_translated():
    """A literal or an f-string would make the whole answer English; `Message` has its values."""
    plain = [
        f"{path.name}:{call.lineno}"
        for path, tree in sources()
        for name, call in calls(tree)
        if name in SHOWN and call.args and isinstance(call.args[0], ast.Constant | ast.JoinedStr)
    ]
    assert plain == [], "wrap the text in `Message`, with its values by name"
