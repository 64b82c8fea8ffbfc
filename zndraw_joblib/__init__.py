"""A job server for remote workers, as a Django reusable app, and its client SDK.

Public names load on first use. Importing the package loads neither Django nor httpx, because a
worker has no Django and a server needs no client.
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
        IdempotencyKeyReused as IdempotencyKeyReused,
        InvalidCategory as InvalidCategory,
        InvalidPayload as InvalidPayload,
        InvalidRoomId as InvalidRoomId,
        InvalidTaskTransition as InvalidTaskTransition,
        JobNotFound as JobNotFound,
        LeaseLost as LeaseLost,
        ProblemException as ProblemException,
        SchemaConflict as SchemaConflict,
        TaskNotFound as TaskNotFound,
        TooManyPending as TooManyPending,
        ValidationError as ValidationError,
        WorkerNotFound as WorkerNotFound,
    )
    from zndraw_joblib.host.declaring import (
        declare_job as declare_job,
    )
    from zndraw_joblib.host.submitting import (
        asubmit as asubmit,
        submit as submit,
    )
    from zndraw_joblib.host.waiting import (
        await_for as await_for,
        wait_for as wait_for,
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

# Without the names that need Django, because `import *` would fail where Django is missing.
__all__ = ["ApiManager", "ClaimedTask", "JobManager", "TaskStatus", "TaskStream", "__version__"]

_NAMES_BY_MODULE = {
    "api.problems": ("problem_exception_handler",),
    "client": ("ApiManager", "ClaimedTask", "JobManager", "TaskStream"),
    "exceptions": (
        "Forbidden",
        "IdempotencyKeyReused",
        "InvalidCategory",
        "InvalidPayload",
        "InvalidRoomId",
        "InvalidTaskTransition",
        "JobNotFound",
        "LeaseLost",
        "ProblemException",
        "SchemaConflict",
        "TaskNotFound",
        "TooManyPending",
        "ValidationError",
        "WorkerNotFound",
    ),
    "host.declaring": ("declare_job",),
    "host.submitting": ("asubmit", "submit"),
    "host.waiting": ("await_for", "wait_for"),
    "models": ("Job", "Task", "Worker", "WorkerJobLink"),
    "settings": ("JobLibSettings", "get_settings"),
    "services.sweep": ("sweep",),
}
_MODULE_BY_NAME = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names}

if not TYPE_CHECKING:  # Type checkers would accept every misspelt name.

    def __getattr__(name: str) -> Any:
        try:
            module = _MODULE_BY_NAME[name]
        except KeyError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
        value = getattr(import_module(f"{__name__}.{module}"), name)
        globals()[name] = value
        return value
