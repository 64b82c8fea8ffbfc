"""Calls the code of tasks within the transaction of a test."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any

from asgiref.sync import async_to_sync
from django.db import connections, transaction
from pydantic import BaseModel

from zndraw_joblib.client.calls import TaskCall
from zndraw_joblib.client.tasks import ClaimedTask
from zndraw_joblib.testing.actions import LocalActions


class LocalCall(TaskCall):
    """Calls the code of one task, whose queries see the rows of the test and leave it usable.

    Sync code that a coroutine of the task awaits, such as a query, runs in the test's own thread,
    because another thread has another connection.
    """

    def __init__(self, actions: LocalActions, cls: type[BaseModel]) -> None:
        super().__init__(None, [cls])
        self._actions = actions

    def __call__(self, task: ClaimedTask, instance: BaseModel) -> Any:
        """As `TaskCall`."""
        with _usable_transactions():
            return super().__call__(task, instance)

    def _run(self, awaitable: Awaitable[Any]) -> Any:
        return async_to_sync(self._actions.run)(awaitable)


@contextmanager
def _usable_transactions() -> Iterator[None]:
    """Keep the open transactions usable after an error of the database.

    A worker has no transaction open, so such an error ends one statement or one block of its code.
    Here it would end the transaction of the test, and the report of the task could not be written.
    """
    savepoints = {
        connection.alias: transaction.savepoint(using=connection.alias)
        for connection in connections.all(initialized_only=True)
        if connection.in_atomic_block
    }
    try:
        yield
    finally:
        for alias, savepoint in savepoints.items():
            if transaction.get_rollback(using=alias):
                transaction.set_rollback(False, using=alias)
                transaction.savepoint_rollback(savepoint, using=alias)
            else:
                transaction.savepoint_commit(savepoint, using=alias)
