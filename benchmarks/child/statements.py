"""Counts the SQL statements of each request to the site's WSGI application: ``statements TOKEN``.

It prints, for each kind of request, the number of statements without transaction control, and the
number of transaction control statements (BEGIN, COMMIT, ...). The counts are those of the second
request of a kind, when the process has the token and the job in its caches.
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
    """An HTTP client; `counts` maps a request's label to (statements, transaction control)."""

    def __init__(self, token: str) -> None:
        self._token = token
        self.counts: dict[str, tuple[int, int]] = {}

    def ask(self, label: str, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Send a request and count its statements under `label`; returns the response's JSON."""
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
            raise SystemExit(f"{label}: {status[0]} {answer[:300]!r}")
        words = [query["sql"].split(None, 1)[0].strip(";").upper() for query in captured]
        control = sum(word in CONTROL for word in words)
        self.counts[label] = (len(words) - control, control)
        return json.loads(answer) if answer else None

    def cycle(self, worker: str, key: str) -> None:
        """Send each kind of request in a task's life once."""
        ask, beat = self.ask, f"{PREFIX}/workers/{worker}"
        by_worker = {"worker_id": worker}
        ask("heartbeat", "PATCH", beat, {})
        ask("submit", "POST", TASKS, {"payload": {}})
        ask("submit with a key", "POST", TASKS, {"payload": {}}, HTTP_IDEMPOTENCY_KEY=f'"{key}"')
        claimed = ask("claim", "POST", f"{PREFIX}/tasks/claim", by_worker)["task"]
        task, attempt = f"{PREFIX}/tasks/{claimed['id']}", {"attempt": claimed["attempt"]}
        ask("start", "PATCH", task, {"status": "running", **attempt})
        ask("heartbeat with tasks", "PATCH", beat, {})
        ask("finish", "PATCH", task, {"status": "completed", **attempt})
        ask("GET task", "GET", task)
        starting = {**by_worker, "start": True}
        other = ask("claim with `start`", "POST", f"{PREFIX}/tasks/claim", starting)
        task, attempt = f"{PREFIX}/tasks/{other['task']['id']}", {"attempt": 1}
        ask("finish", "PATCH", task, {"status": "completed", **attempt})
        if ask("claim of nothing", "POST", f"{PREFIX}/tasks/claim", by_worker)["task"]:
            raise SystemExit("a task is left in the backlog")


def main() -> None:
    caller = Caller(sys.argv[1])
    worker = caller.ask("", "POST", f"{PREFIX}/workers")["id"]
    job = {"category": "analysis", "name": "Job000", "schema": {}, "worker_id": worker}
    caller.ask("", "PUT", f"{PREFIX}/rooms/bench/jobs", job)
    # A new database has a pending task, which the counted claims must not be granted.
    claim = {"worker_id": worker, "start": True}
    while task := caller.ask("", "POST", f"{PREFIX}/tasks/claim", claim)["task"]:
        end = {"status": "completed", "attempt": task["attempt"]}
        caller.ask("", "PATCH", f"{PREFIX}/tasks/{task['id']}", end)
    caller.cycle(worker, "first")
    caller.cycle(worker, "second")
    del caller.counts[""]
    print(json.dumps(caller.counts))


if __name__ == "__main__":
    main()
