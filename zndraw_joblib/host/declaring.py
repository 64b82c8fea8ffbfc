"""Declares jobs of the site's own code, which need no worker to be submitted to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from zndraw_joblib.lifecycle import RetryPolicy

if TYPE_CHECKING:
    from zndraw_joblib.models import Job


def declare_job(
    full_name: str,
    schema: Mapping[str, Any] | type[BaseModel] | Callable[..., Any],
    *,
    retry: RetryPolicy | Mapping[str, Any] | int | None = None,
    durable: bool = True,
) -> Job:
    """Create a job, or give an existing one this schema; tasks can be submitted without a worker.

    It may be repeated at each start. In `AppConfig.ready`, where Django discourages queries, it
    checks the arguments, carries the declaration out after each `migrate`, and returns a job that
    is not saved.

    Parameters
    ----------
    full_name
        ``room:category:Name``.
    schema
        JSON Schema of the payloads, a pydantic class, or a function as for `JobManager.job`.
    retry
        Retries of the job's tasks: a policy, its fields, or the number of retries; None leaves them
        as they are.
    durable
        Whether the job stays when its last worker leaves. Without, a sweep retires a job that has
        neither workers nor unfinished tasks.

    Raises
    ------
    InvalidRoomId, InvalidCategory, ValidationError
        The name, the schema or `retry` is not accepted.
    SchemaConflict
        A live worker offers the job with a schema that means something else.
    TypeError
        The class or function has no JSON Schema, or the payloads are not JSON objects.
    """
    # Imported here, because the site's `apps.py` imports this function before there are models.
    from zndraw_joblib.host.declarations import declare_in_time  # noqa: PLC0415

    return declare_in_time(full_name, schema, retry, durable)
