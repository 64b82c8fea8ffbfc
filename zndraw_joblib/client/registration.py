"""The worker of a process on the server, and the jobs that the worker offers."""

from __future__ import annotations

import logging
import threading
from enum import Enum

import httpx
from pydantic import BaseModel

from zndraw_joblib.client.api import ApiManager, path, send
from zndraw_joblib.client.exceptions import ApiError, WorkerNotFoundError
from zndraw_joblib.client.retry import UNREPEATABLE, is_outage
from zndraw_joblib.client.schemas import read_nothing, read_registered, read_worker
from zndraw_joblib.names import JobName

logger = logging.getLogger(__name__)

#: Category of a class without the attribute `category`.
DEFAULT_CATEGORY = "modifiers"


def job_name(cls: type[BaseModel], room: str) -> JobName:
    """The full name of a class in a room: its `category` attribute and its own name."""
    category = getattr(cls, "category", DEFAULT_CATEGORY)
    return JobName(
        room, str(category.value if isinstance(category, Enum) else category), cls.__name__
    )


class Registration:
    """A worker and its jobs; any thread may use it.

    Attributes
    ----------
    worker_id : str or None
        Id of the worker; None before it is made and after it is deleted.
    heartbeat_interval : float
        Seconds between two heartbeats, from the server's answer to the worker's creation.
    classes : dict
        Class of each registered job, by the job's full name.
    """

    def __init__(self, api: ApiManager, classes: dict[str, type[BaseModel]]) -> None:
        self._api = api
        self.worker_id: str | None = None
        self.heartbeat_interval = float("inf")
        self.classes = classes
        # Held while the worker is made or replaced, because only one thread must do so.
        self._lock = threading.RLock()

    def create_worker(self) -> str:
        """Make a worker on the server and return its id."""
        with self._lock:
            # Not repeated if the answer is lost, because the worker of the first request would be
            # left behind and count against the limit of workers.
            created = send(self._api, "POST", path("workers"), read=read_worker, retry=UNREPEATABLE)
            self.heartbeat_interval = created.heartbeat_interval_seconds
            self.worker_id = created.id
            return created.id

    def ensure_worker(self) -> str:
        """Id of the worker; if there is none, a new one offers the registered classes."""
        with self._lock:
            if self.worker_id is None:
                self.replace_worker(None)
            assert self.worker_id is not None
            return self.worker_id

    def register(self, cls: type[BaseModel], room: str) -> None:
        """Offer a class as a job of a room.

        Raises
        ------
        ApiError
            As in `JobManager.register`.
        """
        name = job_name(cls, room)
        if cls.__module__ == "__mp_main__":
            # A process that multiprocessing has spawned imports the script again. It needs a worker
            # only if it serves, and its first claim then makes one.
            self.classes[str(name)] = cls
            return
        with self._lock:
            try:
                self._put_job(name, cls)
            except WorkerNotFoundError:
                self.replace_worker(self.worker_id)
                self._put_job(name, cls)
            self.classes[str(name)] = cls

    def _put_job(self, name: JobName, cls: type[BaseModel]) -> None:
        body = {
            "category": name.category,
            "name": name.name,
            "schema": cls.model_json_schema(),
            "worker_id": self.ensure_worker(),
        }
        send(self._api, "PUT", path("rooms", name.room_id, "jobs"), read=read_registered, body=body)

    def replace_worker(self, lost: str | None) -> None:
        """Make a new worker with the same jobs, after the server removed the worker `lost`."""
        with self._lock:
            if self.worker_id != lost:
                return  # Another thread has replaced it.
            if lost is not None:
                logger.warning("worker %s is gone; registering again", lost)
            self.create_worker()
            try:
                for name, cls in self.classes.items():
                    self._put_job(JobName.parse(name), cls)
            except (ApiError, httpx.TransportError) as error:
                if is_outage(error):
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
                logger.info("worker %s was gone already", worker_id)
