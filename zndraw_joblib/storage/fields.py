"""Model fields for names, and for JSON whose key order matters."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import orjson
from django.db import models

from zndraw_joblib.names import nfc

if TYPE_CHECKING:
    _CharField = models.CharField[str, str]
else:  # Django's class takes no parameters.
    _CharField = models.CharField

#: Digits of an integer that may not fit in 64 bits.
_LARGE = re.compile("[0-9]{19}")


def canonical_json(value: Any) -> str:
    """The same text for equal JSON: keys are sorted, and ``1``, ``1.0`` and ``true`` differ."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def json_loads(text: str) -> Any:
    """Parse JSON that this app wrote; integers beyond 64 bits stay integers."""
    return json.loads(text) if _LARGE.search(text) else orjson.loads(text)


def json_bytes(value: Any) -> bytes:
    """A value as compact JSON in UTF-8, however large its integers are."""
    try:
        return orjson.dumps(value)
    except TypeError:  # An integer beyond 64 bits.
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def json_dumps(value: Any) -> str:
    """A value as compact JSON text, however large its integers are."""
    return json_bytes(value).decode()


class NameField(_CharField):
    """A room id, or a part of a job's name: stored, and looked up, in Unicode's form NFC."""

    def get_prep_value(self, value: Any) -> Any:
        """The form for the database, also in conditions."""
        value = super().get_prep_value(value)
        return nfc(value) if isinstance(value, str) else value

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        """Give the instance the form in which it is stored."""
        value = super().pre_save(model_instance, add)
        if isinstance(value, str):
            value = nfc(value)
            setattr(model_instance, self.attname, value)
        return value

    def deconstruct(self) -> Any:
        """As a `CharField`, because the column is the same."""
        name, _path, args, kwargs = super().deconstruct()
        return name, "django.db.models.CharField", args, kwargs


class OrderedJSONField(models.TextField):  # type: ignore[type-arg]
    """JSON kept as text, because ``jsonb`` changes it.

    It sorts keys, turns ``1e22`` into an integer and drops the sign of ``-0.0``.
    """

    description = "JSON in the order of its keys"

    # For type checkers: any value may be set and read.
    _pyi_private_set_type: Any
    _pyi_private_get_type: Any

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> Any:
        """Parse the text of the column."""
        return None if value is None else json.loads(value)

    def to_python(self, value: Any) -> Any:
        """Parse the text of a fixture; other values are parsed already."""
        return json.loads(value) if isinstance(value, str) else value

    def get_prep_value(self, value: Any) -> str | None:
        """The text of a value; None is NULL."""
        return None if value is None else json_dumps(value)

    def value_to_string(self, obj: models.Model) -> str:
        """The text that `to_python` reads back."""
        return self.get_prep_value(self.value_from_object(obj)) or ""
