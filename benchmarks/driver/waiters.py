"""Thousands of requests that wait in one server process, and heartbeats meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import psutil
import psycopg

from benchmarks.driver.api import PREFIX, Client
from benchmarks.driver.meter import Meter, percentile
from benchmarks.driver.wire import Connection, Target

#: Seconds that they ask to wait; the project's longest.
WAIT = 120
#: Waiters whose memory does not count: what is made once is made by them.
WARM_UP = 300
#: Requests under way at once while they come.
ARRIVING = 64
#: Waiters with one loopback address, which has some 28,000 ports.
PER_ADDRESS = 5_000
#: Seconds between two heartbeats, and between two looks at the database's connections.
BEAT_EVERY, LOOK_EVERY = 0.05, 0.25


async def run(
    target: dict[str, Any],
    pid: int,
    tasks: list[str],
    seconds: float,
    database: str,
    application: str,
) -> dict[str, Any]:
    """Let one request wait for each of these tasks; `pid` is the server's process.

    `application` is the name that the server's connections to `database` carry.
    """
    whom = Target(**target)
    server = psutil.Process(pid)
    worker = await Client(whom).enlist(jobs=1)
    first = await _arrive(whom, tasks[:WARM_UP], 0)
    base = server.memory_info().rss
    before = await asyncio.to_thread(_connections, database, application)
    begun = time.perf_counter()
    rest = await _arrive(whom, tasks[WARM_UP:], WARM_UP)
    arrived = time.perf_counter() - begun
    # The last ones have joined their groups and been looked at again.
    await asyncio.sleep(2)
    with Meter() as meter:
        spans, seen, most_rss = await _watch(worker, server, seconds, database, application)
    waiting = sum(not answer.done() for answer in (*first, *rest))
    answers = Counter(str(a.exception() or a.result().status) for a in (*first, *rest) if a.done())
    for answer in (*first, *rest):
        answer.cancel()
    await asyncio.gather(*first, *rest, return_exceptions=True)
    return {
        "waiting": waiting,
        "wanted": len(tasks),
        "answered": answers,
        "bytes_each": (most_rss - base) / len(rest),
        "threads": server.num_threads(),
        "arrival_seconds": arrived,
        "connections_before": before,
        "connections": seen,
        "heartbeats": len(spans),
        "p50": percentile(spans, 0.5),
        "p99": percentile(spans, 0.99),
        "share": meter.share,
    }


async def _watch(
    worker: Client, server: psutil.Process, seconds: float, database: str, application: str
) -> tuple[list[float], list[dict[str, int]], int]:
    spans: list[float] = []
    seen: list[dict[str, int]] = []
    end = time.perf_counter() + seconds

    async def look() -> None:
        while time.perf_counter() < end:
            seen.append(await asyncio.to_thread(_connections, database, application))
            await asyncio.sleep(LOOK_EVERY)

    looking = asyncio.create_task(look())
    most = server.memory_info().rss
    while (begun := time.perf_counter()) < end:
        await worker.beat()
        spans.append(time.perf_counter() - begun)
        most = max(most, server.memory_info().rss)
        await asyncio.sleep(max(0.0, BEAT_EVERY - spans[-1]))
    await looking
    return spans, seen, most


async def _arrive(whom: Target, tasks: list[str], offset: int) -> list[asyncio.Task[Any]]:
    """Requests that wait, sent some at a time; a server would refuse all at once."""
    gate = asyncio.Semaphore(ARRIVING)
    answers = []
    for number, task in enumerate(tasks, offset):
        async with gate:
            connection = Connection(whom, f"127.0.0.{1 + number // PER_ADDRESS}")
            await connection.open()
            request = connection.send("GET", f"{PREFIX}/tasks/{task}", wait=WAIT)
            answers.append(asyncio.create_task(request))
        if number % ARRIVING == 0:
            # A request on a connection of its own returns when those before it were looked at.
            probe = Connection(whom)
            await probe.send("GET", "/v1/problems/not-found")
            probe.close()
    return answers


def _connections(database: str, application: str) -> dict[str, int]:
    """The server's connections to the database by state, but those that rest in a pool."""
    with psycopg.connect(database, autocommit=True) as connection:
        rows = connection.execute(
            "SELECT coalesce(state, '') FROM pg_stat_activity WHERE application_name = %s",
            [application],
        ).fetchall()
    states = Counter(row[0] for row in rows)
    return {"all": states.total(), "busy": states.total() - states["idle"]}
