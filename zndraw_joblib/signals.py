"""Signals that say what became of a task. Each is sent after the transaction committed.

Arguments of all: ``sender`` is the Task model and ``task`` the task as it was written. Receivers
run in the thread that made the change; an exception in one is logged and changes nothing.
"""

from __future__ import annotations

from django.dispatch import Signal

#: For the app itself: tasks changed together. Arguments: ``change``, the signal below that names
#: the change, and ``tasks``, their rows. It is sent once for all tasks of a statement, where the
#: signals below are sent once for each task and only while somebody listens.
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
