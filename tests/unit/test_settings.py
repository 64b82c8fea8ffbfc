from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db.utils import ConnectionHandler
from django.test import override_settings
from rest_framework.permissions import AllowAny
from rest_framework.throttling import BaseThrottle

from zndraw_joblib import checks
from zndraw_joblib.settings import JobLibSettings, get_settings


def test_defaults():
    settings = JobLibSettings()
    assert settings.allowed_categories == ["modifiers", "selections", "analysis"]
    assert settings.worker_timeout_seconds == 60
    assert settings.sweeper_interval_seconds == 30
    assert settings.long_poll_max_wait_seconds == 120
    assert settings.max_page_size == 500


def test_the_dict_wins_over_the_environment_over_defaults(monkeypatch):
    monkeypatch.setenv("ZNDRAW_JOBLIB_WORKER_TIMEOUT_SECONDS", "7")
    monkeypatch.setenv("ZNDRAW_JOBLIB_ALLOWED_CATEGORIES", '["a"]')
    assert get_settings().worker_timeout_seconds == 7
    with override_settings(ZNDRAW_JOBLIB={"worker_timeout_seconds": 9}):
        assert get_settings().worker_timeout_seconds == 9
        assert get_settings().allowed_categories == ["a"]
    monkeypatch.delenv("ZNDRAW_JOBLIB_WORKER_TIMEOUT_SECONDS")
    assert get_settings().worker_timeout_seconds == 60


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"wroker_timeout_seconds": 1}, "wroker_timeout_seconds"),
        ({"worker_timeout_seconds": 0}, "worker_timeout_seconds"),
        ({"worker_timeout_seconds": "soon"}, "worker_timeout_seconds"),
        ({"room_access": "no.such.hook"}, "room_access"),
        ({"identity": "zndraw_joblib.names.GLOBAL_ROOM"}, "identity"),
        ([1], "dict"),
    ],
)
def test_wrong_settings_are_an_error_of_the_check(values, named):
    with override_settings(ZNDRAW_JOBLIB=values):
        with pytest.raises(ImproperlyConfigured, match=named):
            get_settings()
        (error,) = checks.check_settings()
        assert error.id == "zndraw_joblib.E001"
        assert named in error.msg
        assert error.hint


def test_an_unknown_environment_variable_is_an_error(monkeypatch):
    monkeypatch.setenv("ZNDRAW_JOBLIB_TYPO", "1")
    (error,) = checks.check_settings()
    assert error.id == "zndraw_joblib.E001"
    assert "ZNDRAW_JOBLIB_TYPO" in error.msg


def test_an_environment_variable_that_is_no_json_is_an_error(monkeypatch):
    monkeypatch.setenv("ZNDRAW_JOBLIB_ALLOWED_CATEGORIES", "notjson")
    with pytest.raises(ImproperlyConfigured, match="allowed_categories"):
        get_settings()
    with pytest.raises(SystemCheckError, match=r"zndraw_joblib\.E001.*allowed_categories"):
        call_command("check")


def ids(messages):
    return [message.id for message in messages]


def test_channel_layers():
    assert checks.check_channel_layer() == []
    with override_settings(CHANNEL_LAYERS={}):
        assert ids(checks.check_channel_layer()) == ["zndraw_joblib.W001"]
    core = {"default": {"BACKEND": "channels_redis.core.RedisChannelLayer"}}
    with override_settings(CHANNEL_LAYERS=core):
        assert ids(checks.check_channel_layer()) == ["zndraw_joblib.W002"]


class SyncOnly:
    async_capable = False


def test_sync_only_middleware_is_named(settings):
    assert checks.check_middleware() == []
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "tests.unit.test_settings.SyncOnly"]
    (warning,) = checks.check_middleware()
    assert warning.id == "zndraw_joblib.W003"
    assert "SyncOnly" in warning.msg


def test_unset_room_access_is_a_deploy_warning(settings):
    assert ids(checks.check_room_access()) == ["zndraw_joblib.W004"]
    settings.ZNDRAW_JOBLIB = {"room_access": "tests.factories.by_room"}
    assert checks.check_room_access() == []


PRODUCTION: dict[str, Any] = {
    "DEBUG": False,
    "ALLOWED_HOSTS": ["jobs.example.org"],
    "DATABASES": {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "CONN_HEALTH_CHECKS": True,
            "OPTIONS": {"options": "-c statement_timeout=30s"},
        }
    },
    "CHANNEL_LAYERS": {"default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer"}},
    "CACHES": {
        "default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "redis://localhost"},
        # Others may well be a process's own.
        "pages": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    },
    "REST_FRAMEWORK": {
        "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
        "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
        "DEFAULT_THROTTLE_CLASSES": ["rest_framework.throttling.ScopedRateThrottle"],
        "DEFAULT_THROTTLE_RATES": {"joblib_submit": "20/s"},
    },
    "ZNDRAW_JOBLIB": {"room_access": "tests.factories.by_room"},
}
SQLITE = {"ENGINE": "django.db.backends.sqlite3", "OPTIONS": {"transaction_mode": "IMMEDIATE"}}
_POSTGRES = PRODUCTION["DATABASES"]["default"]
BARE = {"ENGINE": _POSTGRES["ENGINE"]}
_DRF = PRODUCTION["REST_FRAMEWORK"]
LOCMEM = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
IN_MEMORY = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}

DEPLOYMENTS = {
    "nothing to say": ({}, []),
    "sqlite is embedded": (
        {"DATABASES": {"default": SQLITE}, "CHANNEL_LAYERS": IN_MEMORY, "CACHES": LOCMEM},
        [],
    ),
    "debug": ({"DEBUG": True}, ["E002"]),
    "any host": ({"ALLOWED_HOSTS": ["a.example", "*"]}, ["E003"]),
    "allow any": (
        {
            "REST_FRAMEWORK": {
                **_DRF,
                "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.AllowAny"],
            }
        },
        ["E004"],
    ),
    "no permissions": (
        {"REST_FRAMEWORK": {**_DRF, "DEFAULT_PERMISSION_CLASSES": []}},
        ["E004"],
    ),
    "another allow any": (
        {
            "REST_FRAMEWORK": {
                **_DRF,
                "DEFAULT_PERMISSION_CLASSES": ["tests.unit.test_settings.Odd"],
            }
        },
        ["E004"],
    ),
    "DRF untouched": ({"REST_FRAMEWORK": {}}, ["E004", "W005", "W008"]),
    "in-memory layer": ({"CHANNEL_LAYERS": IN_MEMORY}, ["E005"]),
    "local-memory cache": ({"CACHES": LOCMEM}, ["E006"]),
    "deferred sqlite": (
        {"DATABASES": {"default": {"ENGINE": "django.db.backends.sqlite3"}}},
        ["E007"],
    ),
    "atomic requests": ({"DATABASES": {"default": {**SQLITE, "ATOMIC_REQUESTS": True}}}, ["E008"]),
    "short lease": (
        {"ZNDRAW_JOBLIB": {**PRODUCTION["ZNDRAW_JOBLIB"], "worker_timeout_seconds": 59}},
        ["E009"],
    ),
    "quick heartbeats": (
        {
            "ZNDRAW_JOBLIB": {
                **PRODUCTION["ZNDRAW_JOBLIB"],
                "worker_timeout_seconds": 30,
                "heartbeat_interval_seconds": 10,
            }
        },
        [],
    ),
    "rare sweeps": (
        {"ZNDRAW_JOBLIB": {**PRODUCTION["ZNDRAW_JOBLIB"], "sweeper_interval_seconds": 61}},
        ["E010"],
    ),
    "no room_access": ({"ZNDRAW_JOBLIB": {}}, ["W004"]),
    "no throttles": ({"REST_FRAMEWORK": {**_DRF, "DEFAULT_THROTTLE_CLASSES": []}}, ["W005"]),
    "no health checks": (
        {"DATABASES": {"default": {**_POSTGRES, "CONN_HEALTH_CHECKS": False}}},
        ["W006"],
    ),
    "no timeout": ({"DATABASES": {"default": {**_POSTGRES, "OPTIONS": {}}}}, ["W007"]),
    "browsable": (
        {
            "REST_FRAMEWORK": {
                **_DRF,
                "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.BrowsableAPIRenderer"],
            }
        },
        ["W008"],
    ),
    "admin renderer": (
        {
            "REST_FRAMEWORK": {
                **_DRF,
                "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.AdminRenderer"],
            }
        },
        ["W008"],
    ),
}


class Odd(AllowAny):
    """As open as what it inherits from."""


class OddThrottle(BaseThrottle):
    """Nobody knows what it does."""


@pytest.fixture
def deploy(settings, monkeypatch):
    """Runs `manage.py check --deploy` on settings; our messages as Django's checks gather them."""

    def run(**changed):
        values = {**PRODUCTION, **changed}
        # Django does not follow a change of DATABASES.
        handler = ConnectionHandler(values.pop("DATABASES"))
        monkeypatch.setattr(checks, "connections", handler)
        for name, value in values.items():
            setattr(settings, name, value)
        found = run_checks(include_deployment_checks=True)
        return [message for message in found if message.id.startswith("zndraw_joblib.")]

    return run


def numbers(messages):
    assert all(message.hint for message in messages)
    return sorted(message.id.removeprefix("zndraw_joblib.") for message in messages)


@pytest.mark.parametrize(("changed", "expected"), DEPLOYMENTS.values(), ids=DEPLOYMENTS)
def test_checks_under_deploy(deploy, changed, expected):
    assert numbers(deploy(**changed)) == expected


THROTTLES = "rest_framework.throttling"


@pytest.mark.parametrize(
    ("throttle", "rates", "expected"),
    [
        (f"{THROTTLES}.ScopedRateThrottle", {"joblib_work": "100/s"}, []),
        (f"{THROTTLES}.ScopedRateThrottle", {"token": "1/s"}, ["W005"]),
        (f"{THROTTLES}.ScopedRateThrottle", {"joblib_work": None}, ["W005"]),
        (f"{THROTTLES}.UserRateThrottle", {"user": "100/s"}, []),
        (f"{THROTTLES}.UserRateThrottle", {"user": None, "joblib_work": "1/s"}, ["W005"]),
        ("tests.unit.test_settings.OddThrottle", {}, []),
    ],
)
def test_throttles_that_throttle_nothing(deploy, throttle, rates, expected):
    changed = {"DEFAULT_THROTTLE_CLASSES": [throttle], "DEFAULT_THROTTLE_RATES": rates}
    assert numbers(deploy(REST_FRAMEWORK={**_DRF, **changed})) == expected


@pytest.mark.parametrize(
    ("options", "environment", "expected"),
    [
        ("-c statement_timeout=30s", None, []),
        ("-c statement_timeout = 30s", None, []),
        ("-cstatement_timeout=500", None, []),
        ("-c lock_timeout=1s --statement-timeout=0.5min", None, []),
        ("-c STATEMENT_TIMEOUT='30s'", None, []),
        ("", "-c statement_timeout=30s", []),
        (None, "--statement_timeout=30s", []),
        (None, None, ["W007"]),
        ("-c statement_timeout=0", None, ["W007"]),
        ("-c statement_timeout = 0ms", None, ["W007"]),
        ("-c statement_timeout=30s -c statement_timeout=0", None, ["W007"]),
        ("-c idle_in_transaction_session_timeout=10s", None, ["W007"]),
        # libpq looks at the environment only for what it is not told.
        ("-c lock_timeout=1s", "-c statement_timeout=30s", ["W007"]),
    ],
)
def test_statement_timeouts(deploy, monkeypatch, options, environment, expected):
    monkeypatch.delenv("PGOPTIONS", raising=False)
    if environment is not None:
        monkeypatch.setenv("PGOPTIONS", environment)
    given = {} if options is None else {"options": options}
    assert numbers(deploy(DATABASES={"default": {**_POSTGRES, "OPTIONS": given}})) == expected


def test_an_engine_built_on_postgresql_is_one(deploy, monkeypatch):
    from django.db.backends.postgresql import base

    for name in ("acme", "acme.base"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    ours = type("Ours", (base.DatabaseWrapper,), {})
    monkeypatch.setattr(sys.modules["acme.base"], "DatabaseWrapper", ours, raising=False)
    found = deploy(
        DATABASES={"default": {"ENGINE": "acme"}}, CHANNEL_LAYERS=IN_MEMORY, CACHES=LOCMEM
    )
    assert numbers(found) == ["E005", "E006", "W006", "W007"]


@pytest.mark.parametrize("nothing", [None, {}, {"default": None}, {"default": {}}])
def test_layers_and_caches_that_are_not_there(deploy, monkeypatch, nothing):
    if nothing is not None:
        assert numbers(deploy(CHANNEL_LAYERS=nothing)) == ["W001"]
    deploy()
    bare = SimpleNamespace(CHANNEL_LAYERS=nothing, CACHES=nothing)
    monkeypatch.setattr(checks, "django_settings", bare)
    assert checks.check_servers() == []
    assert numbers(checks.check_channel_layer()) == ["W001"]


#: Settings that no site should have. Some exclude each other.
BAD = (
    {
        "DEBUG": True,
        "ALLOWED_HOSTS": ["*"],
        "DATABASES": {"default": {**BARE, "ATOMIC_REQUESTS": True}},
        "CHANNEL_LAYERS": IN_MEMORY,
        "CACHES": LOCMEM,
        "REST_FRAMEWORK": {},
        "MIDDLEWARE": ["tests.unit.test_settings.SyncOnly"],
        "ZNDRAW_JOBLIB": {"worker_timeout_seconds": 10},
    },
    {"DATABASES": {"default": {"ENGINE": "django.db.backends.sqlite3"}}, "CHANNEL_LAYERS": {}},
    {"CHANNEL_LAYERS": {"default": {"BACKEND": "channels_redis.core.RedisChannelLayer"}}},
)


def said(deploy, **changed):
    """The ids in the output of the command itself."""
    deploy(**changed)
    output = io.StringIO()
    call_command("check", deploy=True, fail_level="CRITICAL", stderr=output, stdout=output)
    return set(re.findall(r"zndraw_joblib\.[EW]\d+", output.getvalue()))


def test_the_command_says_nothing_of_a_good_site(deploy):
    assert said(deploy) == set()


def test_the_command_says_everything_of_a_bad_one(deploy, monkeypatch):
    monkeypatch.setenv("ZNDRAW_JOBLIB_TYPO", "1")
    documented = Path(__file__).parents[2] / "docs" / "settings.md"
    known = set(re.findall(r"^\| `(zndraw_joblib\.[EW]\d+)`", documented.read_text(), re.M))
    assert set.union(*(said(deploy, **bad) for bad in BAD)) == known


def test_checks_are_of_deployment_only():
    """`manage.py check` alone does not say them."""
    from django.core.checks import registry

    deployment = {getattr(check, "__name__", "") for check in registry.registry.deployment_checks}
    assert {"check_site", "check_servers", "check_times", "check_room_access"} <= deployment
