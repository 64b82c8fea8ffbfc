"""`Submitter`: submits tasks and waits for their ends."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar
from uuid import uuid4

import httpx
from pydantic import BaseModel

from zndraw_joblib.client import waiting
from zndraw_joblib.client.api import ApiManager, path, send
from zndraw_joblib.client.batches import array, batch_slices
from zndraw_joblib.client.exceptions import ApiError, PartlySubmittedError
from zndraw_joblib.client.payloads import payload_json
from zndraw_joblib.client.registration import is_same_class, job_name
from zndraw_joblib.client.schemas import (
    SubmittedTask,
    TaskInfo,
    read_list,
    read_submitted,
    read_submitted_list,
    read_task,
)
from zndraw_joblib.names import GLOBAL_ROOM

T = TypeVar("T")


class Submitter:
    """Submits tasks and waits for them.

    `classes` are the registered classes by the full names of their jobs.
    """

    def __init__(
        self, api: ApiManager, batch_size: int, classes: Mapping[str, type[BaseModel]]
    ) -> None:
        self.api = api
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
        url = self._tasks_of(type(instance), room, job_room)
        return self._post(url, _entry(instance), read_submitted).id

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
            url = self._tasks_of(type(instance), room, job_room)
            groups[url].append((number - 1, _entry(instance)))
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

    def _post(self, url: str, body: bytes, read: Callable[[httpx.Response], T]) -> T:
        key = {"Idempotency-Key": f'"{uuid4()}"'}
        return send(self.api, "POST", url, read=read, body=body, headers=key)

    def _tasks_of(self, cls: type[BaseModel], room: str, job_room: str | None) -> str:
        if job_room is None:
            own = self._classes.get(str(job_name(cls, room)))
            job_room = room if own and is_same_class(own, cls) else GLOBAL_ROOM
        return path("rooms", room, "tasks", str(job_name(cls, job_room)))

    def map(
        self,
        instances: Iterable[BaseModel],
        *,
        room: str,
        job_room: str | None = None,
        timeout: float | None = None,
        ordered: bool = True,
    ) -> Iterator[TaskInfo]:
        """Submit tasks by `submit_many`, and return an iterator over the ended tasks.

        All tasks are submitted before this returns; the iterator then waits. It yields the tasks in
        the order of the instances, or with ``ordered=False`` as they end. Failed and cancelled
        tasks are yielded like completed ones; see `status`. `timeout` is in seconds from now, for
        all tasks together.

        Raises
        ------
        TaskWaitTimeout
            From the iterator, if tasks have not ended in time. Its `task_ids` were not yielded;
            these tasks go on, and `as_completed` can wait for them again.
        ApiError, PartlySubmittedError
            As in `submit_many`.
        """
        deadline = waiting.Deadline(timeout)
        task_ids = self.submit_many(instances, room=room, job_room=job_room)
        ends = waiting.in_order if ordered else waiting.as_they_end
        return ends(self.api, task_ids, deadline)

    def as_completed(
        self, task_ids: Iterable[str], timeout: float | None = None
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
        unique = list(dict.fromkeys(task_ids))
        return waiting.as_they_end(self.api, unique, waiting.Deadline(timeout))

    def task(self, task_id: str) -> TaskInfo:
        """The task as it is now.

        Raises
        ------
        TaskNotFoundError
            The task does not exist, or the caller may not read it.
        """
        return send(self.api, "GET", path("tasks", task_id), read=read_task)

    def wait(self, task_id: str, timeout: float | None = None) -> TaskInfo:
        """Wait until the task ends, at most `timeout` seconds, and return it.

        Raises as `as_completed` does.
        """
        (task,) = self.as_completed([task_id], timeout)
        return task


def _entry(instance: BaseModel) -> bytes:
    return b'{"payload":' + payload_json(instance) + b"}"
