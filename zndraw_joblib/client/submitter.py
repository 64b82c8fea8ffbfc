"""`Submitter`: submits tasks and waits for their ends."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import httpx
from pydantic import BaseModel

from zndraw_joblib.client import waiting
from zndraw_joblib.client.api import ApiManager, send
from zndraw_joblib.client.bars import count_ends, load_bar
from zndraw_joblib.client.batches import array, batch_slices
from zndraw_joblib.client.exceptions import ApiError, PartlySubmittedError
from zndraw_joblib.client.handles import TaskHandle
from zndraw_joblib.client.outcomes import UnsuccessfulTask
from zndraw_joblib.client.reader import Reader
from zndraw_joblib.client.registration import is_same_class, job_name
from zndraw_joblib.client.result_values import Job, result_of
from zndraw_joblib.client.schemas import (
    SubmittedTask,
    TaskInfo,
    read_list,
    read_submitted,
    read_submitted_list,
)
from zndraw_joblib.client.submissions import (
    entry_json,
    instance_of,
    instances_of,
    key_header,
    options_json,
    tasks_url,
)
from zndraw_joblib.names import GLOBAL_ROOM, JobName
from zndraw_joblib.tracing import current_header

T = TypeVar("T")


class Submitter(Reader):
    """Submits tasks and waits for them.

    `classes` are the registered classes by the full names of their jobs.
    """

    def __init__(
        self, api: ApiManager, batch_size: int, classes: Mapping[str, type[BaseModel]]
    ) -> None:
        super().__init__(api)
        self.batch_size = batch_size
        self._classes = classes

    def submit(self, instance: BaseModel, *, room: str, job_room: str | None = None) -> str:
        """Submit a task in a room and return its id.

        The job is the room's own if this manager registered the class there, else ``@global``'s;
        `job_room` names another room. The request has an ``Idempotency-Key``, so that it can be
        sent again without a second task.

        Raises
        ------
        ApiError
            `JobNotFoundError`, `InvalidPayloadError`, `ForbiddenError`, `TooManyPendingError`.
        RoundTripError
            A worker with the same class would not get the instance as it is.
        TypeError
            The class has no JSON Schema.
        """
        job = self._job_of(type(instance), room, job_room)
        return self._post(tasks_url(job, room), entry_json(instance), read_submitted).id

    def send(
        self,
        job: BaseModel | Callable[..., Any],
        /,
        *values: Any,
        room: str,
        job_room: str | None = None,
        retries: int | None = None,
        delay: float | None = None,
        run_at: datetime | None = None,
        timeout_seconds: float | None = None,
        idempotency_key: str | None = None,
        **arguments: Any,
    ) -> TaskHandle:
        """Submit a task in a room and return its handle.

        Parameters
        ----------
        job
            An instance of a job's class; or a function that `JobManager.job` decorates, whose
            arguments are `values`, in the order of the function's own, and `arguments`.
        room, job_room
            As in `submit`.
        retries
            How often a failed task is tried again, at most; None leaves it to the job.
        delay, run_at
            Seconds until the task may start, or the time from which it may; not both.
        timeout_seconds
            Most seconds that an attempt may run.
        idempotency_key
            Another submit with this key and payload returns the same task, also that of another
            process; None makes a key, for the repetitions of this request only.

        Raises
        ------
        ApiError, RoundTripError
            As in `submit`.
        TypeError
            `job` is neither of these, or its arguments are not those of the function. An argument
            of the function that is named like an option is given by its position.
        ValueError
            `delay` and `run_at` are both given; `run_at` has no time zone; a number is not finite;
            the arguments are not valid (`pydantic.ValidationError`).
        """
        options = options_json(retries, delay, run_at, timeout_seconds)
        named = {"room", *options}
        named |= {"job_room"} if job_room is not None else set()
        named |= {"idempotency_key"} if idempotency_key is not None else set()
        instance = instance_of(job, values, arguments, named)
        name = self._job_of(type(instance), room, job_room)
        body = entry_json(instance, options)
        task = self._post(tasks_url(name, room), body, read_submitted, idempotency_key)
        source = type(instance) if isinstance(job, BaseModel) else job
        return TaskHandle(self.api, task.id, source, job_name=str(name))

    def handle(self, task_id: str | UUID, job: Job | None = None) -> TaskHandle:
        """The handle of a task that was submitted before; sends no request.

        `job` is the class or decorated function whose `run` has the type of the result.
        """
        return TaskHandle(self.api, task_id, job)

    def submit_many(
        self, instances: Iterable[BaseModel], *, room: str, job_room: str | None = None
    ) -> list[str]:
        """Submit tasks in a room; returns their ids, in the order of the instances.

        Instances of one class are submitted in their order, in requests of up to `batch_size` tasks
        and 900 kB. Each request is accepted as a whole or not at all, and can be sent again without
        further tasks. `room` and `job_room` mean the same as in `submit`.

        Raises
        ------
        ApiError
            As in `submit`, if no task was accepted. The pointers of its `errors` begin with the
            index of the instance: ``/3/payload/angle``.
        RoundTripError, TypeError
            As in `submit`; no task was submitted.
        PartlySubmittedError
            A later request failed. `task_ids` lists the accepted tasks, `__cause__` is the error.
        """
        groups: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
        number = 0
        # All are encoded before the first request, because an instance may have no form in JSON.
        for number, instance in enumerate(instances, 1):
            url = tasks_url(self._job_of(type(instance), room, job_room), room)
            groups[url].append((number - 1, entry_json(instance)))
        task_ids: list[str | None] = [None] * number
        try:
            for url, group in groups.items():
                places, entries = zip(*group, strict=True)
                for batch_slice in batch_slices(entries, self.batch_size):
                    for place, accepted in zip(
                        places[batch_slice],
                        self._post_batch(url, entries[batch_slice], places[batch_slice]),
                        strict=True,
                    ):
                        task_ids[place] = accepted.id
        except (ApiError, httpx.TransportError) as error:
            if any(task_ids):
                raise PartlySubmittedError(task_ids, error) from error
            raise
        return [task_id for task_id in task_ids if task_id is not None]

    def _post_batch(
        self, url: str, entries: Sequence[bytes], places: Sequence[int]
    ) -> list[SubmittedTask]:
        try:
            return self._post(url, array(entries), read_list(read_submitted_list, len(entries)))
        except ApiError as error:
            for entry in error.errors:
                head, slash, tail = entry.get("pointer", "").removeprefix("/").partition("/")
                if head.isdigit() and int(head) < len(places):
                    entry["pointer"] = f"/{places[int(head)]}{slash}{tail}"
            raise

    def _post(
        self,
        url: str,
        body: bytes,
        read: Callable[[httpx.Response], T],
        key: str | None = None,
    ) -> T:
        headers = key_header(key) | current_header()
        return send(self.api, "POST", url, read=read, body=body, headers=headers)

    def _job_of(self, cls: type[BaseModel], room: str, job_room: str | None) -> JobName:
        if job_room is None:
            own = self._classes.get(str(job_name(cls, room)))
            job_room = room if own and is_same_class(own, cls) else GLOBAL_ROOM
        return job_name(cls, job_room)

    def map(
        self,
        job: Iterable[BaseModel] | Callable[..., Any],
        /,
        *values: Iterable[Any],
        room: str,
        job_room: str | None = None,
        timeout: float | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        progress: bool = False,
    ) -> Iterator[Any]:
        """Submit tasks by `submit_many`, and return an iterator over their results.

        `job` is an iterable of instances; or a function that `JobManager.job` decorates, which is
        submitted with the first of each of `values`, the second of each, and so on.

        All tasks are submitted before this returns; the iterator then waits. It yields the results
        in the order of the submits, or with ``ordered=False`` as the tasks end, each as
        `TaskHandle.result` returns it. `timeout` is in seconds from now, for all tasks together.
        With `progress` a bar counts the ends; it needs the extra ``progress``.

        A task without a result raises `TaskFailed` or `TaskCancelled` in its turn; the next call
        of `next` goes on with the task after it. With `return_exceptions` they are yielded.

        Raises
        ------
        TaskFailed, TaskCancelled
            From the iterator.
        TaskWaitTimeout
            From the iterator, if tasks have not ended in time. Its `task_ids` were not yielded;
            these tasks go on, and `as_completed` can wait for them again.
        ApiError, PartlySubmittedError
            As in `submit_many`.
        ImportError
            `progress` without tqdm; no task was submitted.
        TypeError, pydantic.ValidationError
            Values are not those of the function; no task was submitted.
        """
        deadline = waiting.Deadline(timeout)
        bar = load_bar() if progress else None
        classes: list[type[BaseModel]] = []

        def noted() -> Iterator[BaseModel]:
            for instance in instances_of(job, values):
                classes.append(type(instance))
                yield instance

        task_ids = self.submit_many(noted(), room=room, job_room=job_room)
        jobs = dict(zip(task_ids, classes, strict=True))
        ends = waiting.as_they_end(self.api, task_ids, deadline)
        if bar is not None:
            ends = count_ends(ends, len(task_ids), bar)
        if ordered:
            ends = waiting.in_order(ends, task_ids)

        def result(task: TaskInfo) -> Any:
            try:
                return result_of(task, jobs[task.id])
            except UnsuccessfulTask as error:
                if return_exceptions:
                    return error
                raise

        # No generator, because that would end when it raises the error of one task.
        return map(result, ends)

    def as_completed(
        self, task_ids: Iterable[str | UUID], timeout: float | None = None
    ) -> Iterator[TaskInfo]:
        """Iterate over tasks as they end, at most `timeout` seconds from now for all of them.

        Raises
        ------
        TaskWaitTimeout
            As in `map`.
        TaskNotFoundError
            A task does not exist, or the caller may not read it.
        RequestInvalidError
            An id is not a UUID.
        """
        unique = list(dict.fromkeys(map(str, task_ids)))
        return waiting.as_they_end(self.api, unique, waiting.Deadline(timeout))

    def wait(self, task_id: str | UUID, timeout: float | None = None) -> TaskInfo:
        """Wait until the task ends, at most `timeout` seconds, and return it.

        Raises as `as_completed` does.
        """
        (task,) = self.as_completed([task_id], timeout)
        return task
