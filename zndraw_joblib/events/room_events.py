"""The events of a room, which all its watchers share."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from zndraw_joblib.events.states import Jobs, JobState, Workers, WorkerState
from zndraw_joblib.storage.rows import TaskRow


@dataclass(eq=False, slots=True)
class Event:
    """An event that all watchers of a room share.

    `subject` is the present state of a task, job or worker, or the name or id of one that left.
    `encoded` keeps its JSON, which the first watcher that sends it makes.
    """

    type: str
    key: Hashable
    subject: TaskRow | JobState | WorkerState | str
    encoded: str | None = None


def task_event(task: TaskRow) -> Event:
    """The event that a task changed."""
    return Event("task", task.id, task)


def job_events(known: Jobs, now: Jobs) -> list[Event]:
    """The events of jobs that differ from the ones that clients know."""
    changed = [job for name, job in now.items() if known.get(name) != job]
    events = [Event("job", ("job", job.full_name), job) for job in changed]
    return events + [retired_event(name) for name in known.keys() - now.keys()]


def retired_event(full_name: str) -> Event:
    """The event that a job was retired."""
    return Event("job_retired", ("job", full_name), full_name)


def worker_events(known: Workers, now: Workers) -> list[Event]:
    """The events of workers that differ from the ones that clients know."""
    changed = [
        worker
        for worker_id, worker in now.items()
        if worker_id not in known or worker.differs_from(known[worker_id])
    ]
    events = [Event("worker", ("worker", worker.id), worker) for worker in changed]
    gone = known.keys() - now.keys()
    return events + [Event("worker_left", ("worker", name), name) for name in gone]
