"""Thousands of requests that wait in one server process, and the latency of heartbeats."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import psutil
import psycopg

from benchmarks.driver.api import PREFIX, Client
from benchmarks.driver.meter import Meter, percentile
from benchmarks.driver.wire import Connection, Failed, Target

#: Seconds in `Prefer: wait=`; the longest wait that the project honours.
WAIT = 120
#: Waiters whose memory does not count, because they cause the allocations that happen only once.
WARM_UP = 300
#: Connections that are opened at once.
OPENED_AT_ONCE = 64
#: Waiters that share a loopback address, which has some 28,000 ports.
PER_ADDRESS = 5_000
#: Seconds between two heartbeats, and between two counts of the database's connections.
HEARTBEAT_EVERY, COUNT_EVERY = 0.05, 0.25


async def run(
    target: dict[str, Any],
    pid: int,
    tasks: list[str],
    seconds: float,
    database: str,
    application: str,
    beats: bool = False,
) -> dict[str, Any]:
    """Let one request wait for each of these tasks; `pid` is the id of the server's process.

    With `beats` the requests are heartbeats of one worker, each of which lists one of the tasks;
    the worker claims these first.

    `application` is the `application_name` of the server's connections to `database`.
    """
    endpoint = Target(**target)
    server = psutil.Process(pid)
    worker = await Client(endpoint).register(jobs=1)
    if beats:
        requests = [
            ("PATCH", f"{PREFIX}/workers/{worker.worker_id}", {"tasks": [grant]})
            for grant in await _claim(worker, len(tasks))
        ]
    else:
        requests = [("GET", f"{PREFIX}/tasks/{task}", None) for task in tasks]
    first = await _arrive(endpoint, requests[:WARM_UP], 0)
    base = server.memory_info().rss
    before = await asyncio.to_thread(count_connections, database, application)
    begun = time.perf_counter()
    rest = await _arrive(endpoint, requests[WARM_UP:], WARM_UP)
    arrived = time.perf_counter() - begun
    # By then the last waiters have joined their groups and queried the database again.
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
        "wanted": len(requests),
        "answered": answers,
        "bytes_each": (most_rss - base) / len(rest),
        "threads": server.num_threads(),
        "arrival_seconds": arrived,
        "connections_before": before,
        "connections": seen,
        "heartbeats": len(spans),
        "p50": percentile(spans, 0.5),
        "p99": percentile(spans, 0.99),
        "cpu_share": meter.cpu_share,
    }


async def _watch(
    worker: Client, server: psutil.Process, seconds: float, database: str, application: str
) -> tuple[list[float], list[dict[str, int]], int]:
    spans: list[float] = []
    seen: list[dict[str, int]] = []
    end = time.perf_counter() + seconds

    async def count_often() -> None:
        while time.perf_counter() < end:
            seen.append(await asyncio.to_thread(count_connections, database, application))
            await asyncio.sleep(COUNT_EVERY)

    counting = asyncio.create_task(count_often())
    most = server.memory_info().rss
    while (begun := time.perf_counter()) < end:
        await worker.heartbeat()
        spans.append(time.perf_counter() - begun)
        most = max(most, server.memory_info().rss)
        await asyncio.sleep(max(0.0, HEARTBEAT_EVERY - spans[-1]))
    await counting
    return spans, seen, most


async def _claim(worker: Client, count: int) -> list[dict[str, Any]]:
    """Claim so many tasks; returns their grants."""
    granted: list[dict[str, Any]] = []
    while len(granted) < count:
        body = {"worker_id": worker.worker_id, "limit": min(100, count - len(granted))}
        claimed = (await worker.connection.ask("POST", f"{PREFIX}/tasks/claim", body))["tasks"]
        if not claimed:
            raise Failed(f"only {len(granted)} of {count} tasks could be claimed")
        granted += [{"id": task["id"], "attempt": task["attempt"]} for task in claimed]
    return granted


async def _arrive(
    endpoint: Target, requests: list[tuple[str, str, Any]], offset: int
) -> list[asyncio.Task[Any]]:
    """Send requests that wait, some at a time because a server would refuse all at once."""
    gate = asyncio.Semaphore(OPENED_AT_ONCE)
    answers = []
    for number, (method, path, body) in enumerate(requests, offset):
        async with gate:
            connection = Connection(endpoint, f"127.0.0.{1 + number // PER_ADDRESS}")
            await connection.open()
            request = connection.send(method, path, body, wait=WAIT)
            answers.append(asyncio.create_task(request))
        if number % OPENED_AT_ONCE == 0:
            # The response to this request shows that the server has accepted the ones before it.
            probe = Connection(endpoint)
            await probe.send("GET", "/v1/problems/not-found")
            probe.close()
    return answers


def count_connections(database: str, application: str) -> dict[str, int]:
    """Numbers of the server's database connections: `all`, and `busy` without the idle ones."""
    with psycopg.connect(database, autocommit=True) as connection:
        rows = connection.execute(
            "SELECT coalesce(state, '') FROM pg_stat_activity WHERE application_name = %s",
            [application],
        ).fetchall()
    states = Counter(row[0] for row in rows)
    return {"all": states.total(), "busy": states.total() - states["idle"]}
