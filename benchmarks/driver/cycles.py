"""Full cycles of submit, claim, running, completed, on several connections at once."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from benchmarks.driver.api import Client, supports
from benchmarks.driver.meter import Meter, percentile
from benchmarks.driver.wire import Failed, Target

WARM_UP_SECONDS = 0.4


@dataclass
class Tally:
    """Durations of the cycles finished within the time, empty claims and failed requests."""

    spans: list[float] = field(default_factory=list)
    empty: int = 0
    failures: Counter[str] = field(default_factory=Counter)


async def run(
    target: dict[str, Any],
    connections: int,
    seconds: float,
    start: bool = False,
    result_bytes: int = 0,
) -> dict[str, Any]:
    """Cycles a second; with `start` the claim starts the task, so a cycle has three requests.

    With `result_bytes` each task is completed with a result of that size. All workers serve one
    job, so a claim may return a task that another connection submitted.
    """
    clients = [Client(Target(**target)) for _ in range(connections)]
    for client in clients:
        await client.register(jobs=1)
    options = {"start": True} if start else {}
    if start and not await supports(clients[0], options):
        return {"available": False}
    end = {"result": "x" * (result_bytes - 2)} if result_bytes else {}
    await _all(clients, WARM_UP_SECONDS, options, end)
    with Meter() as meter:
        tally = await _all(clients, seconds, options, end)
    for client in clients:
        await client.leave()
    return {
        "available": True,
        "rate": len(tally.spans) / seconds,
        "p50": percentile(tally.spans, 0.5) if tally.spans else 0.0,
        "p99": percentile(tally.spans, 0.99) if tally.spans else 0.0,
        "empty": tally.empty,
        "failures": tally.failures,
        "cpu_share": meter.cpu_share,
    }


async def _all(
    clients: list[Client], seconds: float, options: dict[str, Any], end: dict[str, Any]
) -> Tally:
    """Run cycles for this time; `options` and `end` are added to claims and to the last reports."""
    tally = Tally()
    until = time.perf_counter() + seconds
    await asyncio.gather(*(_loop(client, until, options, end, tally) for client in clients))
    return tally


async def _loop(
    client: Client, until: float, options: dict[str, Any], end: dict[str, Any], tally: Tally
) -> None:
    while (begun := time.perf_counter()) < until:
        try:
            await client.submit()
            task = await client.claim(**options)
            if task is None:
                tally.empty += 1
                continue
            await client.finish(task, **end)
        except Failed as failure:
            tally.failures[str(failure)[:160]] += 1
            # A pause, because a server that fails at once would be flooded with requests.
            await asyncio.sleep(0.05)
            continue
        done = time.perf_counter()
        if done <= until:
            tally.spans.append(done - begun)
