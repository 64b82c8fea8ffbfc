"""The text that a task's attempts have logged, in chunks.

An offset counts bytes of UTF-8 from the first one that was ever written. The chunks of a task
follow each other without a gap, and a chunk begins and ends between two characters.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from django.db import models, transaction
from django.db.models import Max, Value
from django.db.models.functions import Concat

from zndraw_joblib.lifecycle import TERMINAL_STATUSES
from zndraw_joblib.storage import statements
from zndraw_joblib.storage.managers import WriteManager
from zndraw_joblib.text import clean_text

#: Bytes of a chunk. A short text is added to the latest chunk, because a row for each of a million
#: short texts would take many times the space of the text.
CHUNK_BYTES = 8_192
#: Largest offset, of the database's column.
MAX_OFFSET = 2**63 - 1
#: Most bytes of text that one read returns.
MAX_READ_BYTES = 65_536


class LogPart(NamedTuple):
    """A part of a log: its text, its first offset, and the offset that follows it.

    `ended` says that no text follows, because the task has ended.
    """

    offset: int
    text: str
    next_offset: int
    ended: bool


class LogManager(WriteManager.from_queryset(models.QuerySet)):  # type: ignore[misc]
    """Verbs over the table of logs; they run on the database that the router writes to."""

    def append(
        self,
        task_id: UUID,
        attempt: int,
        identity: str | None,
        text: str,
        lease: timedelta,
        max_bytes: int,
    ) -> bool:
        """Add a text to the log of a claimed or running task, and renew its lease.

        Returns whether the task has this attempt, and a worker of this identity (any with None);
        nothing is written otherwise. Of the log the last `max_bytes` are kept. The write counts as
        a heartbeat of the worker.
        """
        using = self.write_db
        data = clean_text(text).encode()
        with transaction.atomic(using=using):
            extended = statements.run(
                using,
                "extend_log",
                id=task_id,
                attempt=attempt,
                identity=identity,
                size=len(data),
                lease_seconds=lease.total_seconds(),
            )
            if not extended.rows:
                return False
            ((size, worker_id),) = extended.rows
            if data:
                self._store(using, task_id, data, size, max_bytes)
            # In the transaction, because a failure after the commit would be answered with an
            # error, and the repeated request would store its text twice.
            statements.run(using, "touch_workers", worker_ids=[worker_id])
        return True

    def _store(self, using: str, task_id: UUID, data: bytes, size: int, max_bytes: int) -> None:
        """Store text that ends at the offset `size`, and cut the log from the front."""
        chunks = self.using(using).filter(task=task_id).order_by()
        # Not part of `extend_log`, which would not see the chunks of a write that it waited for.
        latest = chunks.aggregate(start=Max("start"))["start"]
        if latest is not None and size - latest <= CHUNK_BYTES:
            addition = Concat("text", Value(data.decode()), output_field=models.TextField())
            chunks.filter(start=latest).update(text=addition)
            return
        # A text that is longer than the whole log may be is cut before it is stored.
        kept = data[character_start(data, max(0, len(data) - max_bytes)) :]
        start = size - len(kept)
        rows = []
        for piece in _pieces(kept):
            rows.append(self.model(task_id=task_id, start=start, text=piece.decode()))
            start += len(piece)
        self.using(using).bulk_create(rows)
        # The chunk that contains the first kept byte stays, and so the latest one always does.
        first = chunks.filter(start__lte=size - max_bytes).aggregate(start=Max("start"))["start"]
        if first is not None:
            chunks.filter(start__lt=first).delete()

    def read(self, task_id: UUID, offset: int, max_bytes: int) -> LogPart | None:
        """Up to `MAX_READ_BYTES` of a log from an offset on; None if the task does not exist.

        An offset within a character goes back to its beginning, one before the last `max_bytes`
        on to the first whole character of these. Beyond the end there is no text.
        """
        found = statements.run(
            self.write_db,
            "read_log",
            id=task_id,
            first=offset,
            max_bytes=max_bytes,
            limit=MAX_READ_BYTES,
        )
        if not found.rows:
            return None
        status, size, first, start, _ = found.rows[0]
        data = b"".join(text.encode() for *_, text in found.rows if text)
        start = start or 0
        begin = character_start(data, first - start)
        if start + begin < size - max_bytes:
            # The beginning of the character is no longer kept.
            begin = _next_character(data, first - start)
        end = character_start(data, begin + MAX_READ_BYTES)
        text = data[begin:end].decode()
        if data:
            offset = start + begin
        following = offset + len(data[begin:end])
        return LogPart(offset, text, following, status in TERMINAL_STATUSES and following >= size)


def character_start(data: bytes, position: int) -> int:
    """The position of the first byte of the character of UTF-8 that has a byte at `position`."""
    if position >= len(data):
        return len(data)
    while data[position] & 0xC0 == 0x80:
        position -= 1
    return position


def _next_character(data: bytes, position: int) -> int:
    """The first position from this one on at which a character begins, or the end."""
    while position < len(data) and data[position] & 0xC0 == 0x80:
        position += 1
    return position


def _pieces(data: bytes) -> Iterator[bytes]:
    """The data in parts of up to `CHUNK_BYTES`, cut between characters."""
    start = 0
    while start < len(data):
        end = character_start(data, start + CHUNK_BYTES)
        yield data[start:end]
        start = end
