"""Batches: arrays of JSON within the limits of the server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

#: Entries of a request; the server's `max_batch_size` unless it is set otherwise.
BATCH_SIZE = 500
#: Bytes of a request's body, with some room below the server's `max_body_bytes`.
BATCH_BYTES = 900_000


def encode(value: Any) -> bytes:
    """Encode a value as compact JSON.

    Raises
    ------
    ValueError
        The value contains NaN, an infinity or a lone surrogate, for which JSON has no form.
    """
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def array(entries: Sequence[bytes]) -> bytes:
    """A JSON array of encoded entries."""
    return b"[" + b",".join(entries) + b"]"


def cuts(entries: Sequence[bytes], most: int, most_bytes: int = BATCH_BYTES) -> Iterator[slice]:
    """Slices of the entries, each an array of at most `most` entries and `most_bytes` bytes.

    An entry that alone is too large is a slice of its own, so that the server refuses it alone.
    """
    start, size = 0, 2
    for index, entry in enumerate(entries):
        length = len(entry) + 1
        if index > start and (index - start >= most or size + length > most_bytes):
            yield slice(start, index)
            start, size = index, 2
        size += length
    if entries:
        yield slice(start, len(entries))
