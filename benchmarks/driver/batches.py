"""Batches of a hundred tasks: one request submits, one claims and one reports all of them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from benchmarks.driver.api import PREFIX, ROOM, Client, full_name, supports
from benchmarks.driver.cycles import WARM_UP_SECONDS
from benchmarks.driver.meter import Meter
from benchmarks.driver.wire import Failed, Target

SIZE = 100


@dataclass
class Tally:
    """Counts and times of the batches that were finished within the time."""

    tasks: int = 0
    #: Seconds of each submit, claim and report.
    spans: dict[str, list[float]] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)


async def run(target: dict[str, Any], connections: int, seconds: float) -> dict[str, Any]:
    """Tasks a second from submit to completed, over `connections` connections at once."""
    clients = [Client(Target(**target)) for _ in range(connections)]
    for client in clients:
        await client.register(jobs=1)
    if missing := await _missing(clients[0]):
        return {"available": False, "missing": missing}
    await _all(clients, WARM_UP_SECONDS)
    with Meter() as meter:
        tally = await _all(clients, seconds)
    for client in clients:
        await client.leave()
    means = {verb: sum(spans) / len(spans) for verb, spans in tally.spans.items() if spans}
    return {
        "available": True,
        "rate": tally.tasks / seconds,
        "means": means,
        "failures": tally.failures,
        "cpu_share": meter.cpu_share,
    }


async def _missing(client: Client) -> str:
    """The batch request that the server does not support; empty when it supports all three."""
    submitted = await client.connection.send("POST", _path(), [{"payload": {}}])
    if submitted.status != 202 or not isinstance(submitted.json(), list):
        return f"a submit of an array is answered {submitted.status}"
    if not await supports(client, {"limit": SIZE, "start": True}):
        return "`limit` and `start` of a claim are refused"
    reported = await client.connection.send("PATCH", f"{PREFIX}/tasks", [])
    if reported.status in {404, 405}:
        return f"`PATCH tasks` is answered {reported.status}"
    return ""


def _path() -> str:
    return f"{PREFIX}/rooms/{ROOM}/tasks/{full_name(0)}"


async def _all(clients: list[Client], seconds: float) -> Tally:
    tally = Tally(spans={"submit": [], "claim": [], "report": []})
    end = time.perf_counter() + seconds
    await asyncio.gather(*(_loop(client, end, tally) for client in clients))
    return tally


async def _loop(client: Client, end: float, tally: Tally) -> None:
    ask = client.connection.ask
    payloads = [{"payload": {}} for _ in range(SIZE)]
    claim = {"worker_id": client.worker_id, "limit": SIZE, "start": True}
    while time.perf_counter() < end:
        try:
            begun = time.perf_counter()
            await ask("POST", _path(), payloads)
            submitted = time.perf_counter()
            claimed = (await ask("POST", f"{PREFIX}/tasks/claim", claim))["tasks"]
            granted = time.perf_counter()
            reports = [
                {"id": task["id"], "status": "completed", "attempt": task["attempt"]}
                for task in claimed
            ]
            lines = await ask("PATCH", f"{PREFIX}/tasks", reports) if reports else []
            done = time.perf_counter()
        except Failed as failure:
            tally.failures[str(failure)[:160]] += 1
            await asyncio.sleep(0.05)
            continue
        refused = [line for line in lines if line["status"] >= 400]
        if refused:
            tally.failures[f"report in a batch: {refused[0]['status']}"] += len(refused)
        if done <= end:
            tally.tasks += len(lines) - len(refused)
            tally.spans["submit"].append(submitted - begun)
            tally.spans["claim"].append(granted - submitted)
            tally.spans["report"].append(done - granted)
