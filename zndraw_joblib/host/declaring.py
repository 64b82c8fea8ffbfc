"""Declares jobs of the site's own code, which need no worker to be submitted to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from django.apps import apps
from django.db import DatabaseError, InterfaceError, router
from django.db.models.signals import post_migrate
from pydantic import BaseModel

from zndraw_joblib.access import HostCaller
from zndraw_joblib.api.bodies import RetryBody
from zndraw_joblib.api.parsing import invalid
from zndraw_joblib.host.values import schema_from
from zndraw_joblib.lifecycle import RetryPolicy
from zndraw_joblib.models import Job
from zndraw_joblib.names import JobName, nfc
from zndraw_joblib.services.register import check_declaration, declare
from zndraw_joblib.storage.outages import Outage, outage_of
from zndraw_joblib.text import Message

logger = logging.getLogger(__name__)

#: Declarations made while Django was starting, by the job's full name.
_after_migrate: dict[str, Callable[[], Job]] = {}


def declare_job(
    full_name: str,
    schema: Mapping[str, Any] | type[BaseModel],
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
        JSON Schema of the payloads, or a pydantic class.
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
        The class has no JSON Schema, or its payloads are not JSON objects.
    """
    caller = HostCaller()
    name = _name_of(full_name)
    policy = None if retry is None else _policy_of(retry)
    accepted = schema_from(schema)
    check_declaration(caller, name, accepted)
    carry_out = partial(declare, caller, name, accepted, retry=policy, durable=durable)
    if apps.ready:
        return carry_out()
    post_migrate.connect(
        declare_after_migrate,
        sender=apps.get_app_config("zndraw_joblib"),
        dispatch_uid="zndraw_joblib.declare_jobs",
    )
    _after_migrate[str(name)] = carry_out
    job = Job(
        room_id=name.room_id,
        category=name.category,
        name=name.name,
        schema=accepted,
        durable=durable,
    )
    if policy is not None:
        job.set_retry(policy)
    return job


def declare_after_migrate(*, using: str, **_: Any) -> None:
    """Receiver of `post_migrate`: carries out the declarations made while Django was starting."""
    if using != router.db_for_write(Job):
        return
    for full_name, carry_out in _after_migrate.items():
        try:
            carry_out()
        except (DatabaseError, InterfaceError) as error:
            # The app's migrations were undone, or not all of them carried out.
            if outage_of(error) is not Outage.UNMIGRATED:
                raise
            logger.info("%s is not declared, because its table is not migrated", full_name)


def _policy_of(retry: RetryPolicy | Mapping[str, Any] | int) -> RetryPolicy:
    if isinstance(retry, RetryPolicy):
        retry = asdict(retry)
    fields = dict(retry) if isinstance(retry, Mapping) else {"max_retries": retry}
    return RetryBody.read(fields).policy()


def _name_of(full_name: str) -> JobName:
    parts = nfc(full_name).split(":")
    if len(parts) != 3:
        raise invalid(Message("a job's full name has three parts, room:category:Name"))
    return JobName(*parts)
