"""How long single requests take on tables as they are; samples leave the backlogs as long."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import Any, TypeVar

from benchmarks.driver.api import Client
from benchmarks.driver.meter import Meter
from benchmarks.driver.wire import Failed, Target

T = TypeVar("T")


async def enlist(target: dict[str, Any], jobs: list[int]) -> list[str]:
    """Register a worker for each number of jobs; returns their ids."""
    ids = []
    for number in jobs:
        client = await Client(Target(**target)).enlist(number)
        client.connection.close()
        ids.append(client.worker_id)
    return ids


class Place:
    """A server on a database with its backlog, and a worker that offers so many jobs."""

    def __init__(self, target: dict[str, Any], worker: str, jobs: int) -> None:
        self._client = Client(Target(**target), worker_id=worker)
        self._jobs = jobs
        self._turn = 0
        self.spans: dict[str, list[float]] = {}

    async def sample(self) -> None:
        """One submit to a job in turn, one claim, GETs, a heartbeat; then the task is finished."""
        client = self._client
        submitted = await self._timed("submit", client.submit(self._turn % self._jobs))
        self._turn += 1
        if client.target.ours:
            await self._timed("GET pending task", client.get(submitted["id"]))
        claimed = await self._timed("claim", client.claim())
        if claimed is None:
            raise Failed("a task is pending and the claim found none")
        if client.target.ours:
            await self._timed("GET claimed task", client.get(claimed["id"]))
            await self._timed("heartbeat", client.beat())
        await client.finish(claimed)

    async def _timed(self, verb: str, request: Awaitable[T]) -> T:
        begun = time.perf_counter()
        result = await request
        self.spans.setdefault(verb, []).append(time.perf_counter() - begun)
        return result


async def run(
    places: list[dict[str, Any]], samples: int, warm_up: int, seconds: float
) -> dict[str, Any]:
    """Times of single requests at each place, in their order.

    Samples go round the places, so that a slow moment of the machine is everybody's. It ends
    early after `seconds`.
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
    return {"spans": [place.spans for place in visited], "share": meter.share}
