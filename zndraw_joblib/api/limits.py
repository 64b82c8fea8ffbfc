"""Limits and descriptions of fields that depend on settings, for ``Annotated`` types.

A setting is read when a request is validated and when the OpenAPI document is made, because a host
may change it and the document should show the enforced limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from zndraw_joblib.settings import get_settings


def with_settings(text: str) -> str:
    """Replace the ``{names}`` of settings in a text by their values."""
    values = get_settings().model_dump()
    lists = {name: ", ".join(value) for name, value in values.items() if isinstance(value, list)}
    return text.format_map(values | lists)


@dataclass(frozen=True)
class AtMost:
    """An upper bound of an integer: pydantic enforces it and the document shows it."""

    setting: str

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "maximum": self._limit}

    @property
    def _limit(self) -> int:
        limit: int = getattr(get_settings(), self.setting)
        return limit

    def _check(self, value: int) -> int:
        if value > self._limit:
            raise PydanticCustomError("at_most", "Must be at most {limit}.", {"limit": self._limit})
        return value


@dataclass(frozen=True)
class Described:
    """A description that names settings in braces, and the setting for `maxItems` of an array.

    Both appear in the OpenAPI document only; `JobLibView.bodies` and the services enforce limits.
    """

    text: str
    max_items: str | None = None

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        described = {**handler(schema), "description": with_settings(self.text)}
        if self.max_items is not None:
            described["maxItems"] = getattr(get_settings(), self.max_items)
        return described
