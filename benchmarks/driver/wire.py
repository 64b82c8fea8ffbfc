"""A minimal HTTP/1.1 client on keep-alive connections, so that the servers are the bottleneck.

It formats requests by hand and parses only the status and the `Content-Length` of a response; all
the measured servers send that header.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import orjson

#: Seconds after which a request without a response fails.
TIMEOUT = 150.0


class Failed(Exception):
    """A request failed: its method and path, the status and the start of the response's body."""


@dataclass(frozen=True)
class Target:
    """A server's port, and the headers that authenticate requests to it."""

    port: int
    headers: dict[str, str] = field(default_factory=dict)
    #: Whether it is this project rather than the original.
    ours: bool = True


@dataclass(frozen=True)
class Reply:
    """A response; `head` is the status line and the headers."""

    status: int
    head: bytes
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return orjson.loads(self.body)


class Connection(asyncio.Protocol):
    """A connection for one request at a time; opened again after the server closed it."""

    def __init__(self, target: Target, local: str = "127.0.0.1") -> None:
        self._target = target
        self._local = local
        self._transport: Any = None
        self._buffer = b""
        self._head_end = -1
        self._length = 0
        self._answer: asyncio.Future[Reply] | None = None
        self._lines = "".join(f"{name}: {value}\r\n" for name, value in target.headers.items())

    async def open(self) -> Connection:
        """Connect, unless the connection is open."""
        if self._transport is None or self._transport.is_closing():
            loop = asyncio.get_running_loop()
            await loop.create_connection(
                lambda: self, "127.0.0.1", self._target.port, local_addr=(self._local, 0)
            )
        return self

    def close(self) -> None:
        """Close the connection without waiting for a response."""
        if self._transport is not None:
            self._transport.abort()

    async def send(
        self, method: str, path: str, body: Any = None, wait: int | None = None, tag: str = ""
    ) -> Reply:
        """Send a request and return its response, of any status.

        `body` is sent as JSON; `wait` is the `Prefer: wait=` in seconds, `tag` the `If-None-Match`.

        Raises
        ------
        Failed
            The connection ended, or the response took longer than `TIMEOUT`.
        """
        await self.open()
        content = b"" if body is None else orjson.dumps(body)
        prefer = "" if wait is None else f"Prefer: wait={wait}\r\n"
        if tag:
            prefer += f"If-None-Match: {tag}\r\n"
        kind = "" if body is None else "Content-Type: application/json\r\n"
        size = "" if method == "GET" else f"Content-Length: {len(content)}\r\n"
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{self._lines}{prefer}{kind}{size}\r\n"
        )
        loop = asyncio.get_running_loop()
        answer = self._answer = loop.create_future()
        late = loop.call_later(TIMEOUT, self._give_up, Failed(f"{method} {path}: no response"))
        self._transport.write(head.encode() + content)
        try:
            return await answer
        finally:
            late.cancel()
            self._answer = None

    async def ask(self, method: str, path: str, body: Any = None, wait: int | None = None) -> Any:
        """Like `send`, but returns the JSON of a successful response.

        Raises
        ------
        Failed
            Also for a status of 400 or more.
        """
        reply = await self.send(method, path, body, wait)
        if reply.status >= 400:
            route = path.split("?")[0][:60]
            raise Failed(f"{method} {route}: {reply.status} {reply.body[:200].decode('replace')}")
        return reply.json() if reply.body else None

    def connection_made(self, transport: Any) -> None:
        """Start with an empty buffer (`asyncio.Protocol`)."""
        self._transport = transport
        self._buffer, self._head_end = b"", -1

    def data_received(self, data: bytes) -> None:
        """Buffer the bytes, and deliver the response when it is complete (`asyncio.Protocol`)."""
        self._buffer = self._buffer + data if self._buffer else data
        if self._head_end < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self._head_end = end + 4
            self._length = _content_length(self._buffer[:end].lower())
        total = self._head_end + self._length
        if len(self._buffer) < total:
            return
        reply = Reply(
            int(self._buffer[9:12]),
            self._buffer[: self._head_end],
            self._buffer[self._head_end : total],
        )
        self._buffer, self._head_end = b"", -1
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request that waits for a response (`asyncio.Protocol`)."""
        self._give_up(Failed(f"the server closed the connection: {exc!r}"))

    def _give_up(self, error: Exception) -> None:
        self._transport.abort()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


def _content_length(head: bytes) -> int:
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        return 0
    return int(head[at + 17 :].split(b"\r\n", 1)[0])
