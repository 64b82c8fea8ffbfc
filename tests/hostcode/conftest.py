from __future__ import annotations

import pytest

from tests.factories import SCHEMA
from zndraw_joblib import declare_job, signals


@pytest.fixture
def job(db):
    """A job of the room `shop` without a worker."""
    return declare_job("shop:modifiers:Rotate", SCHEMA)


@pytest.fixture
def announced():
    """The tasks of the signal `task_submitted`."""
    tasks = []

    def receive(task, **kwargs):
        tasks.append(task)

    signals.task_submitted.connect(receive)
    yield tasks
    signals.task_submitted.disconnect(receive)
