"""Tasks that workers hold, for the pages of the admin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlencode

from django.db.models import Count, F, Window
from django.db.models.functions import RowNumber
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from zndraw_joblib.admin.formats import and_more, link, short_id
from zndraw_joblib.lifecycle import LEASED_STATUSES
from zndraw_joblib.models import Task, Worker

#: Tasks of each worker that a list shows.
SHOWN = 3


class Held(NamedTuple):
    """The first tasks of a worker, and how many it holds."""

    tasks: list[Task]
    number: int


def held_tasks(workers: Iterable[Worker]) -> dict[str, Held]:
    """The tasks that these workers hold, by the worker's id; one query for all of them."""
    workers = list(workers)
    if not workers:
        return {}
    found = (
        Task.objects.using(workers[0]._state.db)
        .filter(worker__in=[worker.pk for worker in workers], status__in=LEASED_STATUSES)
        .annotate(
            # The running ones first.
            place=Window(
                RowNumber(), partition_by="worker_id", order_by=[F("status").desc(), "pk"]
            ),
            number=Window(Count("pk"), partition_by="worker_id"),
        )
        .filter(place__lte=SHOWN)
        .select_related("job")
        .only("worker_id", "status", "job__room_id", "job__category", "job__name")
        .order_by("worker_id", "place")
    )
    held: dict[str, Held] = {}
    for task in found:
        held.setdefault(str(task.worker_id), Held([], task.number)).tasks.append(task)
    return held


def held_links(worker_id: str, held: Held | None, list_url: str | None) -> SafeString | str:
    """Links to the tasks that a worker holds, each with its job, and to the list of all of them."""
    if held is None:
        return "-"
    links = format_html_join(
        "",
        "<div>{} <bdi>{}</bdi>, {}</div>",
        (
            (
                link(list_url, f"{task.pk}/change/", short_id(task.pk)),
                task.job.name,
                task.get_status_display(),
            )
            for task in held.tasks
        ),
    )
    others = held.number - len(held.tasks)
    if others <= 0:
        return links
    query = urlencode({"held_by": worker_id})
    return format_html("{}{}", links, link(list_url, f"?{query}", and_more(others)))
