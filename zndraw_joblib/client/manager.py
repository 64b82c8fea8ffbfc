"""`JobManager`, the entry to the SDK: registers jobs, and submits, claims and reports tasks."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from pydantic import BaseModel

from zndraw_joblib.client.api import ApiManager
from zndraw_joblib.client.batches import BATCH_SIZE
from zndraw_joblib.client.calls import TaskCall
from zndraw_joblib.client.claiming import INTERVAL, Claims
from zndraw_joblib.client.exceptions import ApiError
from zndraw_joblib.client.forks import reset_after_fork
from zndraw_joblib.client.grants import Grants
from zndraw_joblib.client.heartbeats import Heartbeats
from zndraw_joblib.client.payloads import load
from zndraw_joblib.client.pulse import Pulse
from zndraw_joblib.client.registrar import Registrar
from zndraw_joblib.client.registration import JobOptions, Registration
from zndraw_joblib.client.reports import Outcome, Report, Reporter
from zndraw_joblib.client.result_json import result_json
from zndraw_joblib.client.schemas import HeartbeatReply, TaskInfo
from zndraw_joblib.client.stream import TaskStream
from zndraw_joblib.client.submitter import Submitter
from zndraw_joblib.client.task_actions import Actions
from zndraw_joblib.client.tasks import ClaimedTask
from zndraw_joblib.client.updates import UpdateSender
from zndraw_joblib.client.worker import Worker
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.names import nfc

logger = logging.getLogger(__name__)

S = TypeVar("S", TaskStream, Worker)


class JobManager(Registrar, Submitter, Mapping[str, type[BaseModel]]):
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
        classes: dict[str, type[BaseModel]] = {}
        super().__init__(api, batch_size, classes)
        self.long_poll = long_poll
        self._heartbeat_interval = heartbeat_interval
        self._make_parts(classes, {})
        reset_after_fork(self)

    def _make_parts(
        self, classes: dict[str, type[BaseModel]], options: dict[str, JobOptions]
    ) -> None:
        """Make the parts that belong to one process and its worker."""
        api, batch_size = self.api, self.batch_size
        self._registration = Registration(api, classes, options)
        self._grants = Grants()
        self._updates = UpdateSender(api, self._grants, batch_size)
        actions = Actions(api, self._grants, self._updates)
        self._claims = Claims(api, self._registration, self._grants, actions, batch_size)
        self._reporter = self._new_reporter()
        self._pulse = Pulse(self._registration, self._grants)
        self._heartbeats = Heartbeats(
            api,
            self._registration,
            self._grants,
            self._pulse,
            self._heartbeat_interval,
            self._fail,
        )
        # Held while a stream is added or all are stopped, because a stop must reach every stream.
        self._starting = threading.Lock()
        self._streams: set[TaskStream | Worker] = set()
        self._stopped = threading.Event()

    def _new_reporter(self) -> Reporter:
        return Reporter(self.api, self._registration, self._grants, self.batch_size)

    def after_fork(self) -> None:
        """Begin without a worker, because the parent's worker and its tasks are the parent's.

        A claim in the child makes a worker of its own, with the same jobs.
        """
        self._make_parts(self._registration.classes, self._registration.options)

    def __getitem__(self, name: str) -> type[BaseModel]:
        return self._registration.classes[nfc(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._registration.classes))

    def __len__(self) -> int:
        return len(self._registration.classes)

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
        self,
        task: ClaimedTask | TaskInfo | str,
        result: Any = None,
        *,
        remark: str | None = None,
    ) -> TaskInfo:
        """Report that a task is completed, with its result; raises as `start` does.

        A `remark`, for instance a warning, is the `error` of the completed task.

        Raises
        ------
        ResultError
            The result has no form in JSON, or more bytes than the server accepts; nothing was
            reported.
        """
        encoded = result_json(result, self._registration.max_result_bytes)
        return self._report(task, TaskStatus.COMPLETED, remark, result=encoded)

    def fail(
        self,
        task: ClaimedTask | TaskInfo | str,
        error: str,
        *,
        retry: bool | None = None,
        retry_after: float | None = None,
    ) -> TaskInfo:
        """Report that a task failed, with the text of its error; raises as `start` does.

        With retries left it is tried again, unless `retry` is false; `retry_after` is the number of
        seconds before that, in place of the job's backoff.
        """
        return self._report(task, TaskStatus.FAILED, error, retry=retry, retry_after=retry_after)

    def cancel(self, task: ClaimedTask | TaskInfo | str) -> TaskInfo:
        """Cancel a task that has not ended, as its submitter or its worker."""
        return self._report(task, TaskStatus.CANCELLED)

    def _report(
        self,
        task: ClaimedTask | TaskInfo | str,
        status: TaskStatus,
        error: str | None = None,
        **fields: Any,
    ) -> TaskInfo:
        (outcome,) = self.report([Report.on(task, status, error, **fields)])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def report(self, reports: Sequence[Report], *, lasting: bool = False) -> list[Outcome]:
        """Send several reports, in one request with reports of other threads.

        The result has for each report, in their order, the task or the error that the report alone
        would have raised. During an outage `lasting` reports are repeated until it is over, or for
        `reports.GIVE_UP_SECONDS` after `stop`; others are sent `retry.ATTEMPTS` times.
        """
        for report in reports:
            if report.status != TaskStatus.RUNNING:
                self._updates.finish(report.task_id, report.attempt)
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
        completed when the call returns, with the value as its result, and failed when it raises.
        `GiveUp`, `RetryLater` and `Cancelled` end it in other ways. A coroutine is run to its end,
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
                    self._new_reporter(),
                    self._pulse,
                    self._updates,
                    self._registration,
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
            worker_id = self._registration.worker_id
            try:
                self.disconnect()
            except (httpx.TransportError, ApiError) as problem:
                logger.warning(
                    "could not delete the worker: %s", problem, extra={"worker_id": worker_id}
                )
