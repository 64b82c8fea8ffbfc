"""The present jobs and workers of rooms, as streams of events compare them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.db import router
from django.db.models import Count, OuterRef, Subquery
from django.db.models.functions import Coalesce

from zndraw_joblib.events.cursors import digest
from zndraw_joblib.models import Job, Task, Worker, WorkerJobLink
from zndraw_joblib.names import GLOBAL_ROOM, JobName
from zndraw_joblib.storage.conditions import IsLeased

#: Most ids of one query.
CHUNK = 1000
#: A later heartbeat alone is an event once in this time, because workers send many.
HEARTBEAT_STEP = timedelta(seconds=10)


class JobState(NamedTuple):
    """A job that is not retired."""

    id: UUID
    room_id: str
    full_name: str
    category: str
    name: str
    worker_count: int
    durable: bool
    #: The number of its schema. Not sent, but another schema is an event.
    revision: int


class WorkerState(NamedTuple):
    """A worker that offers a job of the room; `running` counts its claimed and running tasks."""

    id: str
    last_heartbeat: datetime
    created_at: datetime
    job_count: int
    running: int

    def differs_from(self, known: WorkerState) -> bool:
        """Whether clients that know the other state should be told of this one."""
        return self[2:] != known[2:] or self.last_heartbeat - known.last_heartbeat >= HEARTBEAT_STEP


#: The jobs of a room by their full names; the workers by their ids.
Jobs = Mapping[str, JobState]
Workers = Mapping[str, WorkerState]


def jobs_digest(jobs: Jobs) -> str:
    """Changes with every event about a job."""
    return digest(sorted(jobs.values()))


def workers_digest(workers: Workers) -> str:
    """Changes when a worker comes or leaves."""
    return digest(sorted(workers))


def job_states(rooms: Collection[str]) -> dict[str, Jobs]:
    """The live jobs of each room, with the global ones."""
    live = Job.objects.using(router.db_for_write(Job)).live()
    found = live.filter(room_id__in={*rooms, GLOBAL_ROOM}).with_worker_count()
    by_room: dict[str, dict[str, JobState]] = defaultdict(dict)
    for pk, room_id, category, name, *more in found.values_list(
        "pk", "room_id", "category", "name", "worker_count", "durable", "revision"
    ):
        full_name = str(JobName(room_id, category, name))
        by_room[room_id][full_name] = JobState(pk, room_id, full_name, category, name, *more)
    return {room_id: by_room[GLOBAL_ROOM] | by_room[room_id] for room_id in rooms}


def retired_jobs(room_id: str, since: datetime) -> list[str]:
    """The full names of the jobs of a room, and global ones, that were retired since a moment."""
    jobs = Job.objects.using(router.db_for_write(Job)).filter(retired_at__gte=since)
    names = jobs.filter(room_id__in={room_id, GLOBAL_ROOM})
    return [str(JobName(*name)) for name in names.values_list("room_id", "category", "name")]


def worker_states(rooms: Collection[str]) -> dict[str, Workers]:
    """The workers of each room: those that offer one of its jobs, or a global one."""
    using = router.db_for_write(Job)
    links = WorkerJobLink.objects.using(using).filter(
        job__retired_at=None, job__room_id__in={*rooms, GLOBAL_ROOM}
    )
    ids: dict[str, set[str]] = defaultdict(set)
    for room_id, worker_id in links.values_list("job__room_id", "worker_id").distinct():
        ids[room_id].add(worker_id)
    states: dict[str, WorkerState] = {}
    wanted = sorted(set().union(*ids.values()))
    for start in range(0, len(wanted), CHUNK):
        states |= _states(using, wanted[start : start + CHUNK])
    return {
        room_id: {
            worker_id: states[worker_id]
            for worker_id in sorted(ids[room_id] | ids[GLOBAL_ROOM])
            if worker_id in states
        }
        for room_id in rooms
    }


def _states(using: str, ids: list[str]) -> dict[str, WorkerState]:
    held: Any = Task.objects.using(using).filter(IsLeased(), worker=OuterRef("pk"))
    running = held.order_by().values("worker").annotate(count=Count("pk")).values("count")
    workers = Worker.objects.using(using).filter(pk__in=ids).with_job_count()
    counted = workers.annotate(running=Coalesce(Subquery(running), 0))
    values = counted.values_list("pk", "last_heartbeat", "created_at", "job_count", "running")
    return {row[0]: WorkerState(*row) for row in values}
