from __future__ import annotations

import pytest


@pytest.fixture
def running(bob) -> str:
    """Id of a task that bob's default worker runs."""
    bob.register()
    bob.submit()
    task = bob.claim()
    bob.report(task["id"], "running", attempt=1)
    return task["id"]
