"""Carries out declarations of jobs, at once or after `migrate`."""

from __future__ import annotations

import inspect
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
from zndraw_joblib.api.job_bodies import RetryBody
from zndraw_joblib.api.parsing import invalid
from zndraw_joblib.client.functions import model_of
from zndraw_joblib.exceptions import SchemaConflict
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
#: The classes that jobs were declared with in this process, by their qualified names, because a
#: class whose source runs again takes the place of its earlier version.
declared_classes: dict[tuple[str, str], type[BaseModel]] = {}


def declare_in_time(
    full_name: str,
    schema: Mapping[str, Any] | type[BaseModel] | Callable[..., Any],
    retry: RetryPolicy | Mapping[str, Any] | int | None,
    durable: bool,
) -> Job:
    """Carry a declaration out now, or after `migrate` while Django is starting."""
    caller = HostCaller()
    name = _name_of(full_name)
    policy = None if retry is None else _policy_of(retry)
    if inspect.isfunction(schema):
        schema = model_of(schema)
    accepted = schema_from(schema)
    check_declaration(caller, name, accepted)
    if isinstance(schema, type):
        declared_classes[schema.__module__, schema.__qualname__] = schema
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
        except SchemaConflict as conflict:
            # Not raised, because a deployment migrates while workers of the earlier version run.
            logger.warning("%s is not declared: %s", full_name, conflict, extra={"job": full_name})
        except (DatabaseError, InterfaceError) as error:
            # The app's migrations were undone, or not all of them carried out.
            if outage_of(error) is not Outage.UNMIGRATED:
                raise
            logger.info(
                "%s is not declared, because its table is not migrated",
                full_name,
                extra={"job": full_name},
            )


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
