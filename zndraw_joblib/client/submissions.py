"""The parts of a submit: its address, its body and its key."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import uuid4

from pydantic import BaseModel

from zndraw_joblib.client.api import path
from zndraw_joblib.client.batches import encode
from zndraw_joblib.client.functions import model_of
from zndraw_joblib.client.payloads import payload_json
from zndraw_joblib.names import JobName


def tasks_url(job: JobName, room: str) -> str:
    """The address at which tasks of a job are submitted in a room."""
    return path("rooms", room, "tasks", str(job))


def entry_json(instance: BaseModel, options: Mapping[str, Any] | None = None) -> bytes:
    """The body of a submit: the payload, and the options as they are."""
    rest = b"," + encode(options)[1:] if options else b"}"
    return b'{"payload":' + payload_json(instance) + rest


def options_json(
    retries: int | None,
    delay: float | None,
    run_at: datetime | None,
    timeout_seconds: float | None,
) -> dict[str, Any]:
    """The options of a submit that are given, as JSON.

    Raises
    ------
    ValueError
        `delay` and `run_at` are both given, or `run_at` has no time zone.
    """
    if delay is not None and run_at is not None:
        raise ValueError("give either delay or run_at")
    if run_at is not None and run_at.utcoffset() is None:
        raise ValueError("run_at needs a time zone: datetime.now().astimezone()")
    options = {
        "retries": retries,
        "delay": delay,
        "run_at": run_at and run_at.isoformat(),
        "timeout_seconds": timeout_seconds,
    }
    return {name: value for name, value in options.items() if value is not None}


def instance_of(
    job: BaseModel | Callable[..., Any],
    values: Sequence[Any],
    arguments: Mapping[str, Any],
    options: Collection[str],
) -> BaseModel:
    """The instance to submit; for a function, of the class of its arguments.

    `options` are the names of the options of the submit that are given by name.

    Raises
    ------
    TypeError
        The arguments are not those of the function, or an option may be meant as one of them.
    pydantic.ValidationError
        The arguments are not valid.
    """
    if isinstance(job, BaseModel):
        if values or arguments:
            raise TypeError("an instance has its arguments already")
        return job
    if isinstance(job, type):
        raise TypeError(f"send an instance of {job.__name__}, not the class")
    cls = model_of(job)
    # A field that would hide an attribute of the model has the argument's name as its alias.
    names = [field.alias or name for name, field in cls.model_fields.items()]
    if len(values) > len(names):
        raise TypeError(f"{cls.__name__} takes {len(names)} arguments, not {len(values)}")
    by_position = dict(zip(names, values, strict=False))
    if unclear := set(options) & set(names[len(values) :]):
        # An option that was meant for the function would else be lost without a word.
        raise TypeError(
            f"{cls.__name__} has an argument named {', '.join(sorted(unclear))}, like an option of "
            "send; give the argument by its position"
        )
    if unknown := arguments.keys() - set(names[len(values) :]):
        raise TypeError(f"{cls.__name__} does not take {', '.join(sorted(unknown))}, or has it")
    return cls(**by_position, **arguments)


def instances_of(
    job: Iterable[BaseModel] | Callable[..., Any], values: Sequence[Iterable[Any]]
) -> Iterable[BaseModel]:
    """The instances to submit; for a function, of the values that stand at the same place.

    Raises
    ------
    TypeError
        Values are given beside instances, or no values for a function.
    """
    if callable(job):
        if not values:
            raise TypeError("a function needs an iterable of values for each of its arguments")
        return (instance_of(job, arguments, {}, ()) for arguments in zip(*values, strict=False))
    if values:
        raise TypeError("instances have their arguments already")
    return job


def key_header(key: str | None) -> dict[str, str]:
    """The header ``Idempotency-Key`` (a string of RFC 9651, section 3.3.3); None makes a key.

    Raises
    ------
    ValueError
        The key is empty, or is not printable ASCII.
    """
    if key is None:
        key = str(uuid4())
    if not key or not (key.isascii() and key.isprintable()):
        raise ValueError("idempotency_key must be printable ASCII, and not empty")
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    return {"Idempotency-Key": f'"{escaped}"'}
