"""The loop of a worker: claim, start, run, report."""

from __future__ import annotations

import inspect
import logging
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from zndraw_joblib.client.exceptions import TaskNotFoundError
from zndraw_joblib.client.reports import LOST, Report
from zndraw_joblib.client.schemas import ClaimedTask
from zndraw_joblib.client.sources import Source
from zndraw_joblib.lifecycle import TaskStatus

if TYPE_CHECKING:
    from zndraw_joblib.client.manager import JobManager

logger = logging.getLogger(__name__)

#: Bytes of an error text in UTF-8; the server cuts there too.
MAX_ERROR_BYTES = 8192
#: Seconds by which a signal may be noticed late. One that arrives just before the main thread
#: begins to wait, or in another thread, does not wake it: Python runs handlers between bytecodes.
SIGNAL_LATENCY = 0.5

Execute = Callable[..., Any]


def serve(manager: JobManager, execute: Execute | None, sources: Sequence[Source]) -> None:
    """Run a loop in a thread for each source until the manager is stopped or a signal comes.

    Raises
    ------
    ApiError
        The server refuses to grant tasks, for instance because the token is no longer valid.
    """
    errors: list[Exception] = []

    def work(source: Source) -> None:
        try:
            _loop(manager, source, execute)
        except Exception as error:
            errors.append(error)
            manager.stop()

    threads = [
        threading.Thread(target=work, args=(source,), name=f"joblib-work-{number}")
        for number, source in enumerate(sources)
    ]
    with _signals_stop(manager):
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(SIGNAL_LATENCY)
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


def _loop(manager: JobManager, source: Source, execute: Execute | None) -> None:
    task = source.take()
    while task is not None:
        running = task if task.status == TaskStatus.RUNNING else _advance(manager, begin=task)
        task = running and _run(manager, running, execute, source)
        task = task or source.take()


def _run(
    manager: JobManager, task: ClaimedTask, execute: Execute | None, source: Source
) -> ClaimedTask | None:
    """Run a task and report its end; the next one, if one was at hand and runs now."""
    error = _execute(manager, task, execute)
    status = TaskStatus.COMPLETED if error is None else TaskStatus.FAILED
    return _advance(manager, end=(task, status, error), begin=source.at_hand())


def _advance(
    manager: JobManager,
    *,
    end: tuple[ClaimedTask, TaskStatus, str | None] | None = None,
    begin: ClaimedTask | None = None,
) -> ClaimedTask | None:
    """Report the end of a task and the start of the next in one request; the one that runs now.

    They are repeated until they are delivered, and the tasks are kept by heartbeats meanwhile.
    Each stands alone: a task that was lost is dropped, and one on which the server refuses the
    report, or was still away some time after a stop, is left to it: its lease ends.
    """
    told = ([end] if end else []) + ([(begin, TaskStatus.RUNNING, None)] if begin else [])
    outcomes = manager.report([Report.on(*one) for one in told], lasting=True)
    for (task, _, _), outcome in zip(told, outcomes, strict=True):
        if isinstance(outcome, (*LOST, TaskNotFoundError)):
            logger.info("task %s attempt %d was dropped: %s", task.id, task.attempt, outcome)
        elif isinstance(outcome, Exception):
            logger.error("could not report on task %s: %s", task.id, outcome)
        if isinstance(outcome, Exception):
            manager.abandon(task)
    if begin is None or isinstance(outcomes[-1], Exception):
        return None
    return begin.model_copy(update={"status": TaskStatus.RUNNING})


def _execute(manager: JobManager, task: ClaimedTask, execute: Execute | None) -> str | None:
    """Do the work; the error text, or None when it went well."""
    cls = manager.get(task.job_name)
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
