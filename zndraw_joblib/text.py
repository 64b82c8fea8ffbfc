"""Truncates text to a number of bytes.

Standard library only: the server and the SDK share this module.
"""

from __future__ import annotations


def truncate_utf8(text: str, limit: int) -> str:
    """Return the first `limit` bytes of a text in UTF-8, without a half character at the end.

    A lone surrogate has no form in UTF-8 and becomes a question mark.
    """
    return text.encode(errors="replace")[:limit].decode(errors="ignore")
