from __future__ import annotations

import pytest


@pytest.fixture
def running(bob) -> str:
    """The id of a task that Bob's default worker runs."""
    bob.register()
    bob.submit()
    task = bob.claim()
    bob.report(task["id"], "running", attempt=1)
    return task["id"]
