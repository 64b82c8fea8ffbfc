"""Tasks with a past, for the tests of the statistics."""

from __future__ import annotations

from datetime import timedelta
from itertools import count
from uuid import uuid4

import pytest

from zndraw_joblib.models import Job, Task
from zndraw_joblib.services import statistics
from zndraw_joblib.storage.clock import database_time
from zndraw_joblib.storage.ids import first_id

ENDED = ("completed", "failed", "cancelled")
number = count(1)


def make_job():
    return Job.objects.create(room_id="r", category="modifiers", name=f"J{next(number)}", schema={})


def make_task(job, status="completed", ago=60.0, waited=1.0, ran=2.0, error=None, **values):
    """A task that ended so many seconds ago, or a pending one that was submitted then."""
    now = database_time("default")
    ended = status in ENDED
    moment = now - timedelta(seconds=ago)
    created = moment - timedelta(seconds=waited + ran) if ended else moment
    task_id = str(first_id(created))[:-12] + uuid4().hex[:12]
    values.setdefault("created_at", created)
    if ended:
        values.setdefault("claimed_at", created + timedelta(seconds=waited))
        values.setdefault("started_at", created + timedelta(seconds=waited))
        values.setdefault("completed_at", moment)
        values.setdefault("attempt", 1)
    task = Task.objects.create(
        id=task_id, job=job, room_id="r", created_by="x", payload={}, status=status, error=error,
        **values,
    )  # fmt: skip
    return Task.objects.get(pk=task.pk)


def count_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a pass count everything up to now, and the backlogs each time."""
    monkeypatch.setattr(statistics, "MARGIN", 0.0)
    monkeypatch.setattr(statistics, "MAX_CLOCK_DIFFERENCE", timedelta(0))
    monkeypatch.setattr(statistics, "SAMPLE_SHARE", 1e9)
