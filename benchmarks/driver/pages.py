"""Latency of pages of a list, and the link to a list's next page."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.driver.meter import Meter
from benchmarks.driver.wire import Connection, Failed, Target


async def run(target: dict[str, Any], paths: dict[str, list[str]]) -> dict[str, Any]:
    """Times in seconds and lengths of the returned arrays, by the names of the groups of paths."""
    connection = await Connection(Target(**target)).open()
    spans: dict[str, list[float]] = {name: [] for name in paths}
    lengths: dict[str, list[int]] = {name: [] for name in paths}
    for group in paths.values():
        await connection.ask("GET", group[0])
    with Meter() as meter:
        for turn in range(max(map(len, paths.values()))):
            for name, group in paths.items():
                if turn < len(group):
                    begun = time.perf_counter()
                    reply = await connection.send("GET", group[turn])
                    spans[name].append(time.perf_counter() - begun)
                    if reply.status != 200:
                        raise Failed(f"{group[turn]}: {reply.status} {reply.body[:200]!r}")
                    lengths[name].append(len(reply.json()))
    connection.close()
    return {"spans": spans, "lengths": lengths, "cpu_share": meter.cpu_share}


async def link(target: dict[str, Any], path: str) -> str:
    """Path and query of the next page, from the response's `Link` header; empty without one."""
    connection = await Connection(Target(**target)).open()
    reply = await connection.send("GET", path)
    connection.close()
    for line in reply.head.decode().split("\r\n"):
        name, _, value = line.partition(":")
        if name.lower() == "link":
            return (
                value.partition("<")[2].partition(">")[0].partition(f":{target['port']}")[2]
                or (value.partition("<")[2].partition(">")[0].partition("127.0.0.1")[2])
            )
    return ""
