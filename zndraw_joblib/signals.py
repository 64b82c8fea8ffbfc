"""Signals that say what became of a task. Each is sent after the transaction committed.

Arguments of all: ``sender`` is the Task model and ``task`` the task as it was written. Receivers
run in the thread that made the change; an exception in one is logged and changes nothing.
"""

from __future__ import annotations

from django.dispatch import Signal

#: For the app itself: tasks changed together. Arguments: ``how``, the signal below that says so,
#: and ``tasks``. Sent once where those below are sent for each.
tasks_changed = Signal(use_caching=True)

#: A task was accepted and is pending.
task_submitted = Signal(use_caching=True)
#: A worker was granted a task.
task_claimed = Signal(use_caching=True)
#: A worker said that it began.
task_started = Signal(use_caching=True)
#: A task went back to pending: its lease was over, its worker left, or an operator said so.
task_requeued = Signal(use_caching=True)
#: A task reached a terminal state.
task_finished = Signal(use_caching=True)
