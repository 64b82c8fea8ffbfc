"""Database reads that many waiters of an event loop share."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

Key = TypeVar("Key")
Value = TypeVar("Value")
Found = TypeVar("Found")

#: Seconds between two reads for all waiters.
REREAD_SECONDS = 5.0
#: Seconds between two reads for all claimers. Shorter, because no message says that a task became
#: due, and it has to start within a second.
DUE_SECONDS = 0.7
#: Rows of one batch of reads; the last request of a batch may exceed it.
BATCH = 1000


class BatchedReads(Generic[Key, Value]):
    """Reads in batches: requests that arrive during a read share the next one.

    `read` is called in the executor and returns a value for each key; `rows` returns the number of
    rows that a key asks for.
    """

    def __init__(
        self,
        executor: Executor,
        read: Callable[[list[Key]], Sequence[Value]],
        rows: Callable[[Key], int] = lambda key: 1,
    ) -> None:
        self._executor = executor
        self._read = read
        self._rows = rows
        self._requests: deque[tuple[Key, asyncio.Future[Value]]] = deque()
        self._reader: asyncio.Task[None] | None = None

    async def read(self, key: Key) -> Value:
        """The key's value, read after this call.

        Raises
        ------
        Exception
            The error of the batch's read.
        """
        value: asyncio.Future[Value] = asyncio.get_running_loop().create_future()
        self._requests.append((key, value))
        if self._reader is None:
            self._reader = asyncio.create_task(self._read_all())
        return await value

    async def _read_all(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._next_batch():
            keys = [key for key, _ in batch]
            try:
                values = await loop.run_in_executor(self._executor, self._read, keys)
            except Exception as error:
                logger.exception("could not read for %d requests", len(batch))
                for _, value in batch:
                    if not value.done():
                        value.set_exception(error)
            else:
                for (_, value), result in zip(batch, values, strict=True):
                    if not value.done():
                        value.set_result(result)
        self._reader = None

    def _next_batch(self) -> list[tuple[Key, asyncio.Future[Value]]]:
        batch, rows = [], 0
        while self._requests and rows < BATCH:
            request = self._requests.popleft()
            rows += self._rows(request[0])
            batch.append(request)
        return batch


class RepeatedReads(Generic[Key, Found]):
    """Reads the database for all waiters of one kind, because messages may be lost.

    New keys are read at once, and all keys with waiters every `interval()` seconds. `read` is
    called in the executor; `wake` is then called for each value that it returned.
    """

    def __init__(
        self,
        executor: Executor,
        waited_for: Collection[Key],
        read: Callable[[list[Key]], Iterable[Found]],
        wake: Callable[[Found], None],
        interval: Callable[[], float] = lambda: REREAD_SECONDS,
    ) -> None:
        self._executor = executor
        self._waited_for = waited_for
        self._read = read
        self._wake = wake
        self._interval = interval
        self._unread: set[Key] = set()
        self._has_unread = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._read_forever())

    def read_soon(self, keys: Iterable[Key]) -> None:
        """Read these keys at once."""
        self._unread.update(keys)
        self._has_unread.set()

    async def _read_forever(self) -> None:
        loop = asyncio.get_running_loop()
        everything_at = loop.time() + self._interval()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(everything_at):
                    await self._has_unread.wait()
            # The clock decides, because a timeout never fires while new keys keep coming.
            if loop.time() < everything_at:
                keys = [key for key in self._unread if key in self._waited_for]
            else:
                everything_at = loop.time() + self._interval()
                keys = list(self._waited_for)
            self._has_unread.clear()
            self._unread.clear()
            if not keys:
                continue
            try:
                found = await loop.run_in_executor(self._executor, self._read, keys)
            except Exception:
                logger.exception("could not read for the waiters of %d keys", len(keys))
                continue
            for value in found:
                self._wake(value)
