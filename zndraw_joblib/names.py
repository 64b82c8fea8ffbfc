"""Names of rooms, jobs (``room:category:Name``) and files.

Standard library only: the server and the SDK share this module.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from zndraw_joblib.text import Message

#: Jobs registered here are offered in every room.
GLOBAL_ROOM = "@global"
#: Reserved for jobs that the server would run itself; clients cannot use it.
INTERNAL_ROOM = "@internal"

#: Most characters of a room id, a category or a job's name.
MAX_NAME_LENGTH = 128
_RESERVED = frozenset("@:/")
#: Most characters of the name of a task's file.
MAX_FILE_NAME_LENGTH = 255


def nfc(text: str) -> str:
    """A text in Unicode's form NFC, because ``ö`` typed as one or as two characters looks the same.

    Names are stored and compared in this form, so both spellings name one room or job.
    """
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def name_error(text: str) -> str | None:
    """Return the error in a room id, a category or a job's name; None if it is valid.

    A name has 1 to 128 characters and none of ``@ : /``, control characters or lone surrogates.
    The error is the end of a sentence: ``must not contain '@'``.
    """
    if not 1 <= len(text) <= MAX_NAME_LENGTH:
        return Message(
            "must have 1 to {limit} characters, not {number}",
            limit=MAX_NAME_LENGTH,
            number=len(text),
        )
    for character in text:
        if character in _RESERVED:
            return Message("must not contain {character}", character=repr(character))
        if unicodedata.category(character) in {"Cc", "Cs"}:
            return Message("must not contain control characters or lone surrogates")
    return None


def room_error(room_id: str) -> str | None:
    """Return the error in a room id, as `name_error` does; ``@global`` is valid."""
    if room_id == GLOBAL_ROOM:
        return None
    if room_id == INTERNAL_ROOM:
        return Message("{room} is reserved for the server", room=INTERNAL_ROOM)
    return name_error(room_id)


def file_name_error(name: str) -> str | None:
    """Return the error in the name of a task's file, as `name_error` does; None if it is valid.

    A name has 1 to 255 characters and no slash, backslash, control character or lone surrogate, and
    is neither ``.`` nor ``..``, because people save files under their names.
    """
    if not 1 <= len(name) <= MAX_FILE_NAME_LENGTH:
        return Message(
            "must have 1 to {limit} characters, not {number}",
            limit=MAX_FILE_NAME_LENGTH,
            number=len(name),
        )
    if name in {".", ".."}:
        return Message("must not be {name}", name=repr(name))
    for character in name:
        if character in "/\\":
            return Message("must not contain {character}", character=repr(character))
        if unicodedata.category(character) in {"Cc", "Cs"}:
            return Message("must not contain control characters or lone surrogates")
    return None


@dataclass(frozen=True, slots=True)
class JobName:
    """The full name of a job, unique on a server; its parts are in Unicode's form NFC."""

    room_id: str
    category: str
    name: str

    def __post_init__(self) -> None:
        for part in ("room_id", "category", "name"):
            object.__setattr__(self, part, nfc(getattr(self, part)))

    @classmethod
    def parse(cls, text: str) -> JobName:
        """Split ``room:category:Name``.

        Raises
        ------
        ValueError
            The text does not have three parts, or a part is not a valid name.
        """
        parts = nfc(text).split(":")
        if len(parts) != 3:
            raise ValueError(Message("a job's full name has three parts, room:category:Name"))
        room_id, category, name = parts
        for label, error in (
            (Message("room"), room_error(room_id)),
            (Message("category"), name_error(category)),
            (Message("name"), name_error(name)),
        ):
            if error:
                raise ValueError(
                    Message("the {label} of a job's full name {error}", label=label, error=error)
                )
        return cls(room_id, category, name)

    def __str__(self) -> str:
        return f"{self.room_id}:{self.category}:{self.name}"
