"""Jobs, workers, tasks and the dashboard in Django's admin, which imports this package."""

from __future__ import annotations

from zndraw_joblib.admin.dashboard import DashboardAdmin
from zndraw_joblib.admin.jobs import JobAdmin
from zndraw_joblib.admin.tasks import TaskAdmin
from zndraw_joblib.admin.workers import WorkerAdmin

__all__ = ["DashboardAdmin", "JobAdmin", "TaskAdmin", "WorkerAdmin"]
