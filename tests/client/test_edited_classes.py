"""Classes that are edited and registered again, as in a notebook, and withdrawn jobs."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from pydantic import BaseModel

from tests.client.stand_in import Rotate, refusal, task, until
from tests.servers import server as real_server
from zndraw_joblib.client import Api, JobManager, SchemaConflictError
from zndraw_joblib.models import Job

JOB = "@global:modifiers:Cell"
PUT = "PUT /rooms/@global/jobs"
CONFLICT = "schema-conflict"


def run_cell(fields: str, run: str = "pass", module: str = "__main__") -> Any:
    """The class that a notebook's cell defines."""
    names: dict[str, Any] = {"__name__": module, "BaseModel": BaseModel, "threading": threading}
    lines = [f"    {line}" for line in (*fields.split("; "), "def run(self, task):", f"    {run}")]
    exec("\n".join(["class Cell(BaseModel):", *lines]), names)
    return names["Cell"]


def requests(server):
    """The methods of registrations and withdrawals, with the names of the schema's properties."""
    return [
        (method, *(body or {}).get("schema", {}).get("properties", ()))
        for method, path, body in server.calls
        if "/jobs" in path
    ]


def test_an_edited_class_takes_the_place_of_its_earlier_version(server, manager):
    manager.register(run_cell("a: int"))
    server.fail[PUT] = [refusal(CONFLICT)]
    edited = manager.register(run_cell("b: int"))
    assert requests(server) == [("PUT", "a"), ("PUT", "b"), ("DELETE",), ("PUT", "b")]
    assert server.sent("DELETE")[0][1] == f"/workers/w1/jobs/{JOB}"
    assert manager[JOB] is edited


def test_the_conflict_of_another_class_is_raised_and_nothing_is_withdrawn(server, manager):
    server.fail[PUT] = [refusal(CONFLICT)]
    with pytest.raises(SchemaConflictError, match="why"):
        manager.register(run_cell("a: int"))
    assert JOB not in manager
    assert not server.sent("DELETE")


def test_an_earlier_version_stays_offered_while_another_worker_offers_it(server, manager):
    first = manager.register(run_cell("a: int"))
    server.fail[PUT] = [refusal(CONFLICT), refusal(CONFLICT)]
    with pytest.raises(SchemaConflictError, match="why"):
        manager.register(run_cell("b: int"))
    assert requests(server)[1:] == [("PUT", "b"), ("DELETE",), ("PUT", "b"), ("PUT", "a")]
    assert manager[JOB] is first
    # Another attempt begins from the same state.
    server.fail[PUT] = [refusal(CONFLICT)]
    assert manager.register(run_cell("b: int")) is manager[JOB]


def test_an_edited_class_of_a_removed_worker_is_registered_by_the_next_worker(server, manager):
    manager.register(run_cell("a: int"))
    put = server.put
    offered: dict[str, Any] = {}

    def put_or_refuse(path, body, request):
        """Refuses the first worker, and another schema than the one that its worker offers."""
        if body["worker_id"] == "w1":
            return refusal("worker-not-found", 404)
        if offered.setdefault(body["worker_id"], body["schema"]) != body["schema"]:
            offered.clear()
            return refusal(CONFLICT)
        return put(path, body, request)

    server.put = put_or_refuse
    edited = manager.register(run_cell("b: int"))
    assert manager[JOB] is edited
    assert manager.worker_id == "w2"


def test_a_class_or_a_name_is_unregistered(server, manager):
    manager.register(Rotate)
    manager.register(room="r")(Rotate)
    cell = manager.register(run_cell("a: int"))
    manager.unregister(Rotate)
    assert [call[1] for call in server.sent("DELETE")] == [
        "/workers/w1/jobs/@global:modifiers:Rotate",
        "/workers/w1/jobs/r:modifiers:Rotate",
    ]
    assert list(manager) == [JOB]
    for unknown in (Rotate, "@global:modifiers:Rotate"):
        with pytest.raises(KeyError):
            manager.unregister(unknown)
    manager.register(cell)
    manager.unregister(JOB)
    assert not manager


def test_a_job_is_unregistered_by_either_spelling_of_its_name(server, manager):
    manager.register(type("Größe", (Rotate,), {}))
    manager.unregister("@global:modifiers:Gro\u0308ße")
    assert not manager


def test_a_class_is_unregistered_by_its_edited_version(server, manager):
    manager.register(run_cell("a: int"))
    manager.unregister(run_cell("b: int"))
    assert JOB not in manager
    with pytest.raises(KeyError):
        manager.unregister(run_cell("b: int", module="other"))


@pytest.mark.parametrize("slug", ["job-not-found", "worker-not-found"])
def test_a_job_that_the_server_has_removed_counts_as_unregistered(server, manager, slug):
    manager.register(Rotate)
    server.fail["DELETE /workers/w1/jobs/@global:modifiers:Rotate"] = [refusal(slug, 404)]
    manager.unregister(Rotate)
    assert not manager


def test_an_unregistered_job_is_not_registered_again_with_the_next_worker(server, manager):
    manager.register(Rotate)
    manager.register(run_cell("a: int"))
    manager.unregister(Rotate)
    server.fail["PATCH /workers/w1"] = [refusal("worker-not-found", 404)]
    manager.heartbeat()
    assert manager.worker_id == "w2"
    names = [body["name"] for _, _, body in server.sent("PUT")]
    assert names == ["Rotate", "Cell", "Cell"]


def test_tasks_that_were_claimed_ahead_are_run_after_their_job_was_unregistered(
    server, manager, running
):
    began, go_on = threading.Event(), threading.Event()

    def execute(task, instance):
        began.set()
        assert go_on.wait(10)

    server.queue += [task("1"), task("2")]
    running(execute, prefetch=2)
    assert began.wait(10)
    until(lambda: not server.queue)
    manager.unregister(Rotate)
    go_on.set()
    until(lambda: server.tasks == {"1": "completed", "2": "completed"})


@pytest.mark.django_db(transaction=True)
def test_a_serving_worker_runs_the_edited_class_and_ends_running_tasks_of_the_earlier_one(root):
    with real_server() as url, Api(url, root.token) as api:
        manager, other = JobManager(api, long_poll=2), JobManager(api)
        first = run_cell("a: int", "threading.ran.append(('first', self.a)); threading.go.wait(20)")
        first.run.__globals__["threading"] = fake = type("Shared", (), {})()
        fake.ran, fake.go = [], threading.Event()
        manager.register(first)
        serving = threading.Thread(target=manager.serve, kwargs={"concurrency": 2}, daemon=True)
        serving.start()
        try:
            old = manager.submit(first(a=1), room="r")
            until(lambda: fake.ran)
            second = run_cell("b: int", "threading.ran.append(('second', self.b))")
            second.run.__globals__["threading"] = fake
            manager.register(second)
            assert list(Job.objects.get().schema["properties"]) == ["b"]
            new = manager.submit(second(b=2), room="r")
            assert manager.wait(new, timeout=20).status == "completed"
            fake.go.set()
            assert manager.wait(old, timeout=20).status == "completed"
            assert fake.ran == [("first", 1), ("second", 2)]
            # Where another worker offers the present version, the next one is refused.
            other.register(second)
            with pytest.raises(SchemaConflictError, match=str(other.worker_id)):
                manager.register(run_cell("c: int"))
            assert manager[JOB] is second
            assert Job.objects.get().links.count() == 2
            other.unregister(second)
            assert manager.wait(manager.submit(second(b=3), room="r"), timeout=20)
            assert fake.ran[-1] == ("second", 3)
        finally:
            fake.go.set()
            manager.stop()
            serving.join(20)
        assert not serving.is_alive()
