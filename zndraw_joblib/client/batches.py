"""Divides lists into JSON arrays within the limits of the server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

#: Most entries of a request; the default of the server's `max_batch_size`.
BATCH_SIZE = 500
#: Most bytes of a request's body, somewhat below the default of the server's `max_body_bytes`.
BATCH_BYTES = 900_000

#: One for all calls, because `json.dumps` makes one for each call with these options.
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def encode(value: Any) -> bytes:
    """Encode a value as compact JSON.

    Raises
    ------
    ValueError
        The value contains NaN, an infinity or a lone surrogate, for which JSON has no form.
    """
    return _ENCODER.encode(value).encode()


def array(entries: Sequence[bytes]) -> bytes:
    """A JSON array of encoded entries."""
    return b"[" + b",".join(entries) + b"]"


def batch_slices(
    entries: Sequence[bytes], most: int, most_bytes: int = BATCH_BYTES
) -> Iterator[slice]:
    """Slices of the entries, each an array of at most `most` entries and `most_bytes` bytes.

    An entry that is too large by itself is a slice of its own, because the server would refuse the
    other entries of its slice too.
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
