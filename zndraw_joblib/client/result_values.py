"""Results of tasks, as the values that the code of the task returned."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import logging
import sys
import types
from collections.abc import Awaitable, Callable, Coroutine
from functools import lru_cache
from typing import Any, Self, get_args, get_origin, get_type_hints

from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError

from zndraw_joblib.client.batches import encode
from zndraw_joblib.client.functions import model_of
from zndraw_joblib.client.outcomes import TaskCancelled, TaskFailed
from zndraw_joblib.client.schemas import TaskInfo
from zndraw_joblib.lifecycle import TaskStatus

logger = logging.getLogger(__name__)

#: A job in this process: a registered class, or a function that `JobManager.job` decorates.
Job = type[BaseModel] | Callable[..., Any]

#: Annotations of a `run` whose result is the value that the worker awaited.
_AWAITED = (Awaitable, Coroutine, asyncio.Future, asyncio.Task, concurrent.futures.Future)


def class_of(job: Job) -> type[BaseModel]:
    """The class of a job.

    Raises
    ------
    TypeError
        It is neither a pydantic model nor a decorated function.
    """
    return job if isinstance(job, type) else model_of(job)


def result_of(task: TaskInfo, job: Job | None) -> Any:
    """The result of an ended task, as the type that the job's `run` is annotated to return.

    Without a job, or without an annotation that pydantic knows, it is plain JSON. It is None for a
    task that was completed without a result, as `execute` may do, also where the type has no None.

    Raises
    ------
    TaskFailed, TaskCancelled
        The task has no result.
    pydantic.ValidationError
        The result is not of this type.
    """
    if task.status == TaskStatus.CANCELLED:
        raise TaskCancelled(task)
    if task.status != TaskStatus.COMPLETED:
        raise TaskFailed(task)
    adapter = None if job is None else _adapter(class_of(job))
    if adapter is None:
        return task.result
    # As JSON, because strict types accept times, sets and tuples from JSON alone. By both names,
    # because the worker may write fields under their aliases.
    try:
        return adapter.validate_json(encode(task.result), by_alias=True, by_name=True)
    except ValidationError:
        if task.result is None:
            return None
        raise


@lru_cache(maxsize=256)
def _adapter(cls: type[BaseModel]) -> TypeAdapter[Any] | None:
    """The adapter of the type that `run` returns; None if results stay plain JSON."""
    annotation = _returned(cls)
    # A result beside the annotation None comes from `execute`, which runs in place of `run`.
    if annotation in (None, types.NoneType, Any):
        return None
    try:
        return TypeAdapter(annotation)
    except (PydanticUserError, NameError) as error:
        logger.warning("results of %s stay JSON, because of their type: %s", cls.__name__, error)
        return None


def _returned(cls: type[BaseModel]) -> Any:
    """The annotation of the value that `run` returns, or that its coroutine does."""
    run = getattr(cls, "run", None)
    function: Any = inspect.unwrap(getattr(run, "__func__", run)) if callable(run) else None
    try:
        written = function.__annotations__["return"]
        # Alone, because other annotations may name types that only a type checker imports.
        holder: Any = types.SimpleNamespace(__annotations__={"return": written})
        names = {**vars(sys.modules[cls.__module__]), **getattr(function, "__globals__", {})}
        hint = get_type_hints(holder, names, {cls.__name__: cls}, include_extras=True)["return"]
    except (AttributeError, KeyError):
        return None
    except Exception as error:
        # The text of an annotation is an expression, which may raise anything.
        logger.warning("results of %s stay JSON, because of their type: %r", cls.__name__, error)
        return None
    if hint is Self:
        return cls
    if get_origin(hint) in _AWAITED:
        return get_args(hint)[-1]
    return hint
