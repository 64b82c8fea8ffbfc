"""Progress reports of many workers beside a watcher of each worker's first task."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import psutil

from benchmarks.driver.api import PREFIX, Client
from benchmarks.driver.meter import Meter, percentile
from benchmarks.driver.wire import Failed, Target

#: Seconds in `Prefer: wait=` of a watcher.
WAIT = 30
#: Seconds of reports before the measurement.
WARM_UP = 1.0
ETAG = re.compile(rb"\r\netag: ([^\r]+)", re.IGNORECASE)


async def run(
    targets: list[dict[str, Any]],
    watch_at: dict[str, Any],
    workers: int,
    rate: int,
    seconds: float,
    together: bool,
    servers: list[int],
) -> dict[str, Any]:
    """Report `rate` times a second, from these workers, and watch one task of each.

    With `together` a worker has a task for each of its reports in a second, and sends these in one
    request, as the SDK does; else it has one task, and a request for each report. `servers` are the
    process ids of the servers, whose CPU seconds are measured.
    """
    each = rate // workers
    clients = [Client(Target(**targets[number % len(targets)])) for number in range(workers)]
    watchers = [Client(Target(**watch_at)) for _ in clients]
    tasks = [await _begin(client, each if together else 1) for client in clients]
    spans: list[float] = []
    watching = [
        asyncio.create_task(_watch(watcher, held[0]["id"], spans))
        for watcher, held in zip(watchers, tasks, strict=True)
    ]
    report = _report_together if together else _report
    pause = 1.0 if together else workers / rate
    counts = [0]
    end = time.perf_counter() + WARM_UP + seconds

    async def work(number: int) -> None:
        # Not all at once, because workers of a site do not report in step.
        due = time.perf_counter() + pause * number / workers
        while due < end:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            reported = await report(clients[number], tasks[number])
            counts[0] += reported
            due = max(due + pause, time.perf_counter())

    working = asyncio.gather(*(work(number) for number in range(workers)))
    await asyncio.sleep(WARM_UP)
    spans.clear()
    counts[0], cpu = 0, _cpu(servers)
    with Meter() as meter:
        await working
    used = _cpu(servers) - cpu
    for one in watching:
        one.cancel()
    failed = await asyncio.gather(*watching, return_exceptions=True)
    for watcher in watchers:
        watcher.connection.close()
    for client, held in zip(clients, tasks, strict=True):
        await client.connection.ask("PATCH", f"{PREFIX}/tasks", _bodies(held, "completed"))
        await client.leave()
    for error in failed:
        if isinstance(error, Exception):
            raise error
    return {
        "rate": counts[0] / meter.seconds,
        "cores": used / meter.seconds,
        "cpu_each": used / counts[0],
        "seen": len(spans) / meter.seconds,
        "p50": percentile(spans, 0.5),
        "p99": percentile(spans, 0.99),
        "cpu_share": meter.cpu_share,
    }


async def _begin(client: Client, count: int) -> list[Any]:
    await client.register(jobs=1)
    for _ in range(count):
        await client.submit()
    return [await client.claim(start=True) for _ in range(count)]


def _bodies(held: list[Any], status: str, **fields: Any) -> list[dict[str, Any]]:
    return [
        {"id": task["id"], "attempt": task["attempt"], "status": status, **fields} for task in held
    ]


async def _report_together(client: Client, held: list[Any]) -> int:
    body = _bodies(held, "running", message=str(time.perf_counter()))
    for result in await client.connection.ask("PATCH", f"{PREFIX}/tasks", body):
        if result["status"] != 200:
            raise Failed(f"a report was refused: {result}")
    return len(held)


async def _report(client: Client, held: list[Any]) -> int:
    await client.report(held[0], "running", message=str(time.perf_counter()))
    return 1


async def _watch(client: Client, task_id: str, spans: list[float]) -> None:
    """Follow the changes of a task; its message is the time at which it was sent."""
    tag = ""
    while True:
        path = f"{PREFIX}/tasks/{task_id}"
        reply = await client.connection.send("GET", path, wait=WAIT if tag else None, tag=tag)
        found = ETAG.search(reply.head)
        if reply.status not in {200, 304} or found is None:
            raise Failed(f"{path}: {reply.status} {reply.body[:200]!r}")
        tag = found[1].decode()
        if reply.status == 200 and (message := reply.json()["message"]):
            spans.append(time.perf_counter() - float(message))


def _cpu(pids: list[int]) -> float:
    """CPU seconds of processes."""
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)
