"""Checks for django-health-check: database, channel layer, sweeper, unclaimed tasks.

A site names those that it wants in the `checks` of a `health_check.views.HealthCheckView`. Their
limits are the settings `health_max_...`. It needs the extra ``health``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from datetime import timedelta
from math import inf
from typing import Any

from channels.layers import get_channel_layer
from django.db import DatabaseError, InterfaceError, router
from health_check.base import HealthCheck
from health_check.exceptions import ServiceUnavailable as Unavailable, ServiceWarning

from zndraw_joblib.models import Task
from zndraw_joblib.services import observation
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage.connections import release_connections
from zndraw_joblib.storage.outages import Outage, outage_of
from zndraw_joblib.tenancy import all_tenants, in_tenant

#: Type of the message that the check of the layer sends to itself.
PROBE = "joblib.probe"


class DatabaseReading(HealthCheck):  # type: ignore[misc]
    """A check that reads the rows of each tenant, in a thread without middleware."""

    def run(self) -> None:
        """Read; an outage of the database is unavailable.

        Raises
        ------
        Unavailable, ServiceWarning
            The check is not good.
        """
        try:
            for tenant in all_tenants():
                with in_tenant(tenant):
                    self.look()
        except (DatabaseError, InterfaceError) as error:
            # Without the text of the error, which may name hosts and users.
            if outage_of(error) is Outage.UNMIGRATED:
                raise Unavailable("the database lacks tables: run migrate") from error
            raise Unavailable("the database cannot be read") from error
        finally:
            release_connections()

    def look(self) -> None:
        """Raise if the rows of the present tenant are not good."""
        raise NotImplementedError


@dataclasses.dataclass
class DatabaseCheck(DatabaseReading):
    """The job server's tables can be read within `health_max_database_seconds`."""

    def look(self) -> None:
        """Read the table of tasks."""
        began = time.monotonic()
        Task.objects.using(router.db_for_write(Task)).order_by("-pk").values("pk").first()
        _warn_beyond(
            "health_max_database_seconds", time.monotonic() - began, "a read of the database took"
        )


@dataclasses.dataclass
class LayerCheck(HealthCheck):  # type: ignore[misc]
    """A message goes through the channel layer within `health_max_layer_seconds`."""

    @property
    def timeout(self) -> timedelta:
        """The longest time that django-health-check lets the check take."""
        return timedelta(seconds=get_settings().health_max_layer_seconds)

    async def run(self) -> None:
        """Send a message to a channel of its own, and receive it.

        Raises
        ------
        Unavailable
            The message did not arrive.
        """
        layer: Any = get_channel_layer()
        if layer is None:
            raise Unavailable("the site has no channel layer")
        limit = self.timeout.total_seconds()
        try:
            async with asyncio.timeout(limit):
                channel = await layer.new_channel()
                try:
                    await layer.send(channel, {"type": PROBE})
                    await layer.receive(channel)
                finally:
                    await _forget(layer, channel)
        except TimeoutError as error:
            raise Unavailable(f"a message did not arrive within {limit:g} s") from error
        except Exception as error:
            raise Unavailable(f"the channel layer failed: {type(error).__name__}") from error


async def _forget(layer: Any, channel: str) -> None:
    """Let the layer forget a channel, which it does when a `receive` is cancelled."""
    receiving = asyncio.ensure_future(layer.receive(channel))
    # One turn of the loop, because a task that has not begun does not notice its cancel.
    await asyncio.sleep(0)
    receiving.cancel()
    await asyncio.wait([receiving])


@dataclasses.dataclass
class SweeperCheck(DatabaseReading):
    """A sweeper runs: its last pass, and the oldest lease that is over, are not too old.

    The limit is `health_max_sweep_age_seconds`.
    """

    def look(self) -> None:
        """Compare the ages with the limit."""
        name = "health_max_sweep_age_seconds"
        age = observation.seconds_since_sweep()
        if age == inf:
            raise Unavailable("no sweeper has ever run: start manage.py run_sweeper")
        _refuse_beyond(name, age, "no sweeper has run for")
        overdue = observation.held().overdue_seconds
        _refuse_beyond(name, overdue, "a task of a lost worker has not been recovered for")


@dataclasses.dataclass
class UnclaimedCheck(DatabaseReading):
    """No due task waits for a worker for longer than `health_max_unclaimed_seconds`."""

    def look(self) -> None:
        """Compare the age of the oldest unclaimed task with the limit."""
        for queue in observation.queues():
            age = queue.oldest_seconds
            _warn_beyond("health_max_unclaimed_seconds", age, "no worker has claimed a task for")


def _refuse_beyond(setting: str, seconds: float, text: str) -> None:
    if seconds > getattr(get_settings(), setting):
        raise Unavailable(_message(setting, seconds, text))


def _warn_beyond(setting: str, seconds: float, text: str) -> None:
    if seconds > getattr(get_settings(), setting):
        raise ServiceWarning(_message(setting, seconds, text))


def _message(setting: str, seconds: float, text: str) -> str:
    took = f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.2g}"
    return f"{text} {took} s, longer than {setting} ({getattr(get_settings(), setting):g} s)"
