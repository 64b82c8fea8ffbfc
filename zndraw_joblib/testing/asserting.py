"""Assertions about the tasks that were submitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import router
from django.db.models import Q
from pydantic import BaseModel, ValidationError

from zndraw_joblib.client.payloads import load
from zndraw_joblib.host.values import payload_of
from zndraw_joblib.models import Job, Task
from zndraw_joblib.names import JobName, nfc
from zndraw_joblib.testing.classes import JobCode, class_of, tasks_of_class

#: Most tasks that a failed assertion lists.
MAX_LISTED = 20


def assert_submitted(
    job: str | Job | JobCode,
    payload: Mapping[str, Any] | BaseModel | None = None,
    room_id: str | None = None,
    count: int | None = None,
) -> list[Task]:
    """Assert that tasks of a job were submitted, and return them, oldest first.

    Parameters
    ----------
    job
        Full name of the job, the job, or its class or function, which counts in every room.
    payload
        Payload of the tasks as `submit` takes it, equal as a whole, or an instance that is equal to
        the one that a worker would get; None for any.
    room_id
        Room of the tasks; None for any.
    count
        Number of these tasks; None for one at least.

    Raises
    ------
    AssertionError
        There are fewer or more. The message lists the submitted tasks.
    """
    __tracebackhide__ = True
    if isinstance(job, str | Job):
        name = JobName.parse(str(job))
        of_job = Q(job__room_id=name.room_id, job__category=name.category, job__name=name.name)
        label = str(name)
    else:
        cls = class_of(job)
        of_job = tasks_of_class(cls)
        label = cls.__name__
    # In the form in which `submit` stores it: a tuple is an array, for instance.
    expected = payload_of(payload) if isinstance(payload, Mapping) else payload
    submitted = Task.objects.using(router.db_for_write(Task)).select_related("job").order_by("pk")
    found = [
        task
        for task in submitted.filter(of_job)
        if (room_id is None or task.room_id == nfc(room_id))
        and (payload is None or _has_payload(task, expected))
    ]
    if len(found) == count or (count is None and found):
        return found
    wanted = [
        f"{'at least 1' if count is None else count} task(s) of {label}",
        *([] if room_id is None else [f"in the room {room_id}"]),
        *([] if payload is None else [f"with the payload {payload!r}"]),
    ]
    listed = [
        f"  {task.job_name} in {task.room_id}: {task.payload!r} ({task.status})"
        for task in submitted[:MAX_LISTED]
    ]
    if (number := submitted.count()) > MAX_LISTED:
        listed.append(f"  and {number - MAX_LISTED} more")
    raise AssertionError(
        "\n".join(
            [f"Expected {' '.join(wanted)}, and found {len(found)}. All tasks:", *listed]
            if listed
            else [f"Expected {' '.join(wanted)}, and no task was submitted."]
        )
    )


def _has_payload(task: Task, payload: Any) -> bool:
    if not isinstance(payload, BaseModel):
        return bool(task.payload == payload)
    try:
        return load(type(payload), task.payload) == payload
    except ValidationError:
        return False
