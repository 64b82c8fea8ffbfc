"""Statements that each request executes, by the site's WSGI application: ``statements TOKEN``.

It prints, by what is asked, how many there were besides BEGIN, COMMIT and the like, and how many of
those: the second time, when the process has seen the token and the job.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from typing import Any
from wsgiref.util import setup_testing_defaults

from django.db import connection
from django.test.utils import CaptureQueriesContext

from example_project.wsgi import application

PREFIX = "/v1/joblib"
TASKS = f"{PREFIX}/rooms/bench/tasks/bench:analysis:Job000"
CONTROL = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")


class Caller:
    """Somebody who sends requests; `counts` is by what was asked: (statements, BEGIN and so on)."""

    def __init__(self, token: str) -> None:
        self._token = token
        self.counts: dict[str, tuple[int, int]] = {}

    def ask(self, what: str, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Send a request and count; returns the answer's JSON."""
        content = b"" if body is None else json.dumps(body).encode()
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "HTTP_AUTHORIZATION": f"Token {self._token}",
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(content)),
            "wsgi.input": io.BytesIO(content),
            "REMOTE_ADDR": "127.0.0.1",
            **headers,
        }
        setup_testing_defaults(environ)
        status = []
        start: Callable[..., Any] = lambda line, *_: status.append(line)  # noqa: E731
        with CaptureQueriesContext(connection) as captured:
            answer = b"".join(application(environ, start))
        if status[0] >= "4":
            raise SystemExit(f"{what}: {status[0]} {answer[:300]!r}")
        words = [query["sql"].split(None, 1)[0].strip(";").upper() for query in captured]
        control = sum(word in CONTROL for word in words)
        self.counts[what] = (len(words) - control, control)
        return json.loads(answer) if answer else None

    def cycle(self, worker: str, key: str) -> None:
        """All that happens to a task."""
        ask, beat = self.ask, f"{PREFIX}/workers/{worker}"
        mine = {"worker_id": worker}
        ask("heartbeat", "PATCH", beat, {})
        ask("submit", "POST", TASKS, {"payload": {}})
        ask("submit with a key", "POST", TASKS, {"payload": {}}, HTTP_IDEMPOTENCY_KEY=f'"{key}"')
        claimed = ask("claim", "POST", f"{PREFIX}/tasks/claim", mine)["task"]
        task, attempt = f"{PREFIX}/tasks/{claimed['id']}", {"attempt": claimed["attempt"]}
        ask("start", "PATCH", task, {"status": "running", **attempt})
        ask("heartbeat with tasks", "PATCH", beat, {})
        ask("finish", "PATCH", task, {"status": "completed", **attempt})
        ask("GET task", "GET", task)
        other = ask("claim with `start`", "POST", f"{PREFIX}/tasks/claim", {**mine, "start": True})
        task, attempt = f"{PREFIX}/tasks/{other['task']['id']}", {"attempt": 1}
        ask("finish", "PATCH", task, {"status": "completed", **attempt})
        if ask("claim of nothing", "POST", f"{PREFIX}/tasks/claim", mine)["task"]:
            raise SystemExit("a task is left")


def main() -> None:
    caller = Caller(sys.argv[1])
    worker = caller.ask("", "POST", f"{PREFIX}/workers")["id"]
    job = {"category": "analysis", "name": "Job000", "schema": {}, "worker_id": worker}
    caller.ask("", "PUT", f"{PREFIX}/rooms/bench/jobs", job)
    # A database just made has a pending task.
    wish = {"worker_id": worker, "start": True}
    while task := caller.ask("", "POST", f"{PREFIX}/tasks/claim", wish)["task"]:
        end = {"status": "completed", "attempt": task["attempt"]}
        caller.ask("", "PATCH", f"{PREFIX}/tasks/{task['id']}", end)
    caller.cycle(worker, "first")
    caller.cycle(worker, "second")
    del caller.counts[""]
    print(json.dumps(caller.counts))


if __name__ == "__main__":
    main()
