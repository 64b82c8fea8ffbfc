"""Signals about tasks, each sent after the transaction of the change committed.

Arguments of all signals but the internal ones: ``sender``, the Task model, and ``task``, the task
after the change, an instance of that model. Receivers run in the process and the thread of the
change; an exception in a receiver is logged and changes nothing.
"""

from __future__ import annotations

from django.dispatch import Signal

#: Internal: sent once for all tasks that one statement changed, where the signals below are sent
#: for each task. Arguments: ``change``, the signal below for this change; ``tasks``, the rows; and
#: ``lost``, whether workers held the tasks and did not end them by reports of their own.
tasks_changed = Signal(use_caching=True)

#: Internal: sent when the number of waiters of a kind in this process changes. Arguments: ``kind``,
#: one of `zndraw_joblib.events.waiters.KINDS`, and ``number``.
waits_changed = Signal()
#: Internal: sent when a message could not be sent to the channel layer. Argument: ``reason``,
#: ``"full"`` where too many were unsent, or ``"layer"`` where the layer failed.
message_lost = Signal()

#: A task was accepted and is pending.
task_submitted = Signal(use_caching=True)
#: A worker was granted a task.
task_claimed = Signal(use_caching=True)
#: A worker reported a task as running.
task_started = Signal(use_caching=True)
#: A worker reported how far a running task is, or uploaded a file of it.
task_progressed = Signal(use_caching=True)
#: A task is pending again: it failed and is retried, its lease ended, its worker left, or an
#: operator requeued it.
task_requeued = Signal(use_caching=True)
#: A task reached a terminal state.
task_finished = Signal(use_caching=True)
