"""Truncates text, and keeps messages translatable.

Standard library only: the server and the SDK share this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self


class Message(str):
    """A message in English that keeps its template and values, for a translation when it is shown.

    A value that is a message too is translated with it.
    """

    template: str
    values: Mapping[str, object]

    def __new__(cls, template: str, **values: object) -> Self:
        """The text of a template, in which the names of values stand in braces."""
        self = super().__new__(cls, template.format_map(values) if values else template)
        self.template, self.values = template, values
        return self


class InActiveLanguage(str):
    """A text of Django, DRF or the host, which is in the language of the request already."""


def truncate_utf8(text: str, limit: int) -> str:
    """Return the first `limit` bytes of a text in UTF-8, without a half character at the end.

    A lone surrogate has no form in UTF-8 and becomes a question mark.
    """
    return text.encode(errors="replace")[:limit].decode(errors="ignore")
