"""Time from just before a submit to the response by which an idle worker gets the task."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from benchmarks.driver.api import Client
from benchmarks.driver.meter import Meter, percentile
from benchmarks.driver.wire import Failed, Target

#: Seconds for which the claim of an idle worker waits.
WAIT = 60
#: Seconds between two submits: long enough for the last winner to be idle again.
PAUSE = 0.04
#: Seconds after which a task counts as lost.
PATIENCE = 10.0


async def run(
    submit_to: dict[str, Any], claim_from: list[dict[str, Any]], idle: int, samples: int
) -> dict[str, Any]:
    """Times in seconds for `samples` tasks of one job.

    `idle` workers wait for it, evenly spread over the servers `claim_from`.
    """
    workers = []
    for number in range(idle):
        client = Client(Target(**claim_from[number % len(claim_from)]))
        workers.append(await client.register(jobs=1))
    submitter = Client(Target(**submit_to))
    counters = [Client(Target(**server)) for server in _servers(claim_from)]
    arrived: dict[int, asyncio.Future[float]] = {}
    waiting = [asyncio.create_task(_work(worker, arrived)) for worker in workers]
    # By then all claims wait: their first queries of the database are over.
    await asyncio.sleep(1.0 + 0.02 * idle)
    before = [await _claims(counter) for counter in counters]
    spans: list[float] = []
    lost = 0
    with Meter() as meter:
        for number in range(samples):
            arrived[number] = asyncio.get_running_loop().create_future()
            begun = time.perf_counter()
            await submitter.submit(payload={"n": number})
            try:
                spans.append(await asyncio.wait_for(arrived[number], PATIENCE) - begun)
            except TimeoutError:
                lost += 1
            await asyncio.sleep(PAUSE)
    after = [await _claims(counter) for counter in counters]
    for task in waiting:
        task.cancel()
    failures = await asyncio.gather(*waiting, return_exceptions=True)
    for worker in workers:
        worker.connection.close()
        await worker.leave()
    per_task = {
        kind: sum(last[kind] - first[kind] for last, first in zip(after, before, strict=True))
        / (samples * len(counters))
        for kind in ("woken", "claims")
    }
    return {
        "spans": spans,
        "p50": percentile(spans, 0.5),
        "p99": percentile(spans, 0.99),
        "lost": lost,
        # Per task and process; "claims" includes the first claim of each request, before its wait.
        **per_task,
        "failures": [repr(f) for f in failures if not isinstance(f, asyncio.CancelledError)],
        "cpu_share": meter.cpu_share,
    }


def _servers(targets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({server["port"]: server for server in targets}.values())


async def _claims(counter: Client) -> dict[str, int]:
    answer: dict[str, int] = await counter.connection.ask("GET", "/bench/claims")
    return answer


async def _work(worker: Client, arrived: dict[int, asyncio.Future[float]]) -> None:
    while True:
        task = await worker.claim(wait=WAIT)
        now = time.perf_counter()
        if task is None:
            continue
        future = arrived.get(task["payload"].get("n", -1))
        if future is None or future.done():
            raise Failed(f"a task came twice, or was never submitted: {task}")
        future.set_result(now)
        await worker.finish(task)
