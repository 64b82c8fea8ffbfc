"""Spans about tasks that a request submitted, claimed or reported on."""

from __future__ import annotations

from collections.abc import Iterable

from zndraw_joblib import tracing
from zndraw_joblib.storage.rows import TaskRow


def record_spans(
    name: str, tasks: Iterable[TaskRow], began: int, *, linked: str | None = None
) -> None:
    """Make a span for each of the tasks that has a trace context, as `tracing.record` does."""
    for task in tasks:
        # Looked at first, because most tasks have none, and their attributes would be made in vain.
        if task.traceparent is not None:
            tracing.record(name, task.traceparent, began, task.attributes(), linked=linked)
