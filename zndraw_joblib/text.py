"""Makes free text fit to be sent and stored, and keeps messages translatable.

Standard library only: the server and the SDK share this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

#: Takes the place of characters that PostgreSQL or UTF-8 cannot hold.
REPLACEMENT = "\ufffd"


def clean_text(text: str) -> str:
    """Replace U+0000 and each lone surrogate by U+FFFD.

    PostgreSQL does not store U+0000, and UTF-8 has no form for a lone surrogate. Two surrogates
    that form a pair become their character.
    """
    text = text.replace("\x00", REPLACEMENT)
    try:
        text.encode()
    except UnicodeEncodeError:
        # UTF-16 shows which surrogates are lone.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


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
    """Return the first `limit` bytes of a cleaned text in UTF-8, without a part of a character."""
    # Cut by characters first, because a text may be much longer than the limit.
    return clean_text(text[:limit]).encode()[:limit].decode(errors="ignore")
