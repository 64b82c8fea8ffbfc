"""The execution of one task by the class of its job."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable

from pydantic import BaseModel, ValidationError

from zndraw_joblib.client.payloads import load
from zndraw_joblib.client.schemas import ClaimedTask
from zndraw_joblib.text import truncate_utf8

logger = logging.getLogger(__name__)

#: Most bytes of an error text in UTF-8. A server with a lower limit truncates the text itself.
MAX_ERROR_BYTES = 8192


def execute_task(
    task: ClaimedTask,
    cls: type[BaseModel] | None,
    call: Callable[[ClaimedTask, BaseModel], None],
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
        call(task, instance)
    except BaseException as error:
        logger.exception("task %s failed", task.id)
        if isinstance(error, KeyboardInterrupt | SystemExit):
            stop()
        return _truncated(f"{type(error).__name__}: {error}\n\n{traceback.format_exc()}")
    return None


def _truncated(text: str) -> str:
    return truncate_utf8(text, MAX_ERROR_BYTES)
