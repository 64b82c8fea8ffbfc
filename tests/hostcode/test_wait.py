"""`wait_for` and `await_for`: the site's own code waits for the end of a task."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from asgiref.sync import sync_to_async
from django.db import connections, transaction
from django.db.transaction import TransactionManagementError

from tests.factories import grant_one
from tests.waiting import test_tenants
from zndraw_joblib import TaskNotFound, await_for, submit, wait_for
from zndraw_joblib.events import reads
from zndraw_joblib.events.hub import get_hub
from zndraw_joblib.models import Job, Task, Worker, WorkerJobLink
from zndraw_joblib.storage.ids import new_id

pytestmark = pytest.mark.django_db(transaction=True)

NAME = "shop:modifiers:Rotate"


def complete(task, after=0.0):
    """Complete a task after some seconds, in another thread; returns the list of end times."""
    ended = []

    def run():
        try:
            time.sleep(after)
            tasks = Task.objects.filter(pk=task.pk)
            tasks.start()
            # Before the end, because the waiter may be faster than this thread.
            ended.append(time.monotonic())
            tasks.complete()
        finally:
            connections.close_all()

    threading.Thread(target=run).start()
    return ended


@pytest.fixture
def task(job):
    """A task that a worker has claimed."""
    worker = Worker.objects.create(identity="w")
    WorkerJobLink.objects.create(worker=worker, job=Job.objects.get())
    task = submit(NAME, {"angle": 1})
    assert grant_one(worker.pk, "w").id == task.pk
    return task


@pytest.mark.parametrize("form", [lambda task: task, lambda task: task.pk, lambda task: str(task)])
def test_a_wait_returns_the_ended_task_promptly(task, form):
    ended = complete(task, after=0.4)
    found = wait_for(form(task), timeout=20)
    assert time.monotonic() - ended[0] < 0.5
    assert isinstance(found, Task)
    assert (found.pk, found.status, found.job_name) == (task.pk, "completed", NAME)
    # Ended by now, so it returns at once.
    assert wait_for(task, timeout=0) == task


async def test_the_event_of_the_end_wakes_an_async_wait(task):
    waiting = asyncio.create_task(await_for(task, timeout=20))
    await asyncio.sleep(0.3)
    began = time.monotonic()
    await sync_to_async(Task.objects.filter(pk=task.pk).cancel)("no more")
    found = await waiting
    assert time.monotonic() - began < 2
    assert (found.status, found.error, found.job_name) == ("cancelled", "no more", NAME)
    assert (await await_for(str(task.pk), timeout=0)).status == "cancelled"


def test_a_wait_that_runs_out_is_a_timeout(task):
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"still claimed after 0\.2 s"):
        wait_for(task, timeout=0.2)
    assert 0.2 <= time.monotonic() - began < 1


async def test_an_async_wait_that_runs_out_is_a_timeout(task):
    with pytest.raises(TimeoutError, match=r"still claimed after 0\.2 s"):
        await await_for(task, timeout=0.2)


@pytest.mark.parametrize("task_id", [new_id(), "nonsense", ""])
async def test_an_unknown_task_is_task_not_found(db, task_id):
    with pytest.raises(TaskNotFound):
        await await_for(task_id, timeout=5)
    with pytest.raises(TaskNotFound):
        await sync_to_async(wait_for)(task_id, timeout=5)


async def test_a_task_that_is_deleted_meanwhile_is_task_not_found(task, monkeypatch):
    # No event tells of a deletion, which the repeated reads find.
    monkeypatch.setattr(reads, "REREAD_SECONDS", 0.3)
    waiting = asyncio.create_task(await_for(task, timeout=20))
    sync_waiting = asyncio.create_task(
        sync_to_async(wait_for, thread_sensitive=False)(task, timeout=20)
    )
    await asyncio.sleep(0.2)
    await Task.objects.all().adelete()
    with pytest.raises(TaskNotFound):
        await sync_waiting
    with pytest.raises(TaskNotFound):
        await waiting


def test_a_wait_within_a_transaction_is_refused(task):
    with transaction.atomic():
        waited_for = submit(NAME, {})
        for each in (waited_for, task):
            with pytest.raises(TransactionManagementError, match="after the commit"):
                wait_for(each, timeout=5)
        with pytest.raises(TransactionManagementError, match="after the commit"):
            wait_for(new_id(), timeout=5)


def test_an_ended_task_is_returned_within_a_transaction(task):
    with transaction.atomic():
        Task.objects.filter(pk=task.pk).cancel()
        assert wait_for(task, timeout=0).status == "cancelled"


async def test_an_async_wait_within_a_transaction_is_refused(task):
    def begin():
        atomic = transaction.atomic()
        atomic.__enter__()
        return atomic

    atomic = await sync_to_async(begin)()
    try:
        with pytest.raises(TransactionManagementError, match="after the commit"):
            await await_for(task, timeout=5)
    finally:
        await sync_to_async(atomic.__exit__)(None, None, None)


async def test_an_async_wait_reads_the_rows_of_its_tenant(task, settings, settings_of):
    settings.DATABASE_ROUTERS = ["tests.waiting.test_tenants.Router"]
    path = "tests.waiting.test_tenants"
    settings_of(
        tenant=f"{path}.tenant_of", in_tenant=f"{path}.in_tenant", tenants=f"{path}.all_tenants"
    )
    waiting = asyncio.create_task(await_for(task, timeout=20, tenant="a"))
    test_tenants.routed.clear()
    while not get_hub("a").ends._waiters:
        await asyncio.sleep(0.01)
    assert {tenant for _, tenant in test_tenants.routed} == {"a"}
    test_tenants.routed.clear()
    await sync_to_async(Task.objects.filter(pk=task.pk).cancel)()
    assert (await waiting).status == "cancelled"
    # The cancel itself, in another thread, is no tenant's.
    reads_of = [name for name, tenant in test_tenants.routed if tenant == "a"]
    assert any(name.startswith("joblib-reads") for name in reads_of)
