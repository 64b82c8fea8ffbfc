"""Stores the progress, log text and files of tasks that `run_pending` runs, and tells cancels."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import UUID

from django.db import connections, router

from zndraw_joblib.access import Caller
from zndraw_joblib.api.documents import file_document, json_text
from zndraw_joblib.client.files import Content, Source, name_and_type
from zndraw_joblib.client.tasks import ClaimedTask
from zndraw_joblib.exceptions import ProblemException
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.models import Task
from zndraw_joblib.services.log import append_log
from zndraw_joblib.services.report import report
from zndraw_joblib.services.uploads import Upload, upload
from zndraw_joblib.storage.rows import Report

#: The variable by which Django allows queries where an event loop runs.
_ALLOW = "DJANGO_ALLOW_ASYNC_UNSAFE"


class LocalActions:
    """The `TaskActions` of the tasks that `run_pending` runs.

    Only its own thread, and that of a coroutine for which it waits, use the database, because other
    threads would not see the rows of a test's transaction. Progress and log text of other threads
    are kept until the next action of these two.
    """

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._threads = {threading.get_ident()}
        self._waiting: deque[Callable[[], Any]] = deque()
        self._stopped = False
        self._connections = {each.alias: each for each in connections.all(initialized_only=True)}

    async def run(self, awaitable: Awaitable[Any]) -> Any:
        """Run a coroutine of the task, whose thread may use the database then."""
        thread = threading.get_ident()
        self._threads.add(thread)
        try:
            return await awaitable
        finally:
            self._threads.discard(thread)

    def is_stopped(self, task: ClaimedTask) -> bool:
        """Whether the task was cancelled or lost."""
        if threading.get_ident() in self._threads:
            rows = Task.objects.using(router.db_for_write(Task)).filter(
                pk=task.id, attempt=task.attempt, status=TaskStatus.RUNNING
            )
            with self._queries_allowed():
                self._stopped = not rows.exists()
        return self._stopped

    def progress(self, task: ClaimedTask, fraction: float | None, message: str | None) -> None:
        """Report progress."""
        given = Report(
            UUID(task.id), TaskStatus.RUNNING, task.attempt, progress=fraction, message=message
        )
        self._do(lambda: report(self._caller, given))

    def log(self, task: ClaimedTask, line: str) -> None:
        """Append a line to the task's log."""
        self._do(lambda: append_log(self._caller, UUID(task.id), task.attempt, line))

    def upload(
        self, task: ClaimedTask, source: Source, name: str | None, content_type: str | None
    ) -> dict[str, Any]:
        """Store a file of the task; returns the document of the API."""
        name, kind = name_and_type(source, name, content_type)
        content = Content(source)
        given = Upload(name, kind, _Chunks(content), content.size)
        try:
            with self._queries_allowed():
                file, _ = upload(self._caller, UUID(task.id), task.attempt, given)
        finally:
            content.close()
        document: dict[str, Any] = json.loads(json_text(file_document(file)))
        return document

    def flush(self) -> None:
        """Carry out the actions of other threads."""
        while self._waiting:
            # Refused when the task was cancelled meanwhile, which must not fail the work.
            with suppress(ProblemException), self._queries_allowed():
                self._waiting.popleft()()

    def _do(self, action: Callable[[], Any]) -> None:
        self._waiting.append(action)
        if threading.get_ident() in self._threads:
            self.flush()

    @contextmanager
    def _queries_allowed(self) -> Iterator[None]:
        """Let queries use the connections of the test while a coroutine of the task runs.

        Django refuses queries in the thread of an event loop, and has no connections of the test
        there. Here they are safe, because the test's own thread waits meanwhile.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            yield
            return
        before = os.environ.get(_ALLOW)
        os.environ[_ALLOW] = "1"
        for alias, connection in self._connections.items():
            connection.inc_thread_sharing()
            connections[alias] = connection
        try:
            yield
        finally:
            for alias, connection in self._connections.items():
                del connections[alias]
                connection.dec_thread_sharing()
            if before is None:
                del os.environ[_ALLOW]
            else:
                os.environ[_ALLOW] = before


class _Chunks:
    """The content of an upload, to be read like the body of a request."""

    def __init__(self, content: Content) -> None:
        self._chunks = iter(content)
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end."""
        if not self._rest:
            self._rest = next(self._chunks, b"")
        part, self._rest = self._rest[:size], self._rest[size:]
        return part
