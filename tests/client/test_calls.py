"""A task is completed when its work is done, and not when a call returns."""

from __future__ import annotations

import asyncio
import functools
import io
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import ClassVar

import pytest
from pydantic import BaseModel

from tests.client.stand_in import Rotate, bodies, serve, task, until


def job(**attributes):
    """A class `Rotate` with these attributes."""
    return type(
        "Rotate", (BaseModel,), {"__annotations__": {}, "__module__": __name__, **attributes}
    )


def served(server, manager, *ids, run=None, **options):
    """The reported statuses of tasks that a class with a method `run` ran."""
    server.queue += [task(task_id, payload={}) for task_id in ids]
    serve(server, manager, len(ids), cls=job(run=run) if run else Rotate, **options)
    return [server.tasks[task_id] for task_id in ids]


async def nothing(*arguments):
    pass


def test_a_coroutine_is_run_to_its_end(server, manager):
    done = []

    async def run(self, task):
        await asyncio.sleep(0.01)
        done.append(task.id)

    assert served(server, manager, "a", "b", run=run) == ["completed", "completed"]
    assert done == ["a", "b"]


def test_an_error_in_a_coroutine_fails_the_task(server, manager):
    async def run(self):
        await asyncio.sleep(0)
        raise ValueError("late")

    assert served(server, manager, "a", run=run) == ["failed"]
    assert bodies(server, "a")[-1]["error"].startswith("ValueError: late")


async def awaited(done):
    await asyncio.sleep(0.01)
    done.append(1)


def returns_coroutine(done):
    return awaited(done)


def decorated(done):
    @functools.wraps(awaited)
    def wrapper(done):
        return awaited(done)

    return wrapper(done)


def returns_nested_coroutine(done):
    async def outer():
        return awaited(done)

    return outer()


def returns_future(done):
    async def outer():
        return asyncio.ensure_future(awaited(done))

    return outer()


def returns_thread_future(done):
    with ThreadPoolExecutor() as executor:
        return executor.submit(lambda: asyncio.run(awaited(done)))


@pytest.mark.parametrize(
    "call",
    [
        returns_coroutine,
        decorated,
        returns_nested_coroutine,
        returns_future,
        returns_thread_future,
        functools.partial(awaited),
    ],
)
def test_work_that_a_call_returns_is_waited_for(server, manager, call):
    done = []
    server.queue.append(task("a"))
    serve(server, manager, 1, lambda task, instance: call(done))
    assert server.tasks == {"a": "completed"}
    assert done == [1]


class Callable:
    def __init__(self):
        self.done = []

    async def __call__(self, task, instance):
        await awaited(self.done)


def test_an_object_with_a_coroutine_as_call_is_run_to_its_end(server, manager):
    server.queue.append(task("a"))
    call = Callable()
    serve(server, manager, 1, call)
    assert call.done == [1]


def test_the_coroutines_of_a_thread_run_in_one_loop_that_is_closed_at_the_end(server, manager):
    loops, endless = set(), []

    async def run(self):
        loops.add(asyncio.get_running_loop())
        endless.append(asyncio.ensure_future(asyncio.sleep(100)))
        await asyncio.sleep(0)

    assert served(server, manager, "a", "b", run=run) == ["completed", "completed"]
    (loop,) = loops
    assert loop.is_closed()
    assert all(one.cancelled() for one in endless)


def test_a_coroutine_that_blocks_does_not_delay_other_tasks(server, manager):
    both = threading.Barrier(2, timeout=10)

    async def run(self):
        both.wait()

    assert served(server, manager, "a", "b", run=run, concurrency=2) == ["completed"] * 2


def test_a_cancelled_coroutine_fails_its_task_and_the_worker_goes_on(server, manager):
    async def run(self, task):
        if task.id == "a":
            asyncio.current_task().cancel()
        await asyncio.sleep(0)

    assert served(server, manager, "a", "b", run=run) == ["failed", "completed"]
    assert bodies(server, "a")[-1]["error"].startswith("CancelledError")


def test_a_coroutine_that_stops_its_loop_fails_and_does_not_go_on_later(server, manager):
    gone_on = []

    async def run(self, task):
        if task.id == "a":
            asyncio.get_running_loop().stop()
            await asyncio.sleep(0)
            gone_on.append(task.id)
        await asyncio.sleep(0.01)

    assert served(server, manager, "a", "b", run=run) == ["failed", "completed"]
    assert gone_on == []


VARIABLE = ContextVar("VARIABLE", default=0)


@pytest.mark.parametrize("is_async", [True, False])
def test_context_variables_do_not_reach_later_tasks(server, manager, is_async):
    seen = []

    def run(self):
        seen.append(VARIABLE.get())
        VARIABLE.set(1)
        return nothing() if is_async else None

    served(server, manager, "a", "b", run=run)
    assert seen == [0, 0]


def generates(self):
    yield


async def generates_later(self):
    yield


class Generates:
    def __call__(self, task):
        yield


def returns_generator(self):
    return generates(self)


def returns_async_generator(self):
    return generates_later(self)


def returns_map(self):
    return map(print, [self])


def returns_chain(self):
    return itertools.chain(map(print, [self]))


class Later:
    """An asynchronous iterator that is no generator."""

    def __aiter__(self):
        return self

    async def __anext__(self):
        raise StopAsyncIteration


async def returns_later(self):
    return Later()


UNSUITABLE = {
    "generator": generates,
    "async generator": generates_later,
    "partial of a generator": staticmethod(functools.partial(generates, None)),
    "two arguments": lambda self, task, instance: None,
    "a keyword argument": lambda self, *, key: None,
    "no self": lambda: None,
    "static generator": staticmethod(generates),
    "static method of two arguments": staticmethod(lambda task, instance: None),
    "class method of two arguments": classmethod(lambda cls, task, instance: None),
}


@pytest.mark.parametrize("run", UNSUITABLE.values(), ids=UNSUITABLE)
def test_a_run_that_cannot_be_called_is_not_registered(server, manager, run):
    with pytest.raises(TypeError, match=r"Rotate\.run (is a generator|takes neither)"):
        manager.register(job(run=run, __annotations__={"run": ClassVar}))
    assert not server.calls


@pytest.mark.parametrize(
    "run",
    [returns_generator, returns_async_generator, returns_map, returns_chain, returns_later],
)
def test_a_task_whose_call_returned_a_lazy_iterator_fails(server, manager, run):
    assert served(server, manager, "a", run=run) == ["failed"]
    assert "returned a lazy iterator" in bodies(server, "a")[-1]["error"]


def returns_file(self):
    return io.StringIO("text")


def test_a_call_may_return_a_file(server, manager):
    assert served(server, manager, "a", run=returns_file) == ["completed"]


SUITABLE = {
    "no argument": lambda self: None,
    "the task": lambda self, task: None,
    "any": lambda self, *arguments, **options: None,
    "a default": lambda self, task=None, *, verbose=False: None,
    "static": staticmethod(lambda task: None),
    "static without argument": staticmethod(lambda: None),
    "class method": classmethod(lambda cls, task: None),
    "property": property(lambda self: lambda task: None),
    "partial method": functools.partialmethod(lambda self, key, task: None, 1),
    "wrapper with fewer arguments": functools.wraps(lambda self, task, database: None)(
        lambda self, task: None
    ),
}


@pytest.mark.parametrize("run", SUITABLE.values(), ids=SUITABLE)
def test_a_run_that_can_be_called_is_called(server, manager, run):
    server.queue.append(task("a", payload={}))
    serve(server, manager, 1, cls=job(run=run, __annotations__={"run": ClassVar}))
    assert server.tasks == {"a": "completed"}


@pytest.mark.parametrize(
    "execute",
    [
        generates,
        generates_later,
        Generates(),
        functools.partial(generates),
        lambda: None,
        lambda a, b, c: None,
        lambda task, *, key: None,
        "run",
    ],
)
def test_serve_refuses_a_function_that_it_cannot_call(server, manager, execute):
    manager.register(Rotate)
    with pytest.raises(TypeError, match=r"execute (is a generator|takes neither|is not callable)"):
        manager.serve(execute)
    assert not server.sent("POST", "/tasks/claim")


@pytest.mark.parametrize("attributes", [{}, {"__annotations__": {"run": int}}, {"run": 5}])
def test_serve_refuses_a_class_without_run_unless_there_is_execute(server, manager, attributes):
    if "run" in attributes:
        attributes = {"__annotations__": {"run": ClassVar}, **attributes}
    cls = job(**attributes)
    manager.register(cls)
    with pytest.raises(TypeError, match="Rotate has no method run"):
        manager.serve()
    server.queue.append(task("a", payload={"run": 1}))
    serve(server, manager, 1, lambda task: None, cls=cls)
    assert server.tasks == {"a": "completed"}


def test_a_class_without_run_that_is_registered_later_fails_its_tasks(server, manager, running):
    running()
    manager.register(room="r")(job())
    server.queue.append(task("a", job_name="r:modifiers:Rotate", payload={}))
    server.release()
    until(lambda: server.tasks.get("a", "running") != "running")
    assert server.tasks == {"a": "failed"}
    assert "Rotate.run is not a method" in bodies(server, "a")[-1]["error"]
