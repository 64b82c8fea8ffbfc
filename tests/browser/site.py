"""A running example project, whose server can be restarted at its port."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

import httpx

from tests.servers import free_port, server


class Site(str):
    """The URL of the site, with the users' tokens and cookies by name."""

    tokens: dict[str, str]
    cookies: dict[str, str]
    is_stopped: bool
    _server: ExitStack

    def __new__(cls) -> Site:
        self = super().__new__(cls, f"http://127.0.0.1:{free_port()}")
        self.tokens, self.cookies, self._server = {}, {}, ExitStack()
        self.is_stopped = True
        return self

    def start(self) -> None:
        """Start the server at the same port as before; it answers when this returns."""
        port = self.rpartition(":")[2]
        self._server.enter_context(server(port=port, DEMO_KEY="a demo"))
        self.is_stopped = False

    def stop(self) -> None:
        """Stop the server."""
        self._server.close()
        self.is_stopped = True

    def request(self, method: str, path: str, user: str = "ada", **options: Any) -> Any:
        """The JSON of an answer of the API; `path` begins after ``/v1/joblib/``."""
        answer = httpx.request(
            method,
            f"{self}/v1/joblib/{path}",
            headers={"Authorization": f"Token {self.tokens[user]}"},
            timeout=30,
            **options,
        )
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def submit(self, room: str, name: str, user: str = "ada", **payload: Any) -> str:
        """Submit a task of a global job of the category `analysis`; returns its id."""
        return self.submit_job(room, f"@global:analysis:{name}", user, **payload)

    def submit_job(self, room: str, full_name: str, user: str = "ada", **payload: Any) -> str:
        """Submit a task of a job; returns its id."""
        path = f"rooms/{room}/tasks/{full_name}"
        identity: str = self.request("POST", path, user, json={"payload": payload})["id"]
        return identity

    def wait_for(self, task: str, *statuses: str, seconds: float = 30) -> dict[str, Any]:
        """The task as soon as it has one of these statuses."""
        deadline = time.monotonic() + seconds
        while (found := self.request("GET", f"tasks/{task}"))["status"] not in statuses:
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
        return dict(found)
