"""The worker of a process on the server, and the jobs that the worker offers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import asdict
from enum import Enum
from typing import Any, NamedTuple

import httpx
from pydantic import BaseModel

from zndraw_joblib.client.api import ApiManager, path, send
from zndraw_joblib.client.calls import check_run
from zndraw_joblib.client.exceptions import (
    ApiError,
    JobNotFoundError,
    NotAuthenticatedError,
    SchemaConflictError,
    WorkerNotFoundError,
)
from zndraw_joblib.client.payloads import schema_of
from zndraw_joblib.client.result_json import MAX_RESULT_BYTES
from zndraw_joblib.client.retry import UNREPEATABLE, OutageLog, is_outage
from zndraw_joblib.client.schemas import (
    DEFAULT_LEASE,
    read_nothing,
    read_registered,
    read_worker,
)
from zndraw_joblib.lifecycle import RetryPolicy
from zndraw_joblib.names import JobName, nfc

logger = logging.getLogger(__name__)

#: How failed tasks of a job are tried again: a number of retries, or a whole policy.
Retries = int | RetryPolicy | Mapping[str, Any] | None

#: Category of a class without the attribute `category`.
DEFAULT_CATEGORY = "modifiers"


def job_name(cls: type[BaseModel], room: str) -> JobName:
    """The full name of a class in a room: its `category` attribute and its own name."""
    category = getattr(cls, "category", DEFAULT_CATEGORY)
    return JobName(
        room, str(category.value if isinstance(category, Enum) else category), cls.__name__
    )


class JobOptions(NamedTuple):
    """Options of a registration besides the schema; None leaves the server's value."""

    retry: dict[str, Any] | None = None
    durable: bool | None = None

    @classmethod
    def of(cls, retry: Retries, durable: bool | None) -> JobOptions:
        """The options in the form in which they are sent.

        Raises
        ------
        TypeError
            `retry` is no number of retries, no policy and no dict.
        """
        if isinstance(retry, RetryPolicy):
            return cls(asdict(retry), durable)
        if isinstance(retry, bool) or not isinstance(retry, int | Mapping | None):
            raise TypeError(
                f"retry must be a number of retries, a RetryPolicy or a dict, not {retry!r}"
            )
        if isinstance(retry, int):
            return cls({"max_retries": retry}, durable)
        return cls(None if retry is None else dict(retry), durable)

    def updated(self, other: JobOptions) -> JobOptions:
        """These options with those of a later registration, where it gives any."""
        return JobOptions(
            self.retry if other.retry is None else other.retry,
            self.durable if other.durable is None else other.durable,
        )

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of a registration."""
        return {key: value for key, value in self._asdict().items() if value is not None}


def is_same_class(one: type, other: type) -> bool:
    """Whether two classes are one in the source, though it may have run twice, as in a notebook."""
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


class Registration:
    """A worker and its jobs; any thread may use it.

    Attributes
    ----------
    worker_id : str or None
        Id of the worker; None before it is made and after it is deleted.
    heartbeat_interval : float
        Seconds between two heartbeats, from the server's answer to the worker's creation.
    lease : float
        Seconds after which the server takes the tasks of a worker without heartbeats, likewise.
    max_result_bytes : int
        Most bytes of a result, likewise.
    classes : dict
        Class of each registered job, by the job's full name.
    known : dict
        `classes`, and those of withdrawn jobs, because a worker keeps their tasks.
    options : dict
        `JobOptions` of each job, by its full name, for the registration of another worker.
    """

    def __init__(
        self,
        api: ApiManager,
        classes: dict[str, type[BaseModel]],
        options: dict[str, JobOptions],
    ) -> None:
        self._api = api
        self.worker_id: str | None = None
        self.heartbeat_interval = float("inf")
        self.lease = DEFAULT_LEASE
        self.max_result_bytes = MAX_RESULT_BYTES
        self.classes = classes
        self.options = options
        self.known = dict(classes)
        # Held while the worker is made or replaced, because only one thread must do so.
        self._lock = threading.RLock()

    def create_worker(self) -> str:
        """Make a worker on the server and return its id."""
        with self._lock:
            # Not repeated if the answer is lost, because the worker of the first request would be
            # left behind and count against the limit of workers.
            created = send(self._api, "POST", path("workers"), read=read_worker, retry=UNREPEATABLE)
            self.heartbeat_interval = created.heartbeat_interval_seconds
            self.lease = created.worker_timeout_seconds
            self.max_result_bytes = created.max_result_bytes
            self.worker_id = created.id
            return created.id

    def ensure_worker(self) -> str:
        """Id of the worker; if there is none, a new one offers the registered classes."""
        with self._lock:
            if self.worker_id is None:
                self.replace_worker(None)
            assert self.worker_id is not None
            return self.worker_id

    def register(self, cls: type[BaseModel], room: str, options: JobOptions | None = None) -> None:
        """Offer a class as a job of a room.

        Raises
        ------
        TypeError, ValueError, ApiError
            As in `JobManager.register`.
        """
        # The schema first, because only the class of a model has a name and a method to look at.
        schema_of(cls)
        check_run(cls)
        name = job_name(cls, room)
        given = self.options.get(str(name), JobOptions()).updated(options or JobOptions())
        if cls.__module__ == "__mp_main__":
            # A process that multiprocessing has spawned imports the script again. It needs a worker
            # only if it serves, and its first claim then makes one.
            self.classes[str(name)] = self.known[str(name)] = cls
            self.options[str(name)] = given
            return
        with self._lock:
            other = self.classes.get(str(name), cls)
            if not is_same_class(other, cls):
                raise ValueError(
                    f"{name} is the job of {other.__module__}.{other.__qualname__} already; rename "
                    f"{cls.__module__}.{cls.__qualname__}, or give it another category or room"
                )
            # Known beforehand, because a task may be granted before the answer arrives.
            is_new = self.known.setdefault(str(name), cls) is cls
            earlier, self.options[str(name)] = self.options.get(str(name), JobOptions()), given
            try:
                try:
                    self._offer(name, cls)
                except WorkerNotFoundError:
                    self.replace_worker(self.worker_id)
                    self._offer(name, cls)
            except BaseException:
                self.options[str(name)] = earlier
                if is_new and str(name) not in self.classes:
                    del self.known[str(name)]
                raise
            self.classes[str(name)] = self.known[str(name)] = cls

    def _offer(self, name: JobName, cls: type[BaseModel]) -> None:
        """Offer a class; an edited class takes the place of its earlier version."""
        try:
            self._put_job(name, cls)
        except SchemaConflictError:
            earlier = self.classes.get(str(name))
            if earlier is None or not is_same_class(earlier, cls):
                raise
            self._withdraw(str(name))
            self.known[str(name)] = cls
            try:
                self._put_job(name, cls)
            except SchemaConflictError:
                # Another worker offers the earlier schema, so this worker goes on offering it too.
                self._put_job(name, earlier)
                self.classes[str(name)] = self.known[str(name)] = earlier
                raise

    def unregister(self, job: type[BaseModel] | str) -> None:
        """Withdraw a job by its full name, or a class from all rooms.

        Raises
        ------
        KeyError
            This worker does not offer the job.
        ApiError
            The server refused the request.
        """
        with self._lock:
            if isinstance(job, str):
                names = [nfc(job)] if nfc(job) in self.classes else []
            else:
                names = [name for name, cls in self.classes.items() if is_same_class(cls, job)]
            if not names:
                raise KeyError(job)
            for name in names:
                self._withdraw(name)

    def _withdraw(self, name: str) -> None:
        if self.worker_id is not None:
            try:
                url = path("workers", self.worker_id, "jobs", name)
                send(self._api, "DELETE", url, read=read_nothing)
            except (JobNotFoundError, WorkerNotFoundError):
                logger.info(
                    "%s was not offered by worker %s any more",
                    name,
                    self.worker_id,
                    extra={"job": name, "worker_id": self.worker_id},
                )
        self.classes.pop(name, None)

    def retire(self, name: JobName) -> None:
        """Retire a job on the server, and offer it no more; raises as `JobManager.retire_job`."""
        url = path("rooms", name.room_id, "jobs", str(name))
        outage = OutageLog(f"retire {name}")
        with self._lock:
            try:
                send(self._api, "DELETE", url, read=read_nothing, outage=outage)
            except JobNotFoundError:
                # After a failure the job may be gone because of the request whose answer was lost.
                if not outage.is_open:
                    raise
            # Else a worker that takes the place of this one would register the job again.
            self.classes.pop(str(name), None)

    def _put_job(self, name: JobName, cls: type[BaseModel]) -> None:
        body = {
            "category": name.category,
            "name": name.name,
            "schema": schema_of(cls),
            "worker_id": self.ensure_worker(),
            **self.options.get(str(name), JobOptions()).fields,
        }
        send(self._api, "PUT", path("rooms", name.room_id, "jobs"), read=read_registered, body=body)

    def replace_worker(self, lost: str | None) -> None:
        """Make a new worker with the same jobs, after the server removed the worker `lost`."""
        with self._lock:
            if self.worker_id != lost:
                return  # Another thread has replaced it.
            if lost is not None:
                logger.warning(
                    "worker %s is gone; registering again", lost, extra={"worker_id": lost}
                )
            self.create_worker()
            try:
                for name, cls in self.classes.items():
                    self._put_job(JobName.parse(name), cls)
            except (ApiError, httpx.TransportError) as error:
                if is_outage(error) or isinstance(error, NotAuthenticatedError):
                    # Keeps the old id, because the new worker lacks jobs and its claims would not
                    # fail. The next request with the old id fails, and registers all jobs again.
                    self.worker_id = lost
                raise

    def delete_worker(self) -> None:
        """Delete the worker on the server, if there is one."""
        with self._lock:
            worker_id, self.worker_id = self.worker_id, None
            if worker_id is None:
                return
            try:
                send(self._api, "DELETE", path("workers", worker_id), read=read_nothing)
            except WorkerNotFoundError:
                logger.info("worker %s was gone already", worker_id, extra={"worker_id": worker_id})
