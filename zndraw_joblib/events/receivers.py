"""The receiver of `tasks_changed`: publishes each change to its waiters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from django.dispatch import Signal

from zndraw_joblib import signals
from zndraw_joblib.events.messages import (
    TASKS_ENDED,
    TASKS_PENDING,
    end_group,
    ended_entry,
    job_group,
    pending_entry,
)
from zndraw_joblib.events.publisher import publisher
from zndraw_joblib.storage.rows import TaskRow


def publish_changes(change: Signal, tasks: Sequence[TaskRow], **_: Any) -> None:
    """Publish ended tasks to their rooms' groups and pending tasks to their jobs' groups.

    Claims and starts are not published, because no request waits for them.
    """
    entries: dict[str, list[str]] = defaultdict(list)
    if change is signals.task_finished:
        kind = TASKS_ENDED
        for task in tasks:
            entries[end_group(task.room_id)].append(ended_entry(task.room_id, task.id))
    elif change is signals.task_submitted or change is signals.task_requeued:
        kind = TASKS_PENDING
        for task in tasks:
            entries[job_group(task.job_id)].append(pending_entry(task.job_id, task.id))
    else:
        return
    for group, group_entries in entries.items():
        publisher.publish(group, kind, group_entries)


def connect() -> None:
    """Connect the receiver; the app does so when it is ready."""
    signals.tasks_changed.connect(publish_changes, dispatch_uid="zndraw_joblib.publish_changes")
