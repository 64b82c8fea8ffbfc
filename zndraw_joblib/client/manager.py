"""The centre of the SDK: it registers jobs, and submits, claims and reports tasks."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from types import TracebackType
from typing import Any, Self, TypeVar, overload

import httpx
from pydantic import BaseModel

from zndraw_joblib.client.api import ApiManager
from zndraw_joblib.client.batches import BATCH_SIZE
from zndraw_joblib.client.claiming import INTERVAL, Claims
from zndraw_joblib.client.exceptions import ApiError
from zndraw_joblib.client.grants import Grants
from zndraw_joblib.client.heartbeats import Heartbeats
from zndraw_joblib.client.registration import Registration
from zndraw_joblib.client.reports import Outcome, Report, Reporter
from zndraw_joblib.client.schemas import ClaimedTask, HeartbeatReply, TaskInfo
from zndraw_joblib.client.stream import TaskStream
from zndraw_joblib.client.submitter import Submitter
from zndraw_joblib.client.worker import Worker
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.names import GLOBAL_ROOM

logger = logging.getLogger(__name__)

J = TypeVar("J", bound=type[BaseModel])
S = TypeVar("S", TaskStream, Worker)


class JobManager(Submitter, Mapping[str, type[BaseModel]]):
    """A worker of its own on a server, and a mapping of full job names to classes.

    As a context manager it sends heartbeats from a thread and, on leaving, waits until running
    work has drained (with heartbeats kept up) and deletes its worker.

    Parameters
    ----------
    api
        Access to the server.
    heartbeat_interval
        Seconds between two heartbeats; left out, the server decides.
    long_poll
        Seconds that the server is asked to wait for work in one claim.
    batch_size
        Most tasks of one request; for a server whose `max_batch_size` is less than 500.
    """

    def __init__(
        self,
        api: ApiManager,
        *,
        heartbeat_interval: float | None = None,
        long_poll: int = 30,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        self._registration = Registration(api)
        super().__init__(api, batch_size, self._registration.classes)
        self.long_poll = long_poll
        self._grants = Grants()
        self._claims = Claims(api, self._registration, self._grants, batch_size)
        self._reporter = Reporter(api, self._grants, batch_size)
        self._heartbeats = Heartbeats(api, self._registration, self._grants, heartbeat_interval)
        # Held while a stream is added or all are stopped, so that a stop reaches every one.
        self._starting = threading.Lock()
        self._streams: set[TaskStream | Worker] = set()
        self._stopped = threading.Event()

    def __getitem__(self, name: str) -> type[BaseModel]:
        return self._registration.classes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._registration.classes))

    def __len__(self) -> int:
        return len(self._registration.classes)

    # -- registration

    @property
    def worker_id(self) -> str | None:
        """Id of the worker, once there is one."""
        return self._registration.worker_id

    def create_worker(self) -> str:
        """Make a worker of its own for this process and return its id."""
        return self._registration.create_worker()

    @overload
    def register(self, cls: J) -> J: ...
    @overload
    def register(self, *, room: str) -> Callable[[J], J]: ...
    def register(self, cls: J | None = None, *, room: str = GLOBAL_ROOM) -> J | Callable[[J], J]:
        """Offer a pydantic model class as a job, as a decorator or called.

        The category is the class's attribute `category` (``"modifiers"`` without), the schema
        its `model_json_schema`, the room ``@global`` unless given.

        Raises
        ------
        ApiError
            `InvalidCategoryError`, `InvalidRoomIdError`, `ForbiddenError` (``@global`` needs an
            administrator), `SchemaConflictError`.
        """
        if cls is None:
            return lambda given: self._register(given, room)
        return self._register(cls, room)

    def _register(self, cls: J, room: str) -> J:
        self._registration.register(cls, room)
        return cls

    def disconnect(self) -> None:
        """Delete the worker. Its claimed tasks go back to pending; running ones end."""
        self._registration.delete_worker()

    # -- claiming and reporting

    def claim(self, wait: int = 0) -> ClaimedTask | None:
        """Claim the oldest pending task of the registered jobs; None when there is none.

        `wait` is how many seconds the server may wait for work. A worker that the server forgot
        is registered again.
        """
        tasks = self.claim_many(1, wait)
        return tasks[0] if tasks else None

    def claim_many(self, limit: int, wait: int = 0, start: bool = False) -> list[ClaimedTask]:
        """Claim up to `limit` of the oldest pending tasks in one request, oldest first.

        With `start` they are running at once, which saves a `start` for each; should their answer
        be lost, or their worker die, they end as running tasks do: retried while retries are left,
        else failed. Without, the server gives them to another worker.
        """
        with self._grants.expected() if start else nullcontext():
            return self._claims.send(limit, wait=wait, start=start).tasks

    def listen(self, interval: float = INTERVAL) -> TaskStream:
        """The tasks granted to this worker, one after the other, for ever.

        It waits by long polls; `interval` is the seconds between two claims where the server does
        not honour waits. `TaskStream.stop` ends it from any thread.
        """
        return self._add_stream(TaskStream(self._claims, wait=self.long_poll, interval=interval))

    def _add_stream(self, stream: S) -> S:
        """Let `stop` end a stream; after a `stop` the stream ends at once."""
        with self._starting:
            self._streams = {one for one in self._streams if not one.stopped} | {stream}
            if self._stopped.is_set():
                stream.stop()
        return stream

    def start(self, task: ClaimedTask | TaskInfo | str) -> TaskInfo:
        """Report that work on a claimed task began.

        Raises
        ------
        LeaseLostError, ForbiddenError
            The task was granted again meanwhile, the latter to a worker of another caller.
        InvalidTaskTransitionError
            It was cancelled, or is not claimed.
        """
        return self._report(task, TaskStatus.RUNNING)

    def complete(self, task: ClaimedTask | TaskInfo | str) -> TaskInfo:
        """Report success; errors as in `start`."""
        return self._report(task, TaskStatus.COMPLETED)

    def fail(self, task: ClaimedTask | TaskInfo | str, error: str) -> TaskInfo:
        """Report failure with a text; errors as in `start`."""
        return self._report(task, TaskStatus.FAILED, error)

    def cancel(self, task: ClaimedTask | TaskInfo | str) -> TaskInfo:
        """Cancel a task that has not ended, as its submitter or its worker."""
        return self._report(task, TaskStatus.CANCELLED)

    def _report(
        self, task: ClaimedTask | TaskInfo | str, status: TaskStatus, error: str | None = None
    ) -> TaskInfo:
        (outcome,) = self.report([Report.on(task, status, error)])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def report(self, reports: Sequence[Report], *, lasting: bool = False) -> list[Outcome]:
        """Send several reports, together with the reports of other threads.

        Each stands alone: the list has, in their order, the task or the error that the report
        alone would have raised. During an outage `lasting` reports are repeated until it is over,
        but after `stop` for `reports.GIVE_UP_SECONDS` only; others `retry.ATTEMPTS` times.
        """
        return self._reporter.send(reports, lasting=lasting)

    def abandon(self, task: ClaimedTask | str) -> None:
        """Renew the task's lease no longer; unless the task ended, the server requeues it."""
        if isinstance(task, str):
            self._grants.drop(task)
        else:
            self._grants.drop(task.id, task.attempt)

    def should_stop(self, task: ClaimedTask) -> bool:
        """Whether a heartbeat reported that the task was cancelled or lost."""
        return self._grants.is_stopped(task)

    def heartbeat(self) -> HeartbeatReply:
        """Keep the worker alive and renew the leases of its active tasks.

        A worker that the server forgot is registered again; its tasks are lost then.
        """
        return self._heartbeats.send()

    # -- running

    def serve(
        self,
        execute: Callable[..., Any] | None = None,
        *,
        concurrency: int = 1,
        prefetch: int = 0,
    ) -> None:
        """Claim, run and report in `concurrency` threads until SIGINT, SIGTERM or `stop`.

        `execute` is called as ``execute(task, instance)``, or ``execute(task)`` when it takes
        one argument; without it the instance's own ``run(task)`` or ``run()`` is. Returning
        means completed, an exception failed. Tasks that run at the end are finished first. During
        an outage claims and reports are repeated until it is over; a stopped worker gives up after
        `reports.GIVE_UP_SECONDS`.

        While there is work each claim starts its tasks at once. With `prefetch` up to so many
        tasks are claimed ahead in one request, for many short tasks; they stay claimed until a
        thread starts them, and go back to the server at the end.

        Raises
        ------
        ApiError
            The server refuses to grant tasks, for instance because the token is not valid.
        """
        if concurrency < 1 or prefetch < 0:
            raise ValueError("concurrency must be at least 1, prefetch at least 0")
        with nullcontext() if self._heartbeats.running else self:
            self._add_stream(
                Worker(
                    self._claims,
                    self._reporter,
                    self._registration.classes,
                    execute,
                    self.stop,
                    concurrency=concurrency,
                    prefetch=prefetch,
                    wait=self.long_poll,
                )
            ).serve()

    def stop(self) -> None:
        """End `serve` and every stream, from any thread, once running work has finished."""
        self._stopped.set()
        self._reporter.stop()
        with self._starting:
            for stream in self._streams:
                stream.stop()

    def __enter__(self) -> Self:
        self._stopped.clear()
        self._reporter.resume()
        self._heartbeats.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        try:
            if kind is None:
                self._grants.wait_until_none()
        finally:
            self._heartbeats.stop()
            try:
                self.disconnect()
            except (httpx.TransportError, ApiError) as failure:
                logger.warning("could not delete the worker: %s", failure)
