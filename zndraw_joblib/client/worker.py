"""The loop of a worker: claim, start, run, report."""

from __future__ import annotations

import inspect
import logging
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import stamina
from pydantic import BaseModel, ValidationError

from zndraw_joblib.client.exceptions import (
    ApiError,
    ForbiddenError,
    InvalidTaskTransitionError,
    LeaseLostError,
    TaskNotFoundError,
)
from zndraw_joblib.client.schemas import ClaimedTask

if TYPE_CHECKING:
    from zndraw_joblib.client.manager import JobManager
    from zndraw_joblib.client.stream import TaskStream

logger = logging.getLogger(__name__)

#: Bytes of an error text in UTF-8; the server cuts there too.
MAX_ERROR_BYTES = 8192

Execute = Callable[..., Any]


def serve(manager: JobManager, execute: Execute | None, concurrency: int) -> None:
    """Run `concurrency` loops until the manager is stopped or a signal comes.

    Raises
    ------
    ApiError
        The server refuses to grant tasks, for instance because the token is no longer valid.
    """
    if concurrency < 1:
        raise ValueError("concurrency must be at least 1")
    errors: list[Exception] = []

    def work(stream: TaskStream) -> None:
        try:
            _loop(manager, stream, execute)
        except Exception as error:
            errors.append(error)
            manager.stop()

    # All streams exist before the first thread runs, so that a stop reaches every one.
    threads = [
        threading.Thread(target=work, args=(manager.listen(),), name=f"joblib-work-{number}")
        for number in range(concurrency)
    ]
    with _signals_stop(manager):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]


@contextmanager
def _signals_stop(manager: JobManager) -> Iterator[None]:
    """SIGINT and SIGTERM stop the manager; a second SIGINT interrupts as usual."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, _frame: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Not here: the interrupted thread may hold the locks that stopping takes.
        threading.Thread(target=manager.stop, name="joblib-stop").start()

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _loop(manager: JobManager, stream: TaskStream, execute: Execute | None) -> None:
    while (task := _next(stream)) is not None:
        try:
            run(manager, task, execute)
        except (ApiError, httpx.TransportError) as error:
            # The lease ends and the server gives the task to somebody else.
            logger.error("could not report on task %s: %s", task.id, error)
            manager.abandon(task.id)


def _next(stream: TaskStream) -> ClaimedTask | None:
    """The next task, None at the end; an unreachable server is asked again with backoff."""
    while not stream.stopped:
        try:
            for attempt in stamina.retry_context(
                on=lambda error: _worth_retrying(stream, error),
                attempts=None,
                timeout=None,
                wait_initial=0.1,
                wait_max=5.0,
            ):
                with attempt:
                    return next(stream, None)
        except (ApiError, httpx.TransportError):
            if not stream.stopped:
                raise
    return None


def _worth_retrying(stream: TaskStream, error: Exception) -> bool:
    if stream.stopped:
        return False
    if isinstance(error, ApiError):
        return error.status >= 500 or error.status == 429
    return isinstance(error, httpx.TransportError)


def run(manager: JobManager, task: ClaimedTask, execute: Execute | None) -> None:
    """Run one task and report its outcome; a task lost meanwhile is dropped.

    Raises
    ------
    ApiError, httpx.TransportError
        The report cannot be delivered.
    """
    try:
        manager.start(task)
        error = _execute(manager, task, execute)
        if error is None:
            manager.complete(task)
        else:
            manager.fail(task, error)
    except (
        LeaseLostError,
        ForbiddenError,
        InvalidTaskTransitionError,
        TaskNotFoundError,
    ) as refusal:
        logger.info("task %s attempt %d was dropped: %s", task.id, task.attempt, refusal)
        manager.abandon(task.id)


def _execute(manager: JobManager, task: ClaimedTask, execute: Execute | None) -> str | None:
    """Do the work; the error text, or None when it went well."""
    cls = manager._classes.get(task.job_name)
    if cls is None:
        return f"This worker has no class for {task.job_name}."
    try:
        instance = cls.model_validate(task.payload)
    except ValidationError as error:
        return cut(f"The payload was refused by {cls.__name__}: {error}")
    try:
        _call(execute, task, instance)
    except BaseException as error:
        logger.exception("task %s failed", task.id)
        if not isinstance(error, Exception):
            manager.stop()
        return cut(f"{type(error).__name__}: {error}\n\n{traceback.format_exc()}")
    return None


def _call(execute: Execute | None, task: ClaimedTask, instance: BaseModel) -> None:
    if execute is None:
        work: Execute = instance.run  # type: ignore[attr-defined]
        work(task) if _positional(work) else work()
    elif _positional(execute) > 1:
        execute(task, instance)
    else:
        execute(task)


def _positional(function: Execute) -> int:
    """How many positional arguments a callable needs or takes."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters):
        return 2
    return sum(parameter.kind in kinds for parameter in parameters)


def cut(text: str) -> str:
    """The first `MAX_ERROR_BYTES` of a text, whole characters only."""
    return text.encode(errors="replace")[:MAX_ERROR_BYTES].decode(errors="ignore")
