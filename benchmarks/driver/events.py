"""Watchers of one room, and the time from a change to its arrival at each of them."""

from __future__ import annotations

import asyncio
import re
import time
from base64 import b64encode
from typing import Any

import psutil

from benchmarks.driver.api import PREFIX, ROOM, Client
from benchmarks.driver.meter import Meter, percentile
from benchmarks.driver.waiters import WARM_UP, count_connections
from benchmarks.driver.wire import Failed, Target

#: Tasks that report progress, and reports of each in a second: as many as a watcher gets.
TASKS, EACH_SECOND = 10, 5
#: Watchers that connect at once.
OPENED_AT_ONCE = 32

_NUMBER = re.compile(rb'"message":"(\d+)"')
#: The frame of a ping, with its four bytes.
_PING = re.compile(rb"\x89\x04(.{4})", re.DOTALL)
#: Longer than a number with its name, which may be cut in two.
_TAIL = 40


class Watch(asyncio.Protocol):
    """A connection to the events of a room, which notes when each numbered message arrives."""

    def __init__(self, head: bytes, arrivals: list[tuple[int, float]]) -> None:
        self._head = head
        self._arrivals = arrivals
        self._rest = b""
        self.is_ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.bytes = 0

    def connection_made(self, transport: Any) -> None:
        """Send the request (`asyncio.Protocol`)."""
        self.transport = transport
        transport.write(self._head)

    def data_received(self, data: bytes) -> None:
        """Note the messages (`asyncio.Protocol`)."""
        now = time.perf_counter()
        self.bytes += len(data)
        data = self._rest + data
        if not self.is_ready.done() and b'"ready"' in data:
            self.is_ready.set_result(None)
        end = 0
        for found in _NUMBER.finditer(data):
            self._arrivals.append((int(found[1]), now))
            end = found.end()
        # A server closes a connection that answers no ping. The messages themselves are ASCII.
        for ping in _PING.finditer(data):
            end = max(end, ping.end())
            self.transport.write(b"\x8a\x84\0\0\0\0" + ping[1])
        self._rest = data[max(end, len(data) - _TAIL) :]

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail a watcher that was not accepted (`asyncio.Protocol`)."""
        if not self.is_ready.done():
            self.is_ready.set_exception(Failed(f"a watcher was refused: {self._rest!r}"))


async def run(
    target: dict[str, Any],
    reports_to: dict[str, Any],
    kind: str,
    watchers: int,
    pid: int,
    seconds: float,
    database: str,
    application: str,
) -> dict[str, Any]:
    """Watch one room by Server-Sent Events (`kind` ``sse``) or WebSockets.

    A WebSocket (``ws``) has a message for each event, or (``arrays``) one for several.

    `reports_to` is the server that gets the reports; `pid` is the process of the watchers' server.
    """
    endpoint, server = Target(**target), psutil.Process(pid)
    client = await Client(Target(**reports_to)).register(jobs=1)
    tasks = []
    for _ in range(TASKS):
        await client.submit()
        tasks.append(await client.claim())
    arrivals: list[tuple[int, float]] = []
    head = _head(endpoint, kind, ROOM)
    first = await _connect(endpoint, head, arrivals, min(WARM_UP, watchers // 3))
    base = server.memory_info().rss
    rest = await _connect(endpoint, head, arrivals, watchers - len(first))
    seen: list[dict[str, int]] = []
    reported: dict[int, float] = {}
    arrivals.clear()

    async def count() -> None:
        while True:
            seen.append(await asyncio.to_thread(count_connections, database, application))
            await asyncio.sleep(0.25)

    counting = asyncio.create_task(count())
    with Meter() as meter:
        began, cpu = time.perf_counter(), sum(server.cpu_times()[:2])
        await _report(client, tasks, reported, seconds)
        await asyncio.sleep(1)
        used = sum(server.cpu_times()[:2]) - cpu
        busy = used / (time.perf_counter() - began)
    counting.cancel()
    most = server.memory_info().rss
    delays = [at - reported[number] for number, at in arrivals if number in reported]
    alive = sum(not watch.transport.is_closing() for watch in (*first, *rest))
    for watch in (*first, *rest):
        watch.transport.abort()
    return {
        "alive": alive,
        "delays": len(delays),
        "changes": len(reported) / seconds,
        "p50": percentile(delays, 0.5),
        "p95": percentile(delays, 0.95),
        "p99": percentile(delays, 0.99),
        "bytes_each": (most - base) / len(rest),
        "threads": server.num_threads(),
        "connections": seen,
        "server_cpu": busy,
        "server_seconds": used,
        "cpu_share": meter.cpu_share,
    }


async def _report(
    client: Client, tasks: list[Any], reported: dict[int, float], seconds: float
) -> None:
    """Report progress of the tasks in turn, evenly spread."""
    loop = asyncio.get_running_loop()
    began, total = loop.time(), int(seconds * TASKS * EACH_SECOND)
    for number in range(total):
        await asyncio.sleep(max(0.0, began + number / (TASKS * EACH_SECOND) - loop.time()))
        task = tasks[number % TASKS]
        body = {"status": "running", "attempt": task["attempt"], "message": str(number)}
        await client.connection.ask("PATCH", f"{PREFIX}/tasks/{task['id']}", body)
        reported[number] = time.perf_counter()


async def _connect(
    endpoint: Target, head: bytes, arrivals: list[tuple[int, float]], count: int
) -> list[Watch]:
    loop = asyncio.get_running_loop()
    made: list[Watch] = []
    while len(made) < count:
        some = [
            (
                await loop.create_connection(
                    lambda: Watch(head, arrivals), "127.0.0.1", endpoint.port
                )
            )[1]
            for _ in range(min(OPENED_AT_ONCE, count - len(made)))
        ]
        await asyncio.wait_for(asyncio.gather(*(watch.is_ready for watch in some)), 60)
        made += some
    return made


def _head(endpoint: Target, kind: str, room: str) -> bytes:
    """The request of a watcher."""
    path = f"{PREFIX}/rooms/{room}/events"
    lines = [f"{name}: {value}" for name, value in endpoint.headers.items()]
    if kind != "sse":
        path = f"/ws{path}/{'?batch=true' if kind == 'arrays' else ''}"
        lines += [
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            # As browsers offer it. A server that accepts it needs more memory and time.
            "Sec-WebSocket-Extensions: permessage-deflate",
            f"Sec-WebSocket-Key: {b64encode(b'a' * 16).decode()}",
        ]
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *lines, "", ""]).encode()
