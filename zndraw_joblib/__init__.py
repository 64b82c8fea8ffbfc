"""A job server for remote workers, as a Django reusable app, and its client SDK.

Public names load on first use: importing the package loads neither Django nor httpx, so that a
worker needs no Django and a server no client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from zndraw_joblib._version import __version__
from zndraw_joblib.lifecycle import TaskStatus

if TYPE_CHECKING:
    from zndraw_joblib.api.problems import (
        problem_exception_handler as problem_exception_handler,
    )
    from zndraw_joblib.client import (
        ApiManager as ApiManager,
        ClaimedTask as ClaimedTask,
        JobManager as JobManager,
        TaskStream as TaskStream,
    )
    from zndraw_joblib.exceptions import (
        Forbidden as Forbidden,
        InvalidCategory as InvalidCategory,
        InvalidRoomId as InvalidRoomId,
        InvalidTaskTransition as InvalidTaskTransition,
        JobNotFound as JobNotFound,
        LeaseLost as LeaseLost,
        ProblemException as ProblemException,
        SchemaConflict as SchemaConflict,
        TaskNotFound as TaskNotFound,
        WorkerNotFound as WorkerNotFound,
    )
    from zndraw_joblib.models import (
        Job as Job,
        Task as Task,
        Worker as Worker,
        WorkerJobLink as WorkerJobLink,
    )
    from zndraw_joblib.services.sweep import (
        sweep as sweep,
    )
    from zndraw_joblib.settings import (
        JobLibSettings as JobLibSettings,
        get_settings as get_settings,
    )

# What needs Django stays out of __all__, or `import *` would fail where there is none.
__all__ = ["ApiManager", "ClaimedTask", "JobManager", "TaskStatus", "TaskStream", "__version__"]

_HOMES = {
    "api.problems": ("problem_exception_handler",),
    "client": ("ApiManager", "ClaimedTask", "JobManager", "TaskStream"),
    "exceptions": (
        "Forbidden",
        "InvalidCategory",
        "InvalidRoomId",
        "InvalidTaskTransition",
        "JobNotFound",
        "LeaseLost",
        "ProblemException",
        "SchemaConflict",
        "TaskNotFound",
        "WorkerNotFound",
    ),
    "models": ("Job", "Task", "Worker", "WorkerJobLink"),
    "settings": ("JobLibSettings", "get_settings"),
    "services.sweep": ("sweep",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

if not TYPE_CHECKING:  # Type checkers would take any misspelt name for one of these.

    def __getattr__(name: str) -> Any:
        try:
            home = _HOME_OF[name]
        except KeyError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
        value = getattr(import_module(f"{__name__}.{home}"), name)
        globals()[name] = value
        return value
