"""How long single requests take on a table as it is; each sample leaves the backlog as long."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import Any, TypeVar

from benchmarks.driver.api import Client
from benchmarks.driver.meter import Meter
from benchmarks.driver.wire import Target

T = TypeVar("T")

WARM_UP = 5


async def enlist(target: dict[str, Any], jobs: list[int]) -> list[str]:
    """Register a worker for each number of jobs; returns their ids."""
    ids = []
    for number in jobs:
        client = await Client(Target(**target)).enlist(number)
        client.connection.close()
        ids.append(client.worker_id)
    return ids


async def run(
    target: dict[str, Any],
    worker: str,
    jobs: int,
    samples: int,
    seconds: float,
    reads: bool = True,
) -> dict[str, Any]:
    """Times of submit and claim and, with `reads`, of GET and heartbeat, by one worker.

    The worker offers the first `jobs` jobs; tasks are submitted to each in turn. It ends early
    after `seconds`.
    """
    client = Client(Target(**target), worker_id=worker)
    spans: dict[str, list[float]] = {}
    keep = False

    async def timed(verb: str, request: Awaitable[T]) -> T:
        begun = time.perf_counter()
        result = await request
        if keep:
            spans.setdefault(verb, []).append(time.perf_counter() - begun)
        return result

    warm_up = WARM_UP if reads else 1
    end = time.perf_counter() + seconds
    with Meter() as meter:
        for number in range(warm_up + samples):
            keep = number >= warm_up
            submitted = await timed("submit", client.submit(number % jobs))
            if reads:
                await timed("GET pending task", client.get(submitted["id"]))
            claimed = await timed("claim", client.claim())
            if claimed is None:
                raise RuntimeError("a task is pending and the claim found none")
            if reads:
                await timed("GET claimed task", client.get(claimed["id"]))
                await timed("heartbeat", client.beat())
            await client.finish(claimed)
            if keep and time.perf_counter() > end:
                break
    client.connection.close()
    return {"spans": spans, "share": meter.share}
