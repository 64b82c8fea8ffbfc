"""The jobs of a room that a caller may use."""

from __future__ import annotations

from django.db import router, transaction

from zndraw_joblib.access import Caller
from zndraw_joblib.exceptions import JobNotFound
from zndraw_joblib.models import Job, WorkerJobLink
from zndraw_joblib.names import GLOBAL_ROOM, JobName, nfc
from zndraw_joblib.storage.clock import Now
from zndraw_joblib.storage.jobs import JobQuerySet
from zndraw_joblib.storage.locking import delete_in_order
from zndraw_joblib.text import Message


def jobs() -> JobQuerySet:
    """Jobs on the database that is written to, because a replica may lag behind a registration."""
    queryset: JobQuerySet = Job.objects.using(router.db_for_write(Job))
    return queryset


def offered_jobs(caller: Caller, room_id: str) -> JobQuerySet:
    """The live jobs of a room and the global ones, with `worker_count`.

    Raises
    ------
    InvalidRoomId, JobNotFound
        The room id is not valid, or the caller may not read the room. Every caller may list the
        global jobs.
    """
    if room_id != GLOBAL_ROOM:
        caller.require("read", room_id)
    return jobs().visible_from(room_id).with_worker_count()


def offered_job(caller: Caller, room_id: str, full_name: str) -> Job:
    """One job of `offered_jobs`; raises the same errors, and JobNotFound without such a job."""
    offered = offered_jobs(caller, room_id)
    job: Job | None = offered.named(name_in_room(room_id, full_name)).first()
    if job is None:
        raise JobNotFound
    return job


def room_job(caller: Caller, room_id: str, full_name: str) -> Job:
    """A job, retired or not, whose tasks in a room the caller may read; raises as `offered_job`.

    A retired job counts, because the `Location` of a submit leads to the list of its tasks.
    """
    # Checked also for `@global`, because every caller may use its jobs but not read its tasks.
    caller.require("read", room_id)
    job: Job | None = jobs().named(name_in_room(room_id, full_name)).first()
    if job is None:
        raise JobNotFound
    return job


def retire(caller: Caller, room_id: str, full_name: str) -> None:
    """Retire a job of a room, and end the offers of its workers.

    Its tasks stay: those that are claimed or running go on, and pending ones wait until the job is
    registered again, which revives it.

    Raises
    ------
    InvalidRoomId, Forbidden
        The caller may not register in this room.
    JobNotFound
        The room has no such job, or it is retired. A global job is one of `@global` only.
    """
    caller.require("register", room_id)
    name = name_in_room(room_id, full_name)
    if name.room_id != nfc(room_id):
        raise JobNotFound
    using = router.db_for_write(Job)
    with transaction.atomic(using=using):
        # The lock keeps a registration, which locks the job too, from adding a link meanwhile.
        job: Job | None = jobs().live().named(name).select_for_update().first()
        if job is None:
            raise JobNotFound
        job.retired_at = Now()
        job.save(using=using, update_fields=["retired_at"])
        delete_in_order(WorkerJobLink.objects.using(using).filter(job=job))


def name_in_room(room_id: str, full_name: str) -> JobName:
    """The name of a job that can be used in a room: the room's own or a global one.

    Raises
    ------
    JobNotFound
        The text is not the name of a job, or the job is another room's.
    """
    name = parsed_name(full_name)
    if name.room_id not in {nfc(room_id), GLOBAL_ROOM}:
        raise JobNotFound
    return name


def parsed_name(full_name: str) -> JobName:
    """The name of a job; raises JobNotFound for a text that is none."""
    try:
        return JobName.parse(full_name)
    except ValueError as error:
        raise JobNotFound(Message("{error}.", error=error.args[0])) from error
