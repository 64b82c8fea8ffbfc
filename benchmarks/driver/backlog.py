"""Latency of single requests at a constant backlog: each sample finishes the task it submits."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import Any, TypeVar

from benchmarks.driver.api import Client
from benchmarks.driver.meter import Meter
from benchmarks.driver.wire import Failed, Target

T = TypeVar("T")


async def register(target: dict[str, Any], jobs: list[int]) -> list[str]:
    """Create one worker for each number of jobs and register it; returns the workers' ids."""
    ids = []
    for number in jobs:
        client = await Client(Target(**target)).register(number)
        client.connection.close()
        ids.append(client.worker_id)
    return ids


class Place:
    """A server whose database has a certain backlog, and a worker that registered `jobs` jobs."""

    def __init__(self, target: dict[str, Any], worker: str, jobs: int) -> None:
        self._client = Client(Target(**target), worker_id=worker)
        self._jobs = jobs
        self._turn = 0
        self.spans: dict[str, list[float]] = {}

    async def sample(self) -> None:
        """Time a submit, a claim, GETs and a heartbeat; then finish the claimed task."""
        client = self._client
        submitted = await self._timed("submit", client.submit(self._turn % self._jobs))
        self._turn += 1
        if client.target.ours:
            await self._timed("GET pending task", client.get(submitted["id"]))
        claimed = await self._timed("claim", client.claim())
        if claimed is None:
            raise Failed("the claim returned no task although one is pending")
        if client.target.ours:
            await self._timed("GET claimed task", client.get(claimed["id"]))
            await self._timed("heartbeat", client.heartbeat())
        await client.finish(claimed)

    async def _timed(self, verb: str, request: Awaitable[T]) -> T:
        begun = time.perf_counter()
        result = await request
        self.spans.setdefault(verb, []).append(time.perf_counter() - begun)
        return result


async def run(
    places: list[dict[str, Any]], samples: int, warm_up: int, seconds: float
) -> dict[str, Any]:
    """Times of single requests at each place, in the order of `places`.

    Each sample visits all places, so that a slow moment of the machine affects all of them. The
    measurement ends early after `seconds`.
    """
    visited = [Place(**place) for place in places]
    for _ in range(warm_up):
        for place in visited:
            await place.sample()
            place.spans.clear()
    end = time.perf_counter() + seconds
    with Meter() as meter:
        for _ in range(samples):
            for place in visited:
                await place.sample()
            if time.perf_counter() > end:
                break
    return {"spans": [place.spans for place in visited], "cpu_share": meter.cpu_share}
