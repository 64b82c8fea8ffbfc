"""Links to the tasks that workers hold, for the pages of the admin."""

from __future__ import annotations

from urllib.parse import urlencode

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from zndraw_joblib.admin.formats import and_more, link, short_id
from zndraw_joblib.services.held import Held


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
    if not held.others:
        return links
    query = urlencode({"held_by": worker_id})
    return format_html("{}{}", links, link(list_url, f"?{query}", and_more(held.others)))
