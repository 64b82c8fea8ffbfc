"""The receiver of `tasks_changed`: publishes each change to its waiters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from django.dispatch import Signal

from zndraw_joblib import signals
from zndraw_joblib.events.messages import (
    STOP_GROUP,
    TASKS_CHANGED,
    TASKS_ENDED,
    TASKS_PENDING,
    TASKS_STOPPED,
    change_group,
    changed_entry,
    end_group,
    ended_entry,
    job_group,
    pending_entry,
)
from zndraw_joblib.events.publisher import publisher
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.storage.rows import TaskRow


def publish_changes(change: Signal, tasks: Sequence[TaskRow], lost: bool = False, **_: Any) -> None:
    """Publish changes of tasks to the groups of their waiters.

    Ended tasks go to their rooms' groups, pending ones to their jobs', watched ones of any change
    to the groups for changes, and those that workers should stop to the group for these.
    """
    if change is signals.task_finished:
        _publish(
            TASKS_ENDED,
            ((end_group(task.room_id), ended_entry(task.room_id, task.id)) for task in tasks),
        )
    elif change is signals.task_submitted or change is signals.task_requeued:
        _publish(
            TASKS_PENDING,
            (
                (job_group(task.job_id), pending_entry(task.job_id, task.id))
                for task in tasks
                # A scheduled task has no place in the queue yet, and a claim would not get it.
                if change is signals.task_requeued or task.queue_position is not None
            ),
        )
    is_progress = change is signals.task_progressed
    _publish(
        TASKS_CHANGED,
        (
            (change_group(task.room_id), changed_entry(task.revision, task.id, is_progress))
            for task in tasks
            if task.watched_until is not None
        ),
    )
    _publish(
        TASKS_STOPPED,
        (
            (STOP_GROUP, ended_entry(task.room_id, task.id))
            for task in tasks
            # A cancelled task that no worker held keeps no worker.
            if lost or (task.status == TaskStatus.CANCELLED and task.worker_id is not None)
        ),
    )


def _publish(kind: str, entries: Iterable[tuple[str, str]]) -> None:
    """Publish entries, each with its group, by one message for each group."""
    by_group: dict[str, list[str]] = defaultdict(list)
    for group, entry in entries:
        by_group[group].append(entry)
    for group, group_entries in by_group.items():
        publisher.publish(group, kind, group_entries)


def connect() -> None:
    """Connect the receiver; the app does so when it is ready."""
    signals.tasks_changed.connect(publish_changes, dispatch_uid="zndraw_joblib.publish_changes")
