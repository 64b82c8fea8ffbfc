"""Values as the admin displays them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _

from zndraw_joblib.models import Task
from zndraw_joblib.text import truncate_utf8

#: Most bytes of UTF-8 of a value that a page shows.
MAX_SHOWN = 65_536
#: Most rows that a page lists of anything; it tells the number of the others.
MAX_LISTED = 100


def duration(span: timedelta) -> str:
    """A span of time in a few characters: ``42 ms``, ``3.1 s``, ``2:05:09``, ``3 d 4 h``."""
    seconds = max(span.total_seconds(), 0)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds_left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return _("%(days)d d %(hours)d h") % {"days": hours // 24, "hours": hours % 24}
    return f"{hours}:{minutes:02}:{seconds_left:02}"


def time_since(moment: datetime | None) -> str:
    """The time since a moment; a dash for None."""
    return duration(timezone.now() - moment) if moment else "-"


def short_id(task_id: UUID) -> SafeString:
    """The end of a task's id, with the whole as its title.

    The end, because ids begin with the time and those of one batch differ in their last bits alone.
    """
    return format_html('<span class="joblib-id" title="{}">{}</span>', task_id, str(task_id)[-12:])


def link(list_url: str | None, rest: str, shown: object) -> SafeString:
    """A link below the address of a list; the text alone where the site leaves the list out."""
    if list_url is None:
        return format_html("{}", shown)
    return format_html('<a href="{}{}">{}</a>', list_url, rest, shown)


def breakable_name(full_name: str) -> SafeString:
    """A job's full name that may be broken after each colon, because it is long for a column."""
    return format_html_join(mark_safe(":<wbr>"), "{}", ([part] for part in full_name.split(":")))


def coloured_status(task: Task) -> SafeString:
    """The status of a task, with a CSS class for its colour."""
    return format_html(
        '<span class="joblib-status joblib-{}">{}</span>', task.status, task.get_status_display()
    )


def preformatted(text: str) -> SafeString:
    """Escaped text that keeps its line breaks."""
    return format_html('<pre class="joblib-text">{}</pre>', text)


def indented_json(value: Any, download: str = "") -> SafeString:
    """Indented, escaped JSON; beyond `MAX_SHOWN` bytes it is cut, with a link to `download`."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    if not download or len(text.encode()) <= MAX_SHOWN:
        return preformatted(text)
    return format_html(
        '{}<p><a href="{}">{}</a></p>',
        preformatted(truncate_utf8(text, MAX_SHOWN)),
        download,
        _("Cut here; download the whole"),
    )


def progress_bar(fraction: float | None) -> SafeString | str:
    """A bar and a percentage; a dash for None."""
    if fraction is None:
        return "-"
    percent = f"{100 * fraction:.0f}"
    return format_html('<progress max="100" value="{}"></progress> {}&nbsp;%', percent, percent)


def html_table(
    headings: Sequence[object], rows: Iterable[Sequence[object]], others: int = 0
) -> SafeString | str:
    """A table of escaped values, with the number of rows left out; a dash without rows."""
    lines = format_html_join(
        "",
        "<tr>{}</tr>",
        ([format_html_join("", "<td>{}</td>", ([cell] for cell in row))] for row in rows),
    )
    if not lines:
        return "-"
    head = format_html_join("", "<th>{}</th>", ([heading] for heading in headings))
    table = format_html("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>", head, lines)
    return format_html(
        '<div class="joblib-table">{}{}</div>',
        table,
        format_html("<p>{}</p>", and_more(others)) if others > 0 else "",
    )


def and_more(number: int) -> str:
    """The number of rows that a list leaves out."""
    return _("and %(n)d more") % {"n": number}
