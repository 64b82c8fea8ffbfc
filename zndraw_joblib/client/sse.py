"""Reads a stream of Server-Sent Events (HTML Standard, section 9.2).

Of our own, because the lines of httpx end at U+2028 and the like too, which a message of a task may
contain, and because httpx-sse, which goes by them, sets no limit to the size of a message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

#: Most bytes of a message. A task without its payload and result has some 50 kB at most.
MAX_MESSAGE_BYTES = 1024 * 1024
#: Most digits of a `retry` field, some 11 days.
MAX_RETRY_DIGITS = 9

_LINE_END = re.compile(rb"\r\n|\r|\n")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Message(NamedTuple):
    """A message: its type, ``message`` if the stream gave none, and its data."""

    event: str
    data: str


class MessageParser:
    """Parses a stream as its bytes arrive.

    Attributes
    ----------
    retry : float or None
        Seconds after which the server wants a client to connect again; None if it did not say.
    last_id : str or None
        The latest id, also one without a message; None before the first.
    """

    def __init__(self) -> None:
        self.retry: float | None = None
        self.last_id: str | None = None
        self._id: str | None = None
        self._is_first = True
        self._after_return = False
        #: The bytes of an incomplete line.
        self._rest = bytearray()
        self._event = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[Message]:
        """Parse more bytes; yields the messages that they complete.

        Raises
        ------
        ValueError
            The stream is not UTF-8, or a message is too large.
        """
        for line in self._lines(chunk):
            message = self._parse(line)
            if message is not None:
                yield message
        if self._size + len(self._rest) > MAX_MESSAGE_BYTES:
            raise ValueError("a message of the stream is too large")

    def _lines(self, chunk: bytes) -> list[bytes]:
        if self._after_return and chunk.startswith(b"\n"):
            # The second half of a line end that came in two parts.
            chunk = chunk[1:]
            self._after_return = False
        if chunk:
            self._after_return = chunk.endswith(b"\r")
        if b"\n" not in chunk and b"\r" not in chunk:
            self._rest += chunk
            return []
        *lines, rest = _LINE_END.split(bytes(self._rest) + chunk)
        self._rest = bytearray(rest)
        if self._is_first:
            self._is_first = False
            lines[0] = lines[0].removeprefix(_BYTE_ORDER_MARK)
        return lines

    def _parse(self, line: bytes) -> Message | None:
        """Parse a line; returns the message that it ends."""
        if not line:
            message = Message(self._event or "message", "\n".join(self._data))
            is_empty = not self._data
            self.last_id = self._id
            self._event, self._data, self._size = "", [], 0
            return None if is_empty else message
        self._size += len(line)
        name, _, value = line.decode().partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._event = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry = int(value[:MAX_RETRY_DIGITS]) / 1000
        # A comment begins with a colon, so its name is empty.
        return None
