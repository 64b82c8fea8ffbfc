from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import override_settings

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


PRODUCTION = {
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
    "CACHES": {"default": {"BACKEND": "django_redis.cache.RedisCache"}},
    "REST_FRAMEWORK": {
        "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
        "DEFAULT_THROTTLE_CLASSES": ["rest_framework.throttling.ScopedRateThrottle"],
    },
    "ZNDRAW_JOBLIB": {"room_access": "tests.factories.by_room"},
}
SQLITE = {"ENGINE": "django.db.backends.sqlite3", "OPTIONS": {"transaction_mode": "IMMEDIATE"}}
_POSTGRES = PRODUCTION["DATABASES"]["default"]
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
}


@pytest.mark.filterwarnings("ignore:Overriding setting DATABASES")
@pytest.mark.parametrize(("changed", "expected"), DEPLOYMENTS.values(), ids=DEPLOYMENTS)
def test_checks_under_deploy(settings, changed, expected):
    for name, value in {**PRODUCTION, **changed}.items():
        setattr(settings, name, value)
    found = [
        *checks.check_site(),
        *checks.check_servers(),
        *checks.check_times(),
        *checks.check_room_access(),
    ]
    assert ids(found) == [f"zndraw_joblib.{number}" for number in expected]
    assert all(message.hint for message in found)


def test_checks_are_of_deployment_only():
    """`manage.py check` alone does not say them."""
    from django.core.checks import registry

    deployment = {check.__name__ for check in registry.registry.deployment_checks}
    assert {"check_site", "check_servers", "check_times", "check_room_access"} <= deployment
