"""The bodies of requests in the lane: read before the view runs, or by the view as they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial
from io import BytesIO, RawIOBase
from typing import Any

from django.core.exceptions import RequestAborted, RequestDataTooBig

from zndraw_joblib.settings import get_settings

Receive = Callable[[], Awaitable[Mapping[str, Any]]]

#: Discards at most this many times `max_body_bytes` before answering.
MAX_DISCARDED = 16
#: Bytes of a streamed body that a thread takes over at a time.
MAX_PART = 262_144


async def read_whole(receive: Receive) -> tuple[bytes, bool]:
    """The body, or the beginning of one that is too large; and whether it is whole.

    The rest is discarded, up to a limit, because a client that is cut off while it sends does not
    read the answer.
    """
    limit = get_settings().max_body_bytes
    kept, read = BytesIO(), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestAborted
        part = message.get("body", b"")
        read += len(part)
        if kept.tell() <= limit:
            kept.write(part)
        if not message.get("more_body") or read > MAX_DISCARDED * limit:
            return kept.getvalue(), read == kept.tell() and not message.get("more_body")


class Body(BytesIO):
    """The part of a request's body that was kept; a read beyond it raises."""

    def __init__(self, content: bytes, is_whole: bool) -> None:
        super().__init__(content)
        self._is_whole = is_whole

    def read(self, size: int | None = -1, /) -> bytes:
        """As of a file. This app's views stop reading when they know that the body is too large."""
        part = super().read(size)
        if not self._is_whole and (size is None or size < 0 or len(part) < size):
            raise RequestDataTooBig("The request's body exceeds the job server's max_body_bytes.")
        return part


class StreamedBody(RawIOBase):
    """A request's body, read by a thread while the server receives it.

    `close` does nothing, because `discard` reads on after Django has closed the request.
    """

    def __init__(self, receive: Receive) -> None:
        super().__init__()
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._rest = b""
        self._is_at_end = False
        self._is_aborted = False
        #: The task of the event loop that receives a part for a thread.
        self._receiving: asyncio.Task[Any] | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        """All, or up to `size` bytes as soon as some are there; none at the end.

        Raises
        ------
        ConnectionResetError
            The client left before the end, or the server ends the request.
        """
        if size is None or size < 0:
            return b"".join(iter(partial(self.read, MAX_PART), b""))
        while not self._rest and not self._is_at_end:
            part_for_thread = asyncio.run_coroutine_threadsafe(self._next_part(), self._loop)
            try:
                self._rest = part_for_thread.result()
            except CancelledError as error:
                raise ConnectionResetError("the server ended the request") from error
        part, self._rest = self._rest[:size], self._rest[size:]
        return part

    def close(self) -> None:
        """Leave the body open."""

    def abort(self) -> None:
        """End reads, also one that is under way, because the server cancelled the request.

        Without it the thread would wait for ever, and the process with it when it ends. Call it in
        the event loop.
        """
        self._is_aborted = True
        if self._receiving is not None:
            self._receiving.cancel()

    async def discard(self) -> None:
        """Read and drop the rest, up to a limit, so that the client reads the answer."""
        limit = MAX_DISCARDED * get_settings().max_body_bytes
        with suppress(ConnectionResetError):
            while limit > 0 and not self._is_at_end:
                limit -= len(await self._next_part())

    async def _next_part(self) -> bytes:
        if self._is_aborted:
            raise ConnectionResetError("the server ended the request")
        self._receiving = asyncio.current_task()
        try:
            message = await self._receive()
        finally:
            self._receiving = None
        if message["type"] == "http.disconnect":
            self._is_at_end = True
            raise ConnectionResetError("the client left before the end of its body")
        self._is_at_end = not message.get("more_body")
        part: bytes = message.get("body", b"")
        return part
