"""Runs of one task in the room `open`, attempt by attempt."""

from __future__ import annotations

from typing import Any

from tests.factories import ROTATE, Person
from zndraw_joblib.models import Task
from zndraw_joblib.services.sweep import SweepReport, sweep

PATH = f"/rooms/open/tasks/open:{ROTATE}"
PAST = "2020-01-01T00:00:00Z"


def submit(person: Person, **body: Any) -> str:
    answer = person.send("post", PATH, {"payload": {}, **body})
    assert answer.status_code == 202, answer.content
    return answer.json()["id"]


def start(person: Person, task_id: str) -> int:
    """Claim and start a task, whatever its backoff; returns the attempt."""
    Task.objects.filter(pk=task_id, status="pending").update(run_at=None)
    task = person.claim()
    assert task["id"] == task_id
    assert person.report(task_id, "running", attempt=task["attempt"]).status_code == 200
    return task["attempt"]


def fail(person: Person, task_id: str, **body: Any) -> Any:
    answer = person.report(task_id, "failed", **body)
    assert answer.status_code == 200, answer.content
    return answer.json()


def lose(person: Person) -> SweepReport:
    """Let all leases end, and sweep; the person's worker registers again."""
    Task.objects.update(lease_expires_at=PAST)
    report = sweep()
    person.register()
    return report


def delay_of(task_id: str) -> float:
    """Seconds from the end of the latest attempt until the task is due again."""
    task = Task.objects.get(pk=task_id)
    ended = task.attempts.latest("attempt").ended_at
    return (task.run_at - ended).total_seconds()
