"""An in-process stand-in for the server, which records requests and returns planned answers."""

from __future__ import annotations

import json
import threading
import time
from typing import ClassVar

import httpx
from pydantic import BaseModel, Field

from zndraw_joblib.client import ClaimedTask

ENDED = {"completed", "failed", "cancelled"}
NOW = "2026-01-01T00:00:00Z"


class Lost(Exception):
    """A planned failure: the request takes effect, but its response is lost."""


class Server:
    """Answers like the server.

    `queue` has the tasks to grant. `fail` has, by method and path, errors to raise and responses to
    return before the usual answer. `calls` has the requests, `tasks` the reported statuses by id.
    """

    def __init__(self):
        self.calls, self.queue, self.fail, self.tasks = [], [], {}, {}
        self.workers, self.released = 0, threading.Event()
        self.honours_waits = True
        self.keys, self.interval, self.lease = [], 20.0, 60.0
        self.submitted, self.refused = {}, {}
        # Refusals of the first report of a status on a task, by id and status.
        self.refuse_once = {}
        self.hidden = set()
        # Tasks that were cancelled or lost while a worker held them.
        self.taken = {}
        # Further fields of tasks, by id. The result of a completed task is its id otherwise.
        self.values = {}
        # The texts of the logs, by id.
        self.logs = {}
        self.max_result_bytes = 262_144
        # Most results of the answer to a lookup.
        self.results_each = 500
        self.lock, self.changed = threading.RLock(), threading.Condition()

    def __call__(self, request):
        body = json.loads(request.content) if request.content else None
        path = request.url.raw_path.decode().removeprefix("/v1/joblib")
        call = (request.method, path, body)
        with self.lock:
            self.calls.append(call)
            if "idempotency-key" in request.headers:
                self.keys.append(request.headers["idempotency-key"])
            key = f"{request.method} {path}"
            planned = self.fail.get(key)
            if planned:
                failure = planned.pop(0)
                if isinstance(failure, Lost):
                    getattr(self, request.method.lower())(path, body, request)
                    raise httpx.ReadError("the answer was lost")
                if isinstance(failure, Exception):
                    raise failure
                return failure
        return getattr(self, request.method.lower())(path, body, request)

    def post(self, path, body, request):
        if path == "/workers":
            self.workers += 1
            worker = {
                "id": f"w{self.workers}",
                "heartbeat_interval_seconds": self.interval,
                "worker_timeout_seconds": self.lease,
                "max_result_bytes": self.max_result_bytes,
            }
            return httpx.Response(201, json=worker)
        if path == "/tasks/claim":
            if not self.queue and self.honours_waits and "prefer" in request.headers:
                self.released.wait(20)
            headers = {"Preference-Applied": "wait=1"} if self.honours_waits else {}
            return httpx.Response(200, json=self.grant(body), headers=headers)
        if path.endswith("/log"):
            task_id = path.split("/")[2]
            self.logs[task_id] = self.logs.get(task_id, "") + body["text"]
            return httpx.Response(204)
        if path == "/tasks/lookup":
            return self.look_up(body["ids"], request)
        if isinstance(body, list):
            return httpx.Response(202, json=self.accept(request, body))
        return httpx.Response(202, json={"id": "t1"})

    def grant(self, body):
        with self.lock:
            granted = self.queue[: body["limit"]]
            del self.queue[: len(granted)]
        if body.get("start"):
            for one in granted:
                one["status"] = self.tasks[one["id"]] = "running"
        return {"task": granted[0] if granted else None, "tasks": granted}

    def accept(self, request, body):
        """The tasks of a submit; a repeated key returns the tasks of its first submit."""
        key = request.headers["idempotency-key"]
        with self.lock:
            first = sum(map(len, self.submitted.values()))
            tasks = [task(f"t{first + i}", **entry) for i, entry in enumerate(body)]
            return self.submitted.setdefault(key, tasks)

    def put(self, path, body, request):
        return httpx.Response(201, json={"worker_id": body["worker_id"]})

    def patch(self, path, body, request):
        if path.startswith("/workers"):
            return self.beat(path, body, request)
        if path == "/tasks":
            return httpx.Response(200, json=[self.result(one) for one in body])
        result = self.result({"id": path[7:], **body})
        return httpx.Response(result["status"], json=result.get("task") or result["problem"])

    def beat(self, path, body, request):
        """The answer to a heartbeat; a wait ends when one of its tasks is in `taken`."""
        listed = [one["id"] for one in (body or {}).get("tasks", ())]
        headers = {}
        if self.honours_waits and (wait := request.headers.get("prefer")):
            with self.changed:
                self.changed.wait_for(
                    lambda: self.released.is_set() or not self.taken.keys().isdisjoint(listed),
                    int(wait.removeprefix("wait=")),
                )
            headers["Preference-Applied"] = wait
        reply = {"id": path[9:], "last_heartbeat": NOW}
        for name in ("lost", "cancelled"):
            reply[name] = [one for one in listed if self.taken.get(one) == name]
        return httpx.Response(200, json=reply, headers=headers)

    def take(self, task_id, how):
        """Take a task from its worker: `how` is `lost` or `cancelled`."""
        with self.changed:
            self.taken[task_id] = how
            self.changed.notify_all()

    def result(self, report):
        once = self.refuse_once.pop((report["id"], report["status"]), None)
        slug = self.refused.get(report["id"])
        if once or slug:
            problem = (once or refusal(slug)).json()
            return {"id": report["id"], "status": problem["status"], "problem": problem}
        self.tasks[report["id"]] = report["status"]
        done = task(report["id"], status=report["status"])
        return {"id": report["id"], "status": 200, "task": done}

    def get(self, path, body, request):
        task_id = path[7:]
        if task_id in self.hidden:
            return refusal("task-not-found", 404)
        return httpx.Response(200, json=self.document(task_id))

    def document(self, task_id):
        status = self.tasks.get(task_id, "pending")
        result = {"result": task_id} if status == "completed" else {}
        return task(task_id, status=status, **{**result, **self.values.get(task_id, {})})

    def look_up(self, ids, request):
        """The tasks that are not hidden; a wait ends when the first of them has ended."""
        assert 1 <= len(ids) == len(set(ids)) <= 500
        shown = [task_id for task_id in ids if task_id not in self.hidden]
        headers = {}
        if self.honours_waits and (wait := request.headers.get("prefer")):
            with self.changed:
                self.changed.wait_for(
                    lambda: (
                        not shown
                        or any(self.tasks.get(task_id) in ENDED for task_id in shown)
                        or self.released.is_set()
                    ),
                    int(wait.removeprefix("wait=")),
                )
            headers["Preference-Applied"] = wait
        documents = [self.document(task_id) for task_id in shown]
        completed = [document for document in documents if document["status"] == "completed"]
        for document in completed[self.results_each :]:
            del document["result"]
            document["result_left_out"] = True
        return httpx.Response(200, json=documents, headers=headers)

    def end(self, task_id, status):
        """End a task and wake the requests that wait for it."""
        with self.changed:
            self.tasks[task_id] = status
            self.changed.notify_all()

    def release(self):
        """End all waiting requests."""
        self.released.set()
        with self.changed:
            self.changed.notify_all()

    def delete(self, path, body, request):
        return httpx.Response(204)

    def sent(self, method, prefix=""):
        return [c for c in self.calls if c[0] == method and c[1].startswith(prefix)]


def task(task_id, **values):
    return {
        "id": task_id,
        "job_name": "@global:modifiers:Rotate",
        "room_id": "r",
        "status": "claimed",
        "payload": {"angle": 1},
        "created_at": NOW,
        "attempt": 1,
        "unknown": "ignored",
        **values,
    }


def refusal(slug, status=409, **headers):
    return httpx.Response(
        status,
        json={"type": f"/v1/problems/{slug}", "title": "T", "status": status, "detail": "why"},
        headers={"Content-Type": "application/problem+json", **headers},
    )


class Rotate(BaseModel):
    category: ClassVar[str] = "modifiers"
    angle: float = Field(0, le=100)
    ran: ClassVar[list] = []

    def run(self):
        Rotate.ran.append(self.angle)


def bodies(server, task_id):
    """The reports of a task, first those sent in a request each, then those in batches."""
    single = [c[2] for c in server.sent("PATCH", f"/tasks/{task_id}")]
    return single + [
        one
        for c in server.sent("PATCH", "/tasks")
        if isinstance(c[2], list)
        for one in c[2]
        if one["id"] == task_id
    ]


def serve(server, manager, count, execute=None, cls=Rotate, **options):
    """Serve a class until `count` tasks have a status and none is running, then stop."""
    manager.register(cls)

    def stop():
        deadline = time.monotonic() + 15
        while len(server.tasks) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        while "running" in server.tasks.values() and time.monotonic() < deadline:
            time.sleep(0.01)
        manager.stop()

    stopper = threading.Thread(target=stop)
    stopper.start()
    manager.serve(execute, **options)
    stopper.join()


def use(manager, handler):
    """Let a function answer the manager's requests."""
    manager.api.http = httpx.Client(transport=httpx.MockTransport(handler))


def hold_back(server, manager, matches):
    """Hold requests that match until the second of the returned events; the first tells of one."""
    reached, go = threading.Event(), threading.Event()

    def held_back(request):
        if matches(request):
            reached.set()
            assert go.wait(10)
        return server(request)

    use(manager, held_back)
    return reached, go


def until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def granted(*ids):
    return [ClaimedTask.model_validate(task(task_id)) for task_id in ids]
