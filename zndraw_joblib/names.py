"""Names of rooms and jobs: ``room:category:Name``.

Standard library only: the server and the SDK share this module.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

#: Jobs registered here are offered in every room.
GLOBAL_ROOM = "@global"
#: Kept for jobs that the server itself would run; no client may use it.
INTERNAL_ROOM = "@internal"

#: Characters of a room id, a category or a job's name.
MAX_NAME_LENGTH = 128
_RESERVED = frozenset("@:/")


def name_fault(text: str, *, allowed: str = "") -> str | None:
    """Say what is wrong with a room id, a category or a job's name; None when it is fine.

    A name has 1 to 128 characters and none of ``@ : /`` (but those in `allowed`), control
    characters or lone surrogates.
    """
    if not 1 <= len(text) <= MAX_NAME_LENGTH:
        return f"must have 1 to {MAX_NAME_LENGTH} characters, not {len(text)}"
    for character in text:
        if character in _RESERVED and character not in allowed:
            return f"must not contain {character!r}"
        if unicodedata.category(character) in {"Cc", "Cs"}:
            return "must not contain control characters or lone surrogates"
    return None


def room_fault(room_id: str) -> str | None:
    """Say what is wrong with a room id; None when it is fine. ``@global`` is a room."""
    if room_id == GLOBAL_ROOM:
        return None
    if room_id == INTERNAL_ROOM:
        return f"{INTERNAL_ROOM} is kept for the server"
    return name_fault(room_id)


@dataclass(frozen=True, slots=True)
class JobName:
    """The full name of a job, unique on a server."""

    room_id: str
    category: str
    name: str

    @classmethod
    def parse(cls, text: str) -> JobName:
        """Take ``room:category:Name`` apart.

        Raises
        ------
        ValueError
            There are not three parts, or one of them is no valid name.
        """
        parts = text.split(":")
        if len(parts) != 3:
            raise ValueError("a job's full name has three parts, room:category:Name")
        room_id, category, name = parts
        for label, fault in (
            ("room", room_fault(room_id)),
            ("category", name_fault(category)),
            ("name", name_fault(name)),
        ):
            if fault:
                raise ValueError(f"the {label} of a job's full name {fault}")
        return cls(room_id, category, name)

    def __str__(self) -> str:
        return f"{self.room_id}:{self.category}:{self.name}"
