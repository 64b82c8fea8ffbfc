"""Reads that waiters share, without a database."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from zndraw_joblib.events import reads
from zndraw_joblib.events.reads import RepeatedReads


async def test_everything_is_read_again_while_new_keys_keep_coming(monkeypatch):
    """A new key wakes the reader each time, so its timeout alone would never fire."""
    monkeypatch.setattr(reads, "REREAD_SECONDS", 0.1)
    read: list[list[int]] = []
    waited_for = {0}

    def note(keys):
        read.append(sorted(keys))
        # New keys come while it reads, so the reader never waits.
        time.sleep(0.02)
        return []

    with ThreadPoolExecutor(1) as executor:
        repeated = RepeatedReads(executor, waited_for, note, lambda key: None)
        try:
            for key in range(1, 400):
                waited_for.add(key)
                repeated.read_soon([key])
                await asyncio.sleep(0.002)
        finally:
            repeated._task.cancel()
    assert sum(0 in keys for keys in read) >= 3
