"""Times submit to start and end to waiter in the original: ``original_waits.py URL TASKS``.

Runs in the original's environment. Eight of its `JobManager`s, each with a job of its own, run
tasks of up to four seconds one by one; for each task a waiter repeats long polls. Prints JSON.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar

import httpx

from zndraw_joblib import Category, ClaimedTask, Extension, JobManager

MANAGERS = 8
LONGEST = 4.0


class Api:
    """The interface that a `JobManager` expects of its host."""

    def __init__(self, url: str) -> None:
        self.base_url = url
        self.http = httpx.Client(timeout=90)

    def get_headers(self) -> dict[str, str]:
        """No headers, because authentication is off."""
        return {}

    def raise_for_status(self, response: httpx.Response) -> None:
        """Raise httpx's error for a status of 400 or more."""
        response.raise_for_status()


class Timed(JobManager):
    """Records the time just before the last task's end is reported."""

    completing = 0.0

    def complete(self, task: ClaimedTask) -> None:
        """Record the time, then report the task as completed."""
        self.completing = time.monotonic()
        super().complete(task)


def run_tasks(url: str, tasks: int, number: int, found: dict[str, list[float]]) -> None:
    kind: Any = type(
        f"Wait{number}",
        (Extension,),
        {
            "__annotations__": {"category": ClassVar[Category], "seconds": float},
            "__module__": __name__,
            "category": Category.ANALYSIS,
            "seconds": 0.0,
            "run": lambda self, vis, **_: None,
        },
    )
    started: list[float] = []
    execute: Callable[[ClaimedTask], None] = lambda task: (  # noqa: E731
        started.append(time.monotonic()),
        time.sleep(task.extension.seconds),
    )
    manager = Timed(Api(url), execute=execute)
    manager.register(kind, room="bench")
    http = httpx.Client(base_url=f"{url}/v1/joblib", timeout=90)
    for _ in range(tasks):
        time.sleep(random.uniform(0, 2))
        submitted = time.monotonic()
        body = {"payload": {"seconds": random.uniform(0, LONGEST)}}
        reply = http.post(f"/rooms/bench/tasks/bench:analysis:Wait{number}", json=body)
        task_id = reply.json()["id"]
        while True:
            reply = http.get(f"/tasks/{task_id}", headers={"Prefer": "wait=60"})
            answered = time.monotonic()
            if reply.json()["status"] == "completed":
                break
        found["starts"].append(started[-1] - submitted)
        found["ends"].append(answered - manager.completing)
    manager.disconnect()


def main() -> None:
    url, tasks = sys.argv[1], int(sys.argv[2])
    found: dict[str, list[float]] = {"starts": [], "ends": []}
    threads = [
        threading.Thread(target=run_tasks, args=(url, tasks, number, found))
        for number in range(MANAGERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
