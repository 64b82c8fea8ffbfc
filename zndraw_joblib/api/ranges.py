"""The header `Range` (RFC 9110, section 14) of a request for one part of a file."""

from __future__ import annotations

import re

from zndraw_joblib.exceptions import RangeNotSatisfiable

_RANGE = re.compile(r"(?P<first>[0-9]*)-(?P<last>[0-9]*)")
#: Most digits of a position that are read; a longer one lies beyond every file.
_DIGITS = 20


def requested_part(header: str | None, if_range: str | None, etag: str, size: int) -> range | None:
    """The positions of the bytes that a `Range` header asks for; None for the whole file.

    A server may ignore the header (section 14.2). It is ignored if it is malformed, of another
    unit, or asks for several ranges, and if `if_range` is not the file's strong `etag`.

    Raises
    ------
    RangeNotSatisfiable
        The range begins beyond the end of the file.
    """
    if header is None or (if_range is not None and if_range.strip() != etag):
        return None
    unit, separator, listed = header.partition("=")
    ranges = [part.strip(" \t") for part in listed.split(",") if part.strip(" \t")]
    if not separator or unit.strip().lower() != "bytes" or len(ranges) != 1:
        return None
    match = _RANGE.fullmatch(ranges[0])
    if not match or ranges[0] == "-":
        return None
    if not match["first"]:
        length = _position(match["last"])
        if length == 0:
            raise RangeNotSatisfiable(headers={"Content-Range": f"bytes */{size}"})
        # Of an empty file no `Content-Range` can tell the end that was asked for.
        return range(max(size - length, 0), size) if size else None
    first = _position(match["first"])
    last = _position(match["last"]) if match["last"] else size
    if last < first and match["last"]:
        return None
    if first >= size:
        raise RangeNotSatisfiable(headers={"Content-Range": f"bytes */{size}"})
    return range(first, min(last + 1, size))


def _position(digits: str) -> int:
    digits = digits.lstrip("0") or "0"
    # Not more digits, because int() of thousands of them is slow or fails.
    return int(digits) if len(digits) <= _DIGITS else 10**_DIGITS
