"""The execution of one task by the class of its job."""

from __future__ import annotations

import inspect
import logging
import traceback
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ValidationError

from zndraw_joblib.client.payloads import load
from zndraw_joblib.client.schemas import ClaimedTask
from zndraw_joblib.text import truncate_utf8

logger = logging.getLogger(__name__)

#: Most bytes of an error text in UTF-8. A server with a lower limit truncates the text itself.
MAX_ERROR_BYTES = 8192

Execute = Callable[..., Any]


def execute_task(
    task: ClaimedTask,
    cls: type[BaseModel] | None,
    execute: Execute | None,
    stop: Callable[[], None],
) -> str | None:
    """Run a task and return the text of its error; None if it succeeded.

    `stop` is called if the task raises `KeyboardInterrupt` or `SystemExit`, because these must end
    the whole worker.
    """
    if cls is None:
        return f"This worker has no class for {task.job_name}."
    try:
        instance = load(cls, task.payload)
    except ValidationError as error:
        return _truncated(f"The payload was refused by {cls.__name__}: {error}")
    try:
        _call(execute, task, instance)
    except BaseException as error:
        logger.exception("task %s failed", task.id)
        if not isinstance(error, Exception):
            stop()
        return _truncated(f"{type(error).__name__}: {error}\n\n{traceback.format_exc()}")
    return None


def _truncated(text: str) -> str:
    return truncate_utf8(text, MAX_ERROR_BYTES)


def _call(execute: Execute | None, task: ClaimedTask, instance: BaseModel) -> None:
    if execute is None:
        run: Execute = instance.run  # type: ignore[attr-defined]
        run(task) if _positional(run) else run()
    elif _positional(execute) > 1:
        execute(task, instance)
    else:
        execute(task)


def _positional(function: Execute) -> int:
    """The number of positional arguments that a callable accepts; 2 for ``*args``."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters):
        return 2
    return sum(parameter.kind in kinds for parameter in parameters)
