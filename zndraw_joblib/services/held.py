"""Tasks that workers hold, for lists of workers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from django.db.models import Count, F, Window
from django.db.models.functions import RowNumber

from zndraw_joblib.models import Task, Worker
from zndraw_joblib.storage.conditions import IsLeased

#: Tasks of each worker that a list shows.
SHOWN = 3


class Held(NamedTuple):
    """The first `SHOWN` tasks of a worker, and how many it holds."""

    tasks: list[Task]
    number: int

    @property
    def others(self) -> int:
        """How many tasks are not listed."""
        return self.number - len(self.tasks)


def held_tasks(workers: Iterable[Worker]) -> dict[str, Held]:
    """The tasks that these workers hold, by the worker's id; one query for all of them."""
    workers = list(workers)
    if not workers:
        return {}
    found = (
        Task.objects.using(workers[0]._state.db)
        .filter(IsLeased(), worker__in=[worker.pk for worker in workers])
        .annotate(
            # The running ones first.
            place=Window(
                RowNumber(), partition_by="worker_id", order_by=[F("status").desc(), "pk"]
            ),
            number=Window(Count("pk"), partition_by="worker_id"),
        )
        .filter(place__lte=SHOWN)
        .select_related("job")
        .only("worker_id", "status", "started_at", "job__room_id", "job__category", "job__name")
        .order_by("worker_id", "place")
    )
    held: dict[str, Held] = {}
    for task in found:
        held.setdefault(str(task.worker_id), Held([], task.number)).tasks.append(task)
    return held
