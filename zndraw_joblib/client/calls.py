"""Calls the code of tasks, and waits until its work is done."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import ExitStack
from io import IOBase
from typing import Any

from pydantic import BaseModel

from zndraw_joblib.client.logs import running_task
from zndraw_joblib.client.outcomes import Cancelled
from zndraw_joblib.client.tasks import ClaimedTask
from zndraw_joblib.tracing import span_of_run

Execute = Callable[..., Any]

_RUN = "takes neither one positional argument, the task, nor none"
_EXECUTE = "takes neither two positional arguments, the task and its instance, nor the task alone"


def check_run(cls: type[BaseModel]) -> None:
    """Check the method `run` of a class. A class may have none, because `execute` may run it.

    Raises
    ------
    TypeError
        The method is a generator function, or takes other arguments than the task.
    """
    run = inspect.getattr_static(cls, "run", None)
    if inspect.isdatadescriptor(run):
        return  # A property, whose value only an instance has.
    if hasattr(run, "__get__"):
        # Bound to an empty instance, because `inspect` then leaves out the argument `self`.
        run = run.__get__(cls.__new__(cls), cls)
    if callable(run):
        _check(run, f"{cls.__name__}.run", _RUN, (None,), ())


def check_has_run(cls: type[BaseModel]) -> None:
    """Check that a class has a method `run`, or a descriptor that may give one.

    Raises
    ------
    TypeError
        It has neither.
    """
    run = getattr(cls, "run", None)
    if not callable(run) and not hasattr(run, "__get__"):
        raise TypeError(f"{cls.__name__} has no method run")


class TaskCall:
    """Calls `execute`, or the method `run` of an instance.

    A coroutine is run to its end in an event loop of the calling thread. The loop lasts until
    `close`, because connections of async libraries belong to one loop. Each thread has its own,
    because a coroutine that blocks must not delay the tasks of other threads.

    Parameters
    ----------
    execute
        As in `JobManager.serve`.
    classes
        The classes that have tasks, for the checks.

    Raises
    ------
    TypeError
        `execute` cannot be called with a task, or without `execute` a class has no method `run`.
    """

    def __init__(self, execute: Execute | None, classes: Iterable[type[BaseModel]]) -> None:
        if execute is None:
            for cls in classes:
                check_has_run(cls)
        else:
            self._arguments = len(_check(execute, "execute", _EXECUTE, (None, None), (None,)))
        self._execute = execute
        self._signatures: dict[Any, bool | None] = {}
        self._thread = threading.local()
        self._runners = ExitStack()

    def __call__(self, task: ClaimedTask, instance: BaseModel) -> Any:
        """Call the code of a task; returns the value of its work, and raises what it raises.

        Raises
        ------
        TypeError
            The code cannot be called, or returned a generator or another lazy iterator, whose work
            is not done.
        """
        # In a context of its own, because context variables must not reach later tasks.
        return contextvars.copy_context().run(self._traced, task, instance)

    def close(self) -> None:
        """Close the event loops, after the last call has ended."""
        self._runners.close()

    def _traced(self, task: ClaimedTask, instance: BaseModel) -> Any:
        running_task.set(task)
        with span_of_run(task.job_name, task.traceparent, task.log_fields(), Cancelled):
            return self._call(task, instance)

    def _call(self, task: ClaimedTask, instance: BaseModel) -> Any:
        if self._execute is not None:
            return self._finish(self._execute(*(task, instance)[: self._arguments]))
        run = getattr(instance, "run", None)
        name = f"{type(instance).__name__}.run"
        if not callable(run):
            raise TypeError(f"{name} is not a method")
        takes_task = self._takes_task(run)
        if takes_task is None:
            raise TypeError(f"{name} {_RUN}")
        return self._finish(run(task) if takes_task else run())

    def _takes_task(self, run: Execute) -> bool | None:
        """Whether a method takes the task; None if it can be called neither with nor without it."""
        function = getattr(run, "__func__", None)
        if function in self._signatures:
            return self._signatures[function]
        accepted = _accepted(run, (None,), ())
        takes_task = None if accepted is None else bool(accepted)
        if inspect.isfunction(function):
            # Kept, because reading a signature takes longer than a short task.
            self._signatures[function] = takes_task
        return takes_task

    def _finish(self, result: Any) -> Any:
        """Wait for the end of the work that a call returned; returns its value."""
        while True:
            if inspect.isawaitable(result):
                result = self._run(result)
            elif isinstance(result, concurrent.futures.Future):
                result = result.result()
            elif isinstance(result, Iterator | AsyncIterator) and not isinstance(result, IOBase):
                # A generator, or `map` and the like. A file is an iterator too, but no work.
                raise TypeError(
                    f"the call returned a lazy iterator ({type(result).__name__}), so its work was "
                    "not done"
                )
            else:
                return result

    def _run(self, awaitable: Awaitable[Any]) -> Any:
        runner: asyncio.Runner | None = getattr(self._thread, "runner", None)
        if runner is None:
            runner = self._thread.runner = self._runners.enter_context(asyncio.Runner())
        coroutine = _wait_for(awaitable)
        try:
            return runner.run(coroutine, context=contextvars.copy_context())
        finally:
            if inspect.getcoroutinestate(coroutine) != inspect.CORO_CLOSED:
                # The code stopped the loop. The coroutine must not go on beside the next task.
                self._thread.runner = None
                runner.close()


async def _wait_for(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _check(
    function: Execute, name: str, refusal: str, *choices: tuple[Any, ...]
) -> tuple[Any, ...]:
    """The first choice of arguments that a function accepts.

    Raises
    ------
    TypeError
        It accepts none of them, or is a generator function.
    """
    if not callable(function):
        raise TypeError(f"{name} is not callable")
    for code in (function, type(function).__call__):
        if inspect.isgeneratorfunction(code) or inspect.isasyncgenfunction(code):
            raise TypeError(
                f"{name} is a generator function, which does nothing when it is called; "
                "it must not yield"
            )
    arguments = _accepted(function, *choices)
    if arguments is None:
        raise TypeError(f"{name} {refusal}")
    return arguments


def _accepted(function: Execute, *choices: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The first choice of arguments that a function accepts; None if it accepts none of them."""
    # The signature of a wrapped function is tried first, because a wrapper often takes anything.
    for follow_wrapped in (True, False):
        try:
            signature = inspect.signature(function, follow_wrapped=follow_wrapped)
        except ValueError:
            # A function in C may hide its signature, and a method may lack the argument `self`.
            return None if inspect.ismethod(function) else choices[0]
        for arguments in choices:
            try:
                signature.bind(*arguments)
            except TypeError:
                continue
            return arguments
    return None
