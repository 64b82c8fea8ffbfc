"""`Registrar`: offers classes and functions as jobs."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar, overload

from pydantic import BaseModel

from zndraw_joblib.client.functions import model_of
from zndraw_joblib.client.registration import JobOptions, Registration, Retries
from zndraw_joblib.names import GLOBAL_ROOM, JobName

J = TypeVar("J", bound=type[BaseModel])
F = TypeVar("F", bound=Callable[..., Any])


class Registrar:
    """Registers the jobs of a worker."""

    _registration: Registration

    @property
    def worker_id(self) -> str | None:
        """Id of the worker; None before the first registration or claim."""
        return self._registration.worker_id

    def create_worker(self) -> str:
        """Make a worker for this process and return its id."""
        return self._registration.create_worker()

    @overload
    def register(
        self,
        cls: J,
        *,
        room: str = GLOBAL_ROOM,
        retry: Retries = None,
        durable: bool | None = None,
    ) -> J: ...
    @overload
    def register(
        self, *, room: str = GLOBAL_ROOM, retry: Retries = None, durable: bool | None = None
    ) -> Callable[[J], J]: ...
    def register(
        self,
        cls: J | None = None,
        *,
        room: str = GLOBAL_ROOM,
        retry: Retries = None,
        durable: bool | None = None,
    ) -> J | Callable[[J], J]:
        """Offer a pydantic model class as a job, as a decorator or called.

        The category is the class's attribute `category`, by default ``"modifiers"``; the schema is
        its `model_json_schema`. A class that was edited and registered again, as in a notebook,
        takes the place of its earlier version, unless other workers offer that one.

        Parameters
        ----------
        cls
            The class.
        room
            The room of the job.
        retry
            How often failed and lost tasks are tried again: a number of retries, a `RetryPolicy` or
            a dict of its fields. None leaves it as it was.
        durable
            Whether the job stays when its last worker leaves, so that work can be submitted while
            no worker runs. None leaves it as it was.

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
            administrator), `SchemaConflictError`; `RequestInvalidError` for a policy that the
            server does not accept.
        """
        options = JobOptions.of(retry, durable)

        def offer(given: J) -> J:
            self._registration.register(given, room, options)
            return given

        return offer if cls is None else offer(cls)

    @overload
    def job(
        self,
        function: F,
        *,
        room: str = GLOBAL_ROOM,
        category: str | Enum | None = None,
        name: str | None = None,
        retry: Retries = None,
        durable: bool | None = None,
    ) -> F: ...
    @overload
    def job(
        self,
        *,
        room: str = GLOBAL_ROOM,
        category: str | Enum | None = None,
        name: str | None = None,
        retry: Retries = None,
        durable: bool | None = None,
    ) -> Callable[[F], F]: ...
    def job(
        self,
        function: F | None = None,
        *,
        room: str = GLOBAL_ROOM,
        category: str | Enum | None = None,
        name: str | None = None,
        retry: Retries = None,
        durable: bool | None = None,
    ) -> F | Callable[[F], F]:
        """Offer a function as a job, as a decorator or called; the function stays as it is.

        Its parameters become the schema, by their annotations and defaults, and its value is the
        result. A parameter that is named ``task``, or annotated with `ClaimedTask`, gets the task.

        Parameters
        ----------
        function
            A function or coroutine function.
        category
            Category of the job, by default ``"modifiers"``.
        name
            Name of the job, by default the function's.
        room, retry, durable
            As in `register`.

        Raises
        ------
        TypeError
            It is no function or a generator function, has parameters without a name (``*args``,
            ``**kwargs``, positional-only), or annotations without a JSON Schema.
        ValueError, ApiError
            As in `register`.
        """
        options = JobOptions.of(retry, durable)

        def offer(given: F) -> F:
            model = model_of(given, category=category, name=name)
            self._registration.register(model, room, options)
            return given

        return offer if function is None else offer(function)

    def unregister(self, job: type[BaseModel] | Callable[..., Any] | str) -> None:
        """Offer a job no more, by its full name or, in all rooms, by its class or function.

        Tasks of the job that this worker holds are finished. Pending ones wait for another worker
        or for the next registration.

        Raises
        ------
        KeyError
            This worker does not offer the job.
        ApiError
            The server refused the request.
        """
        if not isinstance(job, str | type):
            job = model_of(job)
        self._registration.unregister(job)

    def retire_job(self, full_name: str) -> None:
        """Retire a job of a room, also one that other workers offer.

        Nobody can submit to it then. Tasks that workers hold are finished; pending ones wait until
        the job is registered again.

        Raises
        ------
        ValueError
            The text is not the full name of a job.
        JobNotFoundError
            There is no such job, or it is retired already.
        ForbiddenError
            The caller may not register jobs in its room.
        """
        self._registration.retire(JobName.parse(full_name))

    def disconnect(self) -> None:
        """Delete the worker.

        Its claimed tasks are pending again. Its running tasks are, too, while retries are left,
        else failed.
        """
        self._registration.delete_worker()
