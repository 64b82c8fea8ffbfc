"""Ids of rows: UUIDs of version 7 (RFC 9562), which sort by the time at which they were made."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from uuid_utils import compat as uuid_utils

#: Most tasks of one batch, because the last ten bits of an id number them.
MAX_BATCH = 1024


def new_id() -> UUID:
    """A new UUID of version 7; inserts go to the end of its index, which is fast."""
    return uuid_utils.uuid7()


def new_worker_id() -> str:
    """The id of a new worker other than a default worker."""
    return str(new_id())


def new_ids(number: int) -> list[UUID]:
    """`number` consecutive ids, all derivable from the first."""
    if not 1 <= number <= MAX_BATCH:
        raise ValueError(f"a batch has 1 to {MAX_BATCH} ids")
    return consecutive_ids(UUID(int=new_id().int // MAX_BATCH * MAX_BATCH), number)


def consecutive_ids(first: UUID, number: int) -> list[UUID]:
    """The ids of a batch, from the first id and their number."""
    return [UUID(int=first.int + offset) for offset in range(number)]


def first_id(moment: datetime) -> UUID:
    """The smallest id that can have been made at this time or later."""
    milliseconds = int(moment.timestamp() * 1000)
    return UUID(int=milliseconds << 80 | 0x7 << 76 | 0b10 << 62)
