"""Users with a client of the API, a hook for room access, and checks of responses."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from rest_framework.test import APIClient

from example_project.accounts.models import User
from zndraw_joblib.models import Task

V1 = "/v1/joblib"
SCHEMA = {
    "type": "object",
    "properties": {"angle": {"type": "number"}},
    "additionalProperties": False,
}
ROTATE = "modifiers:Rotate"


def by_room(request: Any, room_id: str, action: str) -> bool:
    """Allow a room whose id begins with the user's name, `open` or `@global`."""
    return room_id.startswith(("open", "@global", request.user.username))


@dataclass(frozen=True)
class Person:
    """A user with an API client; `token` is empty for an anonymous one."""

    user: User
    token: str
    client: APIClient

    @property
    def identity(self) -> str:
        return str(self.user.pk)

    def get(self, path: str, **kwargs: Any) -> Any:
        return self.client.get(V1 + path, **kwargs)

    def send(self, method: str, path: str, body: Any = None, **kwargs: Any) -> Any:
        if body is not None:
            kwargs.update(data=body, format="json")
        return getattr(self.client, method)(V1 + path, **kwargs)

    def worker(self) -> str:
        return self.send("post", "/workers").json()["id"]

    def register(
        self, room: str = "open", schema: Any = SCHEMA, name: str = "Rotate", **body: Any
    ) -> Any:
        body = {"category": "modifiers", "name": name, "schema": schema, **body}
        return self.send("put", f"/rooms/{room}/jobs", body)

    def submit(self, room: str = "open", job: str = "open:modifiers:Rotate", **payload: Any) -> Any:
        return self.send("post", f"/rooms/{room}/tasks/{job}", {"payload": payload})

    def claim(self, worker_id: str | None = None) -> Any:
        body = {} if worker_id is None else {"worker_id": worker_id}
        return self.send("post", "/tasks/claim", body).json()["task"]

    def report_many(self, reports: list[Any]) -> Any:
        """The results of the reports, or the response when the batch was refused."""
        answer = self.send("patch", "/tasks", reports)
        return answer.json() if answer.status_code == 200 else answer

    def report(self, task_id: str, status: str, **body: Any) -> Any:
        return self.send("patch", f"/tasks/{task_id}", {"status": status, **body})


def problem(response: Any, slug: str, status: int) -> dict[str, Any]:
    """Assert that a response is this problem; returns its document."""
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    document = response.json()
    assert document["type"] == f"/v1/problems/{slug}", document
    assert document["status"] == status
    assert document["detail"]
    assert document["title"]
    return document


def grant_one(worker_id: str, identity: str) -> Any:
    """Claim one task with a lease of a minute; returns it, or None."""
    return next(iter(Task.objects.grant(worker_id, identity, timedelta(seconds=60))), None)
