"""The execution of one task by the class of its job."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from pydantic import BaseModel, ValidationError

from zndraw_joblib.client.outcomes import Cancelled, GiveUp, RetryLater, all_raised, raised
from zndraw_joblib.client.payloads import load
from zndraw_joblib.client.reports import Report
from zndraw_joblib.client.result_json import MAX_RESULT_BYTES, ResultError, result_json
from zndraw_joblib.client.tasks import ClaimedTask
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.text import truncate_utf8

logger = logging.getLogger(__name__)

#: Most bytes of an exception's message before its traceback, so that a long message leaves room.
MAX_MESSAGE_BYTES = 2048
#: Most bytes of an exception's message and traceback together.
MAX_TEXT_BYTES = 16_384


def execute_task(
    task: ClaimedTask,
    cls: type[BaseModel] | None,
    call: Callable[[ClaimedTask, BaseModel], Any],
    max_result_bytes: int = MAX_RESULT_BYTES,
) -> Report | None:
    """Run a task and return the report of its end; None if nothing is to be reported.

    The value of `call` is the result; one that cannot be sent fails the task. Every exception fails
    the task alone, also `SystemExit`, `KeyboardInterrupt` and other exceptions that are no
    `Exception`: Ctrl-C interrupts the main thread and never a task. `GiveUp` and `RetryLater`, also
    those in a group of exceptions, say whether and when the task is tried again. After `Cancelled`
    nothing is reported on a task that was cancelled or lost; another one is reported as cancelled.
    """
    if cls is None:
        return _failure(task, f"This worker has no class for {task.job_name}.")
    process = os.getpid()
    try:
        try:
            instance = load(cls, task.payload)
        except ValidationError as error:
            return _failure(task, f"The payload was refused by {cls.__name__}: {error}")
        result = call(task, instance)
        if os.getpid() != process:
            _end_forked_process(None)
        return Report.on(task, TaskStatus.COMPLETED, result=result_json(result, max_result_bytes))
    except BaseException as error:
        if os.getpid() != process:
            _end_forked_process(error)
        return _report_of(task, error)


def _report_of(task: ClaimedTask, error: BaseException) -> Report | None:
    """The report of a task whose code raised an exception, which is logged."""
    if all_raised(error, Cancelled):
        logger.info(
            "task %s attempt %d ended, because it was cancelled",
            task.id,
            task.attempt,
            extra=task.log_fields(),
        )
        if task.cancelled:
            return None
        return Report.on(task, TaskStatus.CANCELLED, _described(error))
    # Without a traceback, which would show the SDK's own code.
    text = str(error) if isinstance(error, ResultError) else _described(error)
    # The text and not the exception, because logging would format the exception while it holds
    # a lock, and code of the task may be slow or wait for another thread. A handler of the
    # site may fail, which must not end the worker.
    with suppress(BaseException):
        logger.error("task %s failed: %s", task.id, text, extra=task.log_fields())
    if raised(error, GiveUp):
        return _failure(task, text, retry=False)
    if later := raised(error, RetryLater):
        return _failure(task, text, retry_after=max(one.seconds for one in later))
    return _failure(task, text)


def _failure(task: ClaimedTask, error: str, **fields: Any) -> Report:
    return Report.on(task, TaskStatus.FAILED, error, **fields)


def _described(error: BaseException) -> str:
    """The type, the message and the traceback of an exception, whose own code may fail."""
    try:
        message = truncate_utf8(str(error), MAX_MESSAGE_BYTES)
    except BaseException as failure:
        message = f"(no message, because str() raised {_type_name(failure)})"
    try:
        trace = "".join(traceback.format_exception(error))
    except BaseException as failure:
        trace = f"(no traceback, because its formatting raised {_type_name(failure)})"
    return truncate_utf8(f"{_type_name(error)}: {message}\n\n{trace}", MAX_TEXT_BYTES)


def _type_name(error: BaseException) -> str:
    """The name of an exception's type, whose metaclass may fail too."""
    try:
        return str(type(error).__name__)
    except BaseException:
        return "an exception without a name"


def _end_forked_process(error: BaseException | None) -> NoReturn:
    """End a process that the task forked, because only the parent may report on the task."""
    code = 0
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        code = 1
        with suppress(Exception):
            traceback.print_exception(error)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code & 0xFF)
