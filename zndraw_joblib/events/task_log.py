"""Log records of the changes of tasks, by which a site follows a task through its logs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from django.dispatch import Signal

from zndraw_joblib import signals
from zndraw_joblib.storage.rows import TaskRow

#: A logger of its own, so that a site chooses its level. The records have the level DEBUG, because
#: a busy server writes a thousand of them a second.
logger = logging.getLogger("zndraw_joblib.tasks")

#: The signals that are logged. Not `task_progressed`, which a task may send many times a second.
_WORDS = {
    signals.task_submitted: "submitted",
    signals.task_claimed: "claimed",
    signals.task_started: "started",
    signals.task_requeued: "requeued",
    signals.task_finished: "ended",
}


def log_changes(change: Signal, tasks: Sequence[TaskRow], **_: Any) -> None:
    """Receiver of `tasks_changed`: write a record for each task."""
    if change not in _WORDS or not logger.isEnabledFor(logging.DEBUG):
        return
    for task in tasks:
        logger.debug(
            "task %s %s: %s", task.id, _WORDS[change], task.status, extra=task.attributes()
        )


def connect() -> None:
    """Connect the receiver; the app does so when it is ready."""
    signals.tasks_changed.connect(log_changes, dispatch_uid="zndraw_joblib.log_changes")
