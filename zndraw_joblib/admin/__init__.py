"""Jobs, workers and tasks in Django's admin, which imports this package to register them."""

from __future__ import annotations

from zndraw_joblib.admin.jobs import JobAdmin
from zndraw_joblib.admin.tasks import TaskAdmin
from zndraw_joblib.admin.workers import WorkerAdmin

__all__ = ["JobAdmin", "TaskAdmin", "WorkerAdmin"]
