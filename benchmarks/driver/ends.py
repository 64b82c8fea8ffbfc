"""Time from just before the report of a task's end to the response that its waiter gets."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import Any

from benchmarks.driver.api import Client
from benchmarks.driver.meter import Meter, percentile
from benchmarks.driver.wire import Failed, Target

WAIT = 30
#: Seconds after which a request that was sent is surely waiting in the server.
PAUSE = 0.05


async def run(
    worker_at: dict[str, Any], waiter_at: dict[str, Any], samples: int, result_bytes: int = 0
) -> dict[str, Any]:
    """Times in seconds for `samples` tasks that their worker completes, with such a result."""
    fields = {"result": "x" * (result_bytes - 2)} if result_bytes else {}
    worker = await Client(Target(**worker_at)).register(jobs=1)
    waiter = Client(Target(**waiter_at))
    spans = []
    with Meter() as meter:
        for _ in range(samples):
            task, waiting = await _begin(worker, waiter)
            begun = time.perf_counter()
            reported = asyncio.create_task(worker.report(task, "completed", **fields))
            spans.append(await waiting - begun)
            await reported
    await worker.leave()
    return _result(spans, meter)


async def run_swept(
    worker_at: dict[str, Any],
    waiter_at: dict[str, Any],
    samples: int,
    sweeper: list[str],
    env: dict[str, str],
) -> dict[str, Any]:
    """Times in seconds for `samples` tasks that a sweeper in a process of its own ends.

    They start at `completed_at`, which the database writes before the commit.
    """
    child = await asyncio.create_subprocess_exec(
        *sweeper, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=env
    )
    assert child.stdin is not None
    assert child.stdout is not None
    worker = await Client(Target(**worker_at)).register(jobs=1)
    waiter = Client(Target(**waiter_at))
    spans = []
    try:
        await asyncio.wait_for(child.stdout.readline(), 60)
        with Meter() as meter:
            for _ in range(samples):
                task, waiting = await _begin(worker, waiter, wall=True)
                child.stdin.write(f"{task['id']}\n".encode())
                arrived = await waiting
                await asyncio.wait_for(child.stdout.readline(), 30)
                ended = await waiter.get(task["id"])
                if ended["status"] != "failed":
                    raise Failed(f"the sweeper did not end the task: {ended}")
                spans.append(arrived - datetime.fromisoformat(ended["completed_at"]).timestamp())
    finally:
        child.stdin.close()
        await asyncio.wait_for(child.wait(), 15)
    await worker.leave()
    return _result(spans, meter)


async def _begin(worker: Client, waiter: Client, wall: bool = False) -> tuple[Any, Any]:
    """A running task, and a future of the time at which its waiter gets the response."""
    await worker.submit()
    claimed = await worker.claim()
    task = await worker.report(claimed, "running")

    async def wait() -> float:
        ended = await waiter.get(task["id"], wait=WAIT)
        now = time.time() if wall else time.perf_counter()
        if ended["status"] not in {"completed", "failed"}:
            raise Failed(f"the wait ended before the task: {ended}")
        return now

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(PAUSE)
    return task, waiting


def _result(spans: list[float], meter: Meter) -> dict[str, Any]:
    p50, p99 = percentile(spans, 0.5), percentile(spans, 0.99)
    return {"spans": spans, "p50": p50, "p99": p99, "cpu_share": meter.cpu_share}
