"""Checks for django-health-check."""

from __future__ import annotations

import json
from contextlib import nullcontext
from datetime import timedelta
from math import inf

import pytest
from asgiref.sync import async_to_sync
from channels.layers import InMemoryChannelLayer, get_channel_layer
from django.core.management import call_command
from django.db import OperationalError, ProgrammingError
from django.db.models import F
from django.test import AsyncRequestFactory, RequestFactory
from health_check.views import HealthCheckView

from tests.runs import PAST, start, submit
from zndraw_joblib.contrib import health
from zndraw_joblib.models import Task
from zndraw_joblib.services import observation
from zndraw_joblib.services.sweep import sweep
from zndraw_joblib.storage.outages import Outage

pytestmark = pytest.mark.django_db(transaction=True)

CHECKS = ["DatabaseCheck", "LayerCheck", "SweeperCheck", "UnclaimedCheck"]


@pytest.fixture(autouse=True)
def swept(db):
    """A sweeper has run."""
    call_command("run_sweeper", once=True)


def view(*names):
    checks = [f"zndraw_joblib.contrib.health.{name}" for name in names or CHECKS]
    return HealthCheckView.as_view(checks=checks)


def look(*names):
    """The status of the view, and what it says about each check that is not good."""
    response = async_to_sync(view(*names))(RequestFactory().get("/?format=json"))
    told = json.loads(response.content)
    return response.status_code, {
        name.rpartition(".")[2].partition("(")[0]: text
        for name, text in told.items()
        if text != "OK"
    }


def test_all_is_good_on_an_empty_server():
    assert look() == (200, {})


async def test_the_checks_run_under_asgi_too():
    response = await view()(AsyncRequestFactory().get("/?format=json"))
    assert response.status_code == 200, response.content


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OperationalError("host secret is away"), "cannot be read"),
        (ProgrammingError('relation "x" does not exist'), "cannot be read"),
    ],
)
def test_a_database_that_is_away_is_unavailable_and_tells_no_secret(monkeypatch, error, text):
    def fail(*args):
        raise error

    monkeypatch.setattr(health.DatabaseCheck, "look", fail)
    status, found = look("DatabaseCheck")
    assert status == 500
    assert text in found["DatabaseCheck"]
    assert "secret" not in found["DatabaseCheck"]


def test_a_database_without_tables_names_the_remedy(monkeypatch):
    def fail(*args):
        raise OperationalError("no such table: zndraw_joblib_task") from None

    monkeypatch.setattr(health, "outage_of", lambda error: Outage.UNMIGRATED)
    monkeypatch.setattr(health.DatabaseCheck, "look", fail)
    assert "run migrate" in look("DatabaseCheck")[1]["DatabaseCheck"]


def test_a_slow_database_is_a_warning(settings_of):
    settings_of(health_max_database_seconds=1e-9)
    status, found = look("DatabaseCheck")
    assert status == 500
    assert found["DatabaseCheck"].startswith("Warning: a read of the database took")
    assert "health_max_database_seconds" in found["DatabaseCheck"]


def test_the_check_of_the_layer_leaves_no_channel():
    layer = get_channel_layer()
    before = dict(layer.channels) if isinstance(layer, InMemoryChannelLayer) else {}
    for _ in range(3):
        assert look("LayerCheck") == (200, {})
    if isinstance(layer, InMemoryChannelLayer):
        assert layer.channels == before


async def test_a_channel_of_the_shared_layer_is_unsubscribed():
    layer = get_channel_layer()
    for _ in range(3):
        await health.LayerCheck().run()
    if not isinstance(layer, InMemoryChannelLayer):
        assert layer._get_layer().channels == {}


def test_a_layer_that_loses_messages_or_fails_is_unavailable(monkeypatch, settings_of):
    settings_of(health_max_layer_seconds=0.05)

    class Lossy(InMemoryChannelLayer):  # type: ignore[misc]
        async def send(self, channel, message):
            pass

    class Broken(InMemoryChannelLayer):  # type: ignore[misc]
        async def send(self, channel, message):
            raise OSError("redis://:secret@host")

    for layer, text in ((Lossy(), "did not arrive within 0.05 s"), (Broken(), "failed: OSError")):
        monkeypatch.setattr(health, "get_channel_layer", lambda layer=layer: layer)
        status, found = look("LayerCheck")
        assert status == 500
        assert text in found["LayerCheck"]
        assert layer.channels == {}
    monkeypatch.setattr(health, "get_channel_layer", lambda: None)
    assert "no channel layer" in look("LayerCheck")[1]["LayerCheck"]


def test_a_lease_that_no_sweeper_recovers_is_noticed(bob, settings_of):
    bob.register()
    start(bob, submit(bob))
    assert look("SweeperCheck") == (200, {})
    Task.objects.update(lease_expires_at=PAST)
    status, found = look("SweeperCheck")
    assert status == 500
    assert (
        "Unavailable: a task of a lost worker has not been recovered for" in found["SweeperCheck"]
    )
    sweep()
    assert look("SweeperCheck") == (200, {})


@pytest.mark.parametrize(("age", "status"), [(119, 200), (121, 500), (inf, 500)])
def test_the_age_of_the_last_sweep_has_a_limit(monkeypatch, age, status):
    monkeypatch.setattr(observation, "seconds_since_sweep", lambda: age)
    assert look("SweeperCheck")[0] == status


def test_a_task_that_nobody_claims_is_a_warning(bob, settings_of):
    bob.register()
    submit(bob)
    submit(bob, delay=10_000)
    assert look("UnclaimedCheck") == (200, {})
    Task.objects.update(created_at=F("created_at") - timedelta(hours=2))
    status, found = look("UnclaimedCheck")
    assert status == 500
    assert "no worker has claimed a task for 7200 s" in found["UnclaimedCheck"]
    settings_of(health_max_unclaimed_seconds=10_000)
    assert look("UnclaimedCheck") == (200, {})


def test_each_tenant_is_looked_at(monkeypatch):
    seen = []
    monkeypatch.setattr(health, "all_tenants", lambda: ["one", "two"])

    def in_tenant(tenant):
        seen.append(tenant)
        return nullcontext()

    monkeypatch.setattr(health, "in_tenant", in_tenant)
    assert look("UnclaimedCheck") == (200, {})
    assert seen == ["one", "two"]
