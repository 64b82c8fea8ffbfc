"""The SDK's centre: jobs are registered, tasks submitted, claimed and reported through it."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, Self, TypeVar, overload

import httpx
from pydantic import BaseModel

from zndraw_joblib.client import worker as workers
from zndraw_joblib.client.api import (
    LONGEST_PAUSE,
    ApiManager,
    away,
    never_sent,
    path,
    send,
    turned_away,
)
from zndraw_joblib.client.batches import BATCH_SIZE
from zndraw_joblib.client.exceptions import (
    ApiError,
    WorkerNotFoundError,
)
from zndraw_joblib.client.grants import Grants
from zndraw_joblib.client.reports import LOST, Outcome, Report, Reporter
from zndraw_joblib.client.schemas import ClaimedTask, HeartbeatReply, TaskInfo
from zndraw_joblib.client.sources import INTERVAL, Direct, Prefetched, Source
from zndraw_joblib.client.stream import TaskStream
from zndraw_joblib.client.submitter import Submitter, job_name
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.names import GLOBAL_ROOM, JobName

logger = logging.getLogger(__name__)

J = TypeVar("J", bound=type[BaseModel])
S = TypeVar("S", TaskStream, Prefetched)

#: Seconds between two heartbeats for a server that does not say how often it wants them.
HEARTBEAT_INTERVAL = 20.0
#: Tasks of one heartbeat; the server takes no more.
HEARTBEAT_TASKS = 500


class JobManager(Submitter, Mapping[str, type[BaseModel]]):
    """A worker of its own on a server, and a mapping of full job names to classes.

    As a context manager it sends heartbeats from a thread and, on leaving, waits until running
    work has drained (with heartbeats kept up) and deletes its worker.

    Parameters
    ----------
    api
        How to reach the server.
    heartbeat_interval
        Seconds between two heartbeats; what the server asks for when left out.
    long_poll
        Seconds that the server is asked to wait for work in one claim.
    batch_size
        Tasks of one request at most; for a server whose `max_batch_size` is less than 500.
    """

    def __init__(
        self,
        api: ApiManager,
        *,
        heartbeat_interval: float | None = None,
        long_poll: int = 30,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        super().__init__(api, batch_size)
        self.long_poll = long_poll
        self._heartbeat_interval = heartbeat_interval
        self._asked_interval = HEARTBEAT_INTERVAL
        self._worker_id: str | None = None
        # Held while the worker is made or made anew, so that one thread does it.
        self._registering = threading.RLock()
        self._grants = Grants()
        self._reporter = Reporter(api, batch_size)
        # Held while one is added or all are stopped, so that a stop reaches every one.
        self._starting = threading.Lock()
        self._streams: set[TaskStream | Prefetched] = set()
        self._left = threading.Event()
        self._heart: threading.Thread | None = None

    def __getitem__(self, name: str) -> type[BaseModel]:
        return self._classes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._classes))

    def __len__(self) -> int:
        return len(self._classes)

    # -- registration

    @property
    def worker_id(self) -> str | None:
        """Id of the worker, once there is one."""
        return self._worker_id

    def create_worker(self) -> str:
        """Make a worker of its own for this process and return its id."""
        with self._registering:
            # One whose reply is lost would be left behind, and count against a limit.
            made = send(self.api, "POST", path("workers"), retry_on=turned_away).json()
            self._asked_interval = made.get("heartbeat_interval_seconds", HEARTBEAT_INTERVAL)
            worker_id: str = made["id"]
            self._worker_id = worker_id
            return worker_id

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
        name = job_name(cls, room)
        with self._registering:
            try:
                self._offer(name, cls)
            except WorkerNotFoundError:
                self._register_again(self._worker_id)
                self._offer(name, cls)
            self._classes[str(name)] = cls
        return cls

    def _offer(self, name: JobName, cls: type[BaseModel]) -> None:
        body = {
            "category": name.category,
            "name": name.name,
            "schema": cls.model_json_schema(),
            "worker_id": self._worker_id or self.create_worker(),
        }
        send(self.api, "PUT", path("rooms", name.room_id, "jobs"), body=body)

    def _register_again(self, lost: str | None) -> None:
        """After the server forgot the worker `lost`: a new one with the same jobs."""
        with self._registering:
            if self._worker_id != lost:
                return  # Another thread was first.
            logger.warning("worker %s is gone; registering again", lost)
            self.create_worker()
            try:
                for name, cls in self._classes.items():
                    self._offer(JobName.parse(name), cls)
            except (ApiError, httpx.TransportError) as error:
                if away(error):
                    # One without all its jobs would never know: the next request finds it lost.
                    self._worker_id = lost
                raise

    def disconnect(self) -> None:
        """Delete the worker. Its claimed tasks go back to pending; running ones end."""
        with self._registering:
            worker_id, self._worker_id = self._worker_id, None
            if worker_id is None:
                return
            try:
                send(self.api, "DELETE", path("workers", worker_id))
            except WorkerNotFoundError:
                logger.info("worker %s was gone already", worker_id)

    # -- claiming and reporting

    def claim(self, wait: int = 0) -> ClaimedTask | None:
        """Claim the oldest pending task of the registered jobs; None when there is none.

        `wait` is how many seconds the server may wait for work. A worker that the server forgot
        is registered again.
        """
        return self.poll(wait)[0]

    def claim_many(self, limit: int, wait: int = 0, start: bool = False) -> list[ClaimedTask]:
        """Claim up to `limit` of the oldest pending tasks in one request, oldest first.

        With `start` they are running at once, which saves a `start` for each; should their answer
        be lost, or their worker die, they end as running tasks do: retried while retries are left,
        else failed. Without, the server gives them to somebody else.
        """
        with self.expected() if start else nullcontext():
            return self.poll_many(limit, wait, start)[0]

    def expected(self) -> AbstractContextManager[None]:
        """While it is held leaving waits, for tasks that a claim may be about to start."""
        return self._grants.expected()

    def poll(self, wait: int) -> tuple[ClaimedTask | None, bool]:
        """Claim one task; the task or None, and whether the server honoured the wait."""
        tasks, waited = self._claim(wait)
        return (tasks[0] if tasks else None), waited

    def poll_many(
        self, limit: int, wait: int, start: bool = False
    ) -> tuple[list[ClaimedTask], bool]:
        """Claim several tasks; the tasks, and whether the server honoured the wait."""
        wishes: dict[str, Any] = {"limit": min(limit, self.batch_size)}
        return self._claim(wait, **wishes, **({"start": True} if start else {}))

    def _claim(self, wait: int, **wishes: Any) -> tuple[list[ClaimedTask], bool]:
        worker_id = self._worker_id or self.create_worker()
        try:
            answer = send(
                self.api,
                "POST",
                path("tasks", "claim"),
                body={"worker_id": worker_id, **wishes},
                wait=wait,
                # A claim whose answer is lost is granted and comes back when its lease ends.
                retry_on=never_sent,
                attempts=2,
            )
        except WorkerNotFoundError:
            self._register_again(worker_id)
            return [], True
        granted = answer.json()
        first = granted["task"]
        tasks = [
            ClaimedTask.model_validate(task)
            for task in granted.get("tasks", [] if first is None else [first])
        ]
        self._grants.add(tasks)
        return tasks, bool(tasks) or "Preference-Applied" in answer.headers

    def listen(self, interval: float = INTERVAL) -> TaskStream:
        """The tasks granted to this worker, one after the other, for ever.

        It waits by long polls; `interval` is the seconds between two claims of a server that
        does not honour them. `TaskStream.stop` ends it from any thread.
        """
        return self._until_stopped(
            TaskStream(self.poll, self.abandon, wait=self.long_poll, interval=interval)
        )

    def _until_stopped(self, stream: S) -> S:
        """Let `stop` end a stream, at once if it was called already."""
        with self._starting:
            self._streams = {known for known in self._streams if not known.stopped} | {stream}
            if self._left.is_set():
                stream.stop()
        return stream

    def start(self, task: ClaimedTask | TaskInfo | str) -> TaskInfo:
        """Report that work on a claimed task began.

        Raises
        ------
        LeaseLostError, ForbiddenError
            The task was granted anew meanwhile, the latter to somebody else's worker.
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
        """Send several reports, together with what other threads report meanwhile.

        Each stands alone: the list holds, in their order, the task or the error that the report
        alone would have raised. While the server is away `lasting` ones are repeated until it is
        back, but after `stop` for `reports.GIVE_UP_SECONDS` only; others a few times.
        """
        outcomes = self._reporter.send(reports, lasting=lasting)
        for report, outcome in zip(reports, outcomes, strict=True):
            ended = isinstance(outcome, TaskInfo) and report.status != TaskStatus.RUNNING
            if ended or isinstance(outcome, LOST):
                self._grants.drop(report.task_id, report.attempt)
        return outcomes

    def abandon(self, task: ClaimedTask | str) -> None:
        """Renew the task's lease no longer; unless it ended, the server will requeue it."""
        if isinstance(task, str):
            self._grants.drop(task)
        else:
            self._grants.drop(task.id, task.attempt)

    def should_stop(self, task: ClaimedTask) -> bool:
        """Whether a heartbeat learnt that the task was cancelled or lost."""
        return self._grants.stopped(task)

    def heartbeat(self) -> HeartbeatReply:
        """Say that the worker lives and renew the leases of its active tasks.

        A worker that the server forgot is registered again; its tasks are lost then.
        """
        held = self._grants.held()
        reply = self._beat_once(held[:HEARTBEAT_TASKS])
        for start in range(HEARTBEAT_TASKS, len(held), HEARTBEAT_TASKS):
            more = self._beat_once(held[start : start + HEARTBEAT_TASKS])
            reply.lost += more.lost
            reply.cancelled += more.cancelled
        return reply

    def _beat_once(self, held: Sequence[ClaimedTask]) -> HeartbeatReply:
        worker_id = self._worker_id or self.create_worker()
        body = {"tasks": [{"id": task.id, "attempt": task.attempt} for task in held]}
        try:
            answer = send(self.api, "PATCH", path("workers", worker_id), body=body)
        except WorkerNotFoundError:
            self._register_again(worker_id)
            return self._beat_once(held)
        reply = HeartbeatReply.model_validate_json(answer.content)
        gone = {*reply.lost, *reply.cancelled}
        self._grants.stop(task for task in held if task.id in gone)
        return reply

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
        means completed, an exception failed. What runs at the end is finished first. While the
        server is away it is asked again until it is back; a stopped worker gives up after a while.

        While there is work each claim starts its task at once. With `prefetch` up to so many
        tasks are claimed ahead in one request, for many short tasks; they are held claimed until a
        thread starts them, and given back at the end.

        Raises
        ------
        ApiError
            The server refuses to grant tasks, for instance because the token is not valid.
        """
        if concurrency < 1 or prefetch < 0:
            raise ValueError("concurrency must be at least 1, prefetch at least 0")
        with nullcontext() if self._heart else self:
            # All exist before the first thread runs, so that a stop reaches every one.
            sources: list[Source] = (
                [self._until_stopped(Prefetched(self, prefetch))] * concurrency
                if prefetch
                else [Direct(self) for _ in range(concurrency)]
            )
            workers.serve(self, execute, sources)

    def stop(self) -> None:
        """End `serve` and every stream, from any thread, once running work has finished."""
        self._left.set()
        self._reporter.stop()
        with self._starting:
            for stream in self._streams:
                stream.stop()

    def __enter__(self) -> Self:
        self._left.clear()
        self._reporter.resume()
        self._beating = threading.Event()
        self._heart = threading.Thread(
            target=self._beat, args=(self._beating,), name="joblib-heartbeat", daemon=True
        )
        self._heart.start()
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
            self._beating.set()
            if self._heart is not None:
                self._heart.join()
            self._heart = None
            try:
                self.disconnect()
            except (httpx.TransportError, ApiError) as failure:
                logger.warning("could not delete the worker: %s", failure)

    def _pause(self) -> float:
        """Seconds until the next heartbeat; how many the server wants, its worker's reply says."""
        interval = self._heartbeat_interval or self._asked_interval
        return interval if self._worker_id else min(interval, 1.0)

    def _beat(self, ended: threading.Event) -> None:
        most = math.inf
        while not ended.wait(min(most, self._pause())):
            if self._worker_id is None:
                continue
            try:
                self.heartbeat()
            except (httpx.TransportError, ApiError, ValueError) as error:
                logger.warning("heartbeat of worker %s failed: %s", self._worker_id, error)
                # Leases go on ending: once the server is back it must hear of them soon.
                most = LONGEST_PAUSE
            else:
                most = math.inf
