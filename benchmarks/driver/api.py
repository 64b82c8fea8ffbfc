"""The job server's requests, as this project and the original understand them."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.driver.wire import Connection, Failed, Target

ROOM = "bench"
PREFIX = "/v1/joblib"


def full_name(job: int) -> str:
    """The name of the job of that number."""
    return f"{ROOM}:analysis:Job{job:03}"


class Client:
    """Somebody's connection; with `enlist` a worker's."""

    def __init__(self, target: Target, local: str = "127.0.0.1", worker_id: str = "") -> None:
        self.target = target
        self.worker_id = worker_id
        self.connection = Connection(target, local)

    async def enlist(self, jobs: int) -> Client:
        """Become a worker that registered the first `jobs` jobs."""
        made = await self._patiently("POST", f"{PREFIX}/workers")
        self.worker_id = made["id"]
        for job in range(jobs):
            body = {"category": "analysis", "name": f"Job{job:03}", "schema": {}}
            body["worker_id"] = self.worker_id
            await self._patiently("PUT", f"{PREFIX}/rooms/{ROOM}/jobs", body)
        return self

    async def _patiently(self, method: str, path: str, body: Any = None) -> Any:
        # Registrations are throttled, and are not what is measured.
        for _ in range(20):
            reply = await self.connection.send(method, path, body)
            if reply.status != 429:
                break
            await asyncio.sleep(1)
        if reply.status >= 400:
            raise Failed(f"{method} {path}: {reply.status} {reply.body[:200]!r}")
        return reply.json()

    async def leave(self) -> None:
        """Remove the worker and hang up."""
        if self.worker_id:
            await self.connection.send("DELETE", f"{PREFIX}/workers/{self.worker_id}")
        self.connection.close()

    async def submit(self, job: int = 0, payload: Any = None) -> Any:
        """Submit a task; returns it."""
        path = f"{PREFIX}/rooms/{ROOM}/tasks/{full_name(job)}"
        return await self.connection.ask("POST", path, {"payload": payload or {}})

    async def claim(self, wait: int | None = None, **wishes: Any) -> Any:
        """Claim; returns the task or None. `wishes` are further members of the body."""
        body = {"worker_id": self.worker_id, **wishes}
        return (await self.connection.ask("POST", f"{PREFIX}/tasks/claim", body, wait))["task"]

    async def report(self, task: Any, status: str) -> Any:
        """Report on a claimed task; returns it."""
        body = {"status": status}
        if self.target.ours:
            body["attempt"] = task["attempt"]
        return await self.connection.ask("PATCH", f"{PREFIX}/tasks/{task['id']}", body)

    async def finish(self, task: Any) -> Any:
        """Report the end of a claimed task, and its start if need be; returns it."""
        if task["status"] != "running":
            await self.report(task, "running")
        return await self.report(task, "completed")

    async def get(self, task_id: str, wait: int | None = None) -> Any:
        """Read a task."""
        return await self.connection.ask("GET", f"{PREFIX}/tasks/{task_id}", wait=wait)

    async def beat(self) -> Any:
        """Send a heartbeat."""
        return await self.connection.ask("PATCH", f"{PREFIX}/workers/{self.worker_id}", {})


async def supports(client: Client, wishes: dict[str, Any]) -> bool:
    """Whether the server knows these members of a claim's body."""
    body = {"worker_id": client.worker_id, **wishes}
    reply = await client.connection.send("POST", f"{PREFIX}/tasks/claim", body)
    return reply.status < 400
