"""`JobManager`, the entry to the SDK: registers jobs, and submits, claims and reports tasks."""

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
from zndraw_joblib.client.calls import TaskCall
from zndraw_joblib.client.claiming import INTERVAL, Claims
from zndraw_joblib.client.exceptions import ApiError
from zndraw_joblib.client.grants import Grants
from zndraw_joblib.client.heartbeats import Heartbeats
from zndraw_joblib.client.payloads import load
from zndraw_joblib.client.pulse import Pulse
from zndraw_joblib.client.registration import Registration
from zndraw_joblib.client.reports import Outcome, Report, Reporter
from zndraw_joblib.client.schemas import ClaimedTask, HeartbeatReply, TaskInfo
from zndraw_joblib.client.stream import TaskStream
from zndraw_joblib.client.submitter import Submitter
from zndraw_joblib.client.worker import Worker
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.names import GLOBAL_ROOM, nfc

logger = logging.getLogger(__name__)

J = TypeVar("J", bound=type[BaseModel])
S = TypeVar("S", TaskStream, Worker)


class JobManager(Submitter, Mapping[str, type[BaseModel]]):
    """A process's worker on a server, and a mapping of full job names to the registered classes.

    As a context manager it sends heartbeats from a thread. At the end it waits until the running
    tasks have ended, still sending heartbeats, and deletes its worker.

    Parameters
    ----------
    api
        Access to the server.
    heartbeat_interval
        Seconds between two heartbeats; None leaves it to the server.
    long_poll
        Seconds that one claim asks the server to wait for work.
    batch_size
        Most tasks of one request; lower it for a server whose `max_batch_size` is below 500.
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
        self._reporter = Reporter(api, self._registration, self._grants, batch_size)
        self._pulse = Pulse(self._registration, self._grants)
        self._heartbeats = Heartbeats(
            api, self._registration, self._grants, self._pulse, heartbeat_interval, self._fail
        )
        # Held while a stream is added or all are stopped, because a stop must reach every stream.
        self._starting = threading.Lock()
        self._streams: set[TaskStream | Worker] = set()
        self._stopped = threading.Event()

    def __getitem__(self, name: str) -> type[BaseModel]:
        return self._registration.classes[nfc(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._registration.classes))

    def __len__(self) -> int:
        return len(self._registration.classes)

    # -- registration

    @property
    def worker_id(self) -> str | None:
        """Id of the worker; None before the first registration or claim."""
        return self._registration.worker_id

    def create_worker(self) -> str:
        """Make a worker for this process and return its id."""
        return self._registration.create_worker()

    @overload
    def register(self, cls: J) -> J: ...
    @overload
    def register(self, *, room: str) -> Callable[[J], J]: ...
    def register(self, cls: J | None = None, *, room: str = GLOBAL_ROOM) -> J | Callable[[J], J]:
        """Offer a pydantic model class as a job, as a decorator or called.

        The category is the class's attribute `category`, by default ``"modifiers"``; the schema is
        its `model_json_schema`. A class that was edited and registered again, as in a notebook,
        takes the place of its earlier version, unless other workers offer that one.

        Raises
        ------
        TypeError
            The class is no pydantic model, has no JSON Schema, or its payloads are no JSON objects;
            or its method `run` is a generator function or takes other arguments than the task.
        ValueError
            Another class is registered under the same name. A class of the same module and
            qualified name takes its place, as when a notebook's cell is run again.
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

    def unregister(self, job: type[BaseModel] | str) -> None:
        """Offer a job no more, by its full name or, in all rooms, by its class.

        Tasks of the job that this worker holds are finished. Pending ones wait for another worker
        or for the next registration.

        Raises
        ------
        KeyError
            This worker does not offer the job.
        ApiError
            The server refused the request.
        """
        self._registration.unregister(job)

    def disconnect(self) -> None:
        """Delete the worker.

        Its claimed tasks are pending again. Its running tasks are, too, while retries are left,
        else failed.
        """
        self._registration.delete_worker()

    # -- claiming and reporting

    def claim(self, wait: int = 0) -> ClaimedTask | None:
        """Claim the oldest pending task of the registered jobs; None if there is none.

        `wait` is the number of seconds that the server may wait for work. A worker that the server
        has removed is registered again.
        """
        tasks = self.claim_many(1, wait)
        return tasks[0] if tasks else None

    def claim_many(self, limit: int, wait: int = 0, start: bool = False) -> list[ClaimedTask]:
        """Claim up to `limit` of the oldest pending tasks in one request, oldest first.

        With `start` they are running at once, which saves a `start` for each. If the answer is lost
        or the worker dies, they are then retried while retries are left, else failed; without
        `start` the server grants them to another worker.
        """
        with self._grants.expected() if start else nullcontext():
            return self._claims.send(limit, wait=wait, start=start).tasks

    def instance(self, task: ClaimedTask) -> BaseModel:
        """The instance that was submitted as a claimed task.

        Raises
        ------
        KeyError
            This manager registered no class for the task's job.
        pydantic.ValidationError
            The class refuses the task's payload.
        """
        return load(self[task.job_name], task.payload)

    def listen(self, interval: float = INTERVAL) -> TaskStream:
        """An endless iterator over the tasks granted to this worker.

        It claims by long polls. `interval` is the number of seconds between two claims if the
        server does not honour waits. `TaskStream.stop` ends the iteration from any thread.
        """
        return self._add_stream(TaskStream(self._claims, wait=self.long_poll, interval=interval))

    def _add_stream(self, stream: S) -> S:
        """Add a stream, which `stop` will end; ends it at once if `stop` was called before."""
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
            The task was granted again meanwhile, to a worker of this or of another caller.
        InvalidTaskTransitionError
            The task was cancelled, or is not claimed.
        """
        return self._report(task, TaskStatus.RUNNING)

    def complete(
        self, task: ClaimedTask | TaskInfo | str, *, remark: str | None = None
    ) -> TaskInfo:
        """Report that a task is completed; raises as `start` does.

        A `remark`, for instance a warning, is the `error` of the completed task.
        """
        return self._report(task, TaskStatus.COMPLETED, remark)

    def fail(self, task: ClaimedTask | TaskInfo | str, error: str) -> TaskInfo:
        """Report that a task failed, with the text of its error; raises as `start` does."""
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
        """Send several reports, in one request with reports of other threads.

        The result has for each report, in their order, the task or the error that the report alone
        would have raised. During an outage `lasting` reports are repeated until it is over, or for
        `reports.GIVE_UP_SECONDS` after `stop`; others are sent `retry.ATTEMPTS` times.
        """
        return self._reporter.send(reports, lasting=lasting)

    def abandon(self, task: ClaimedTask | str) -> None:
        """Stop renewing the task's lease; the server requeues or ends the task when it is over."""
        if isinstance(task, str):
            self._grants.drop(task)
        else:
            self._grants.drop(task.id, task.attempt)

    def should_stop(self, task: ClaimedTask) -> bool:
        """Whether a heartbeat reported that the task was cancelled or lost."""
        return self._grants.is_stopped(task)

    def heartbeat(self) -> HeartbeatReply:
        """Keep the worker alive and renew the leases of its tasks.

        A worker that the server has removed is registered again; its tasks are lost.
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

        `execute` is called as ``execute(task, instance)``, or as ``execute(task)`` if it takes one
        argument; without it ``run(task)`` or ``run()`` of the instance is called. A task is
        completed when the call returns, and failed when it raises. A coroutine is run to its end,
        in an event loop that its thread keeps until the end. Running tasks are finished
        before `serve` returns. During an outage claims and reports are repeated until it is over; a
        stopped worker gives up after `reports.GIVE_UP_SECONDS`.

        Without `prefetch` a claim starts its tasks at once while there is work. With `prefetch`,
        which suits many short tasks, up to that many tasks are claimed ahead in one request. They
        stay claimed until a thread starts them; the server grants the rest to another worker.

        Raises
        ------
        TypeError
            `execute` or a method `run` cannot be called so, or is a generator function; without
            `execute`, a class has no method `run`.
        ApiError
            The server refuses to grant tasks, for instance because the token is not valid.
        Exception
            A thread of the worker ended unexpectedly.
        """
        if concurrency < 1 or prefetch < 0:
            raise ValueError("concurrency must be at least 1, prefetch at least 0")
        call = TaskCall(execute, self.values())
        with nullcontext() if self._heartbeats.running else self:
            self._add_stream(
                Worker(
                    self._claims,
                    self._reporter,
                    self._pulse,
                    self._registration.known,
                    call,
                    self.stop,
                    concurrency=concurrency,
                    prefetch=prefetch,
                    wait=self.long_poll,
                )
            ).serve()

    def stop(self) -> None:
        """End `serve` and every stream, from any thread; running tasks are finished first."""
        self._stopped.set()
        self._reporter.stop()
        with self._starting:
            for stream in self._streams:
                stream.stop()

    def _fail(self, error: Exception) -> None:
        """End `serve` and interrupt every stream with an error, because the heartbeats ended."""
        with self._starting:
            streams = list(self._streams)
        for stream in streams:
            stream.fail(error)

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
            except (httpx.TransportError, ApiError) as problem:
                logger.warning("could not delete the worker: %s", problem)
