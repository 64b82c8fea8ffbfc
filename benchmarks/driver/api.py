"""The requests that both this project and the original understand."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.driver.wire import Connection, Failed, Target

ROOM = "bench"
PREFIX = "/v1/joblib"


def full_name(job: int) -> str:
    """The full name of the job with this number."""
    return f"{ROOM}:analysis:Job{job:03}"


class Client:
    """A user's connection; after `register` a worker's."""

    def __init__(self, target: Target, local: str = "127.0.0.1", worker_id: str = "") -> None:
        self.target = target
        self.worker_id = worker_id
        self.connection = Connection(target, local)

    async def register(self, jobs: int) -> Client:
        """Create a worker and register it for the first `jobs` jobs."""
        worker = await self._send_throttled("POST", f"{PREFIX}/workers")
        self.worker_id = worker["id"]
        for job in range(jobs):
            body = {"category": "analysis", "name": f"Job{job:03}", "schema": {}}
            body["worker_id"] = self.worker_id
            await self._send_throttled("PUT", f"{PREFIX}/rooms/{ROOM}/jobs", body)
        return self

    async def _send_throttled(self, method: str, path: str, body: Any = None) -> Any:
        # Repeats a request that the throttle refused: registrations are not measured.
        for _ in range(20):
            reply = await self.connection.send(method, path, body)
            if reply.status != 429:
                break
            await asyncio.sleep(1)
        if reply.status >= 400:
            raise Failed(f"{method} {path}: {reply.status} {reply.body[:200]!r}")
        return reply.json()

    async def leave(self) -> None:
        """Delete the worker and close the connection."""
        if self.worker_id:
            await self.connection.send("DELETE", f"{PREFIX}/workers/{self.worker_id}")
        self.connection.close()

    async def submit(self, job: int = 0, payload: Any = None) -> Any:
        """Submit a task; returns the task."""
        path = f"{PREFIX}/rooms/{ROOM}/tasks/{full_name(job)}"
        return await self.connection.ask("POST", path, {"payload": payload or {}})

    async def claim(self, wait: int | None = None, **options: Any) -> Any:
        """Claim a task; returns the task or None. `options` are further members of the body."""
        body = {"worker_id": self.worker_id, **options}
        return (await self.connection.ask("POST", f"{PREFIX}/tasks/claim", body, wait))["task"]

    async def report(self, task: Any, status: str, **fields: Any) -> Any:
        """Report a status of a claimed task; returns the task. `fields` are added to the body."""
        body = {"status": status, **fields}
        if self.target.ours:
            body["attempt"] = task["attempt"]
        return await self.connection.ask("PATCH", f"{PREFIX}/tasks/{task['id']}", body)

    async def finish(self, task: Any, **fields: Any) -> Any:
        """Report a claimed task as completed, before that as running unless it is; returns it."""
        if task["status"] != "running":
            await self.report(task, "running")
        return await self.report(task, "completed", **fields)

    async def get(self, task_id: str, wait: int | None = None) -> Any:
        """Read a task; `wait` is the `Prefer: wait=` in seconds."""
        return await self.connection.ask("GET", f"{PREFIX}/tasks/{task_id}", wait=wait)

    async def heartbeat(self) -> Any:
        """Send a heartbeat."""
        return await self.connection.ask("PATCH", f"{PREFIX}/workers/{self.worker_id}", {})


async def supports(client: Client, options: dict[str, Any]) -> bool:
    """Whether the server accepts these members of a claim's body."""
    body = {"worker_id": client.worker_id, **options}
    reply = await client.connection.send("POST", f"{PREFIX}/tasks/claim", body)
    return reply.status < 400
