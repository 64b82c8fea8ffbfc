"""The cursor of a stream of a room's events: the moment from which a client may resume."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from hashlib import blake2s
from typing import Any, NamedTuple

_FORM = re.compile(r"([0-9a-f]{1,14})-([0-9a-f]{8})-([0-9a-f]{8})?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
#: The largest time that a cursor may have, in microseconds.
_LAST = (datetime(9999, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND


class Cursor(NamedTuple):
    """A cursor. Its text is opaque to clients.

    A client that knows it knows every change before `since`. `jobs` is a digest of the room's jobs,
    which tells whether they changed. `workers` is a digest of the ids of its workers, ``""`` where
    no administrator watches: workers that left have no rows from which their end could be told.
    """

    since: datetime
    jobs: str
    workers: str = ""

    def __str__(self) -> str:
        return f"{(self.since - _EPOCH) // _MICROSECOND:x}-{self.jobs}-{self.workers}"


def parse_cursor(text: str) -> Cursor | None:
    """The cursor of a text; None if no server has made it."""
    found = _FORM.fullmatch(text)
    if found is None or (microseconds := int(found[1], 16)) > _LAST:
        return None
    return Cursor(_EPOCH + microseconds * _MICROSECOND, found[2], found[3] or "")


def digest(values: Collection[Any]) -> str:
    """Eight hexadecimal digits that change when the values do."""
    return blake2s(repr(values).encode("utf-8", "replace"), digest_size=4).hexdigest()
