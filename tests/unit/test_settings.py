from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.checks.registry import registry
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db.backends.dummy import base as dummy
from django.db.backends.postgresql import base as postgresql
from django.db.backends.sqlite3 import base as sqlite3
from django.db.utils import ConnectionHandler
from django.test import override_settings
from drf_spectacular.checks import schema_check
from rest_framework.permissions import AllowAny
from rest_framework.settings import api_settings
from rest_framework.throttling import BaseThrottle, SimpleRateThrottle

from zndraw_joblib import checks
from zndraw_joblib.settings import JobLibSettings, get_settings, reset_settings


@pytest.fixture
def environment():
    """A function that sets environment variables and rebuilds the settings; None unsets one."""
    with pytest.MonkeyPatch.context() as patch:

        def change(**variables):
            for name, value in variables.items():
                if value is None:
                    patch.delenv(name)
                else:
                    patch.setenv(name, value)
            reset_settings()

        yield change
    reset_settings()


def test_the_defaults_are_those_of_the_contract():
    settings = JobLibSettings()
    assert settings.allowed_categories == ["modifiers", "selections", "analysis"]
    assert settings.worker_timeout_seconds == 60
    assert settings.sweeper_interval_seconds == 30
    assert settings.long_poll_max_wait_seconds == 120
    assert settings.max_page_size == 500


def test_the_dict_overrides_the_environment_and_the_environment_the_defaults(environment):
    environment(ZNDRAW_JOBLIB_WORKER_TIMEOUT_SECONDS="7", ZNDRAW_JOBLIB_ALLOWED_CATEGORIES='["a"]')
    assert get_settings().worker_timeout_seconds == 7
    with override_settings(ZNDRAW_JOBLIB={"worker_timeout_seconds": 9}):
        assert get_settings().worker_timeout_seconds == 9
        assert get_settings().allowed_categories == ["a"]
    environment(ZNDRAW_JOBLIB_WORKER_TIMEOUT_SECONDS=None)
    assert get_settings().worker_timeout_seconds == 60


def test_settings_are_built_once_until_they_change():
    before = get_settings()
    assert get_settings() is before
    with override_settings(ZNDRAW_JOBLIB={}):
        inside = get_settings()
        assert inside is not before
        assert get_settings() is inside
    assert get_settings() == before


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"wroker_timeout_seconds": 1}, "wroker_timeout_seconds"),
        ({"worker_timeout_seconds": 0}, "worker_timeout_seconds"),
        ({"worker_timeout_seconds": "soon"}, "worker_timeout_seconds"),
        ({"room_access": "no.such.hook"}, "room_access"),
        ({"identity": "zndraw_joblib.names.GLOBAL_ROOM"}, "identity"),
        ([1], "dict"),
        ({"tenant": "zndraw_joblib.access.default_identity"}, "in_tenant"),
    ],
)
def test_an_invalid_setting_is_an_error_of_the_check(values, message):
    with override_settings(ZNDRAW_JOBLIB=values):
        with pytest.raises(ImproperlyConfigured, match=message):
            get_settings()
        (error,) = checks.check_settings()
        assert error.id == "zndraw_joblib.E001"
        assert message in error.msg
        assert error.hint


def test_an_unknown_environment_variable_is_an_error(monkeypatch):
    monkeypatch.setenv("ZNDRAW_JOBLIB_TYPO", "1")
    (error,) = checks.check_settings()
    assert error.id == "zndraw_joblib.E001"
    assert "ZNDRAW_JOBLIB_TYPO" in error.msg


def test_an_environment_variable_that_is_not_json_is_an_error(environment):
    environment(ZNDRAW_JOBLIB_ALLOWED_CATEGORIES="notjson")
    with pytest.raises(ImproperlyConfigured, match="allowed_categories"):
        get_settings()
    with pytest.raises(SystemCheckError, match=r"zndraw_joblib\.E001.*allowed_categories"):
        call_command("check")


def test_without_use_tz_the_server_refuses_to_work(settings):
    """A server that runs no system checks must not answer with times that are off by hours."""
    settings.USE_TZ = False
    with pytest.raises(ImproperlyConfigured, match="USE_TZ = True"):
        get_settings()
    settings.USE_TZ = True
    assert get_settings()


def derived_engine(monkeypatch, base, **attributes):
    """Settings of a database whose engine derives from `base`, with these class attributes."""
    for name in ("acme", "acme.base"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    derived = type("Derived", (base.DatabaseWrapper,), attributes)
    monkeypatch.setattr(sys.modules["acme.base"], "DatabaseWrapper", derived, raising=False)
    return {"ENGINE": "acme"}


def output_of_check(monkeypatch, database):
    """The output of `manage.py check` with this database."""
    monkeypatch.setattr(checks, "connections", ConnectionHandler({"default": database}))
    output = io.StringIO()
    call_command("check", fail_level="CRITICAL", stderr=output, stdout=output)
    return output.getvalue()


@pytest.mark.parametrize(
    ("vendor", "name"), [("mysql", "MySQL or MariaDB"), ("oracle", "Oracle"), ("acme", "acme")]
)
def test_an_unsupported_database_is_an_error_of_the_plain_check(monkeypatch, vendor, name):
    """The check makes no query, because the dummy engine raises at each."""
    database = derived_engine(monkeypatch, dummy, vendor=vendor)
    output = output_of_check(monkeypatch, database)
    assert "zndraw_joblib.E011" in output
    assert f'DATABASES["default"] is {name};' in output
    assert 'HINT: Set DATABASES["default"]["ENGINE"] = "django.db.backends.postgresql"' in output


def test_an_engine_with_tenants_needs_the_hooks(monkeypatch, settings):
    """The engine of django-tenants has `set_tenant`."""
    database = derived_engine(monkeypatch, postgresql, set_tenant=lambda self, tenant: None)
    assert "zndraw_joblib.W009" in output_of_check(monkeypatch, database)
    assert "zndraw_joblib.W009" not in output_of_check(monkeypatch, BARE)
    hook = "zndraw_joblib.access.default_identity"
    settings.ZNDRAW_JOBLIB = {"tenant": hook, "in_tenant": hook, "tenants": hook}
    assert "zndraw_joblib.W009" not in output_of_check(monkeypatch, database)


def test_postgresql_and_sqlite_are_supported_databases(monkeypatch):
    for database in (BARE, SQLITE, derived_engine(monkeypatch, postgresql)):
        assert "zndraw_joblib.E011" not in output_of_check(monkeypatch, database)


@pytest.mark.parametrize("base", [postgresql, sqlite3])
def test_a_database_that_does_not_commit_is_an_error(monkeypatch, base):
    """With it each submit was a 500, and the checks had no word about it."""
    database = derived_engine(monkeypatch, base) | {"NAME": ":memory:", "AUTOCOMMIT": False}
    assert "zndraw_joblib.E018" in output_of_check(monkeypatch, database)
    database["AUTOCOMMIT"] = True
    assert "zndraw_joblib.E018" not in output_of_check(monkeypatch, database)


def test_sqlite_without_returning_is_an_error(monkeypatch):
    monkeypatch.setattr(checks, "MIN_SQLITE", (99, 1, 0))
    output = output_of_check(monkeypatch, SQLITE)
    assert "zndraw_joblib.E011" in output
    assert "HINT: Upgrade SQLite to 99.1.0." in output


def ids(messages):
    return [message.id for message in messages]


def test_a_missing_or_unsuitable_channel_layer_is_a_warning():
    assert checks.check_channel_layer() == []
    with override_settings(CHANNEL_LAYERS={}):
        assert ids(checks.check_channel_layer()) == ["zndraw_joblib.W001"]
    core = {"default": {"BACKEND": "channels_redis.core.RedisChannelLayer"}}
    with override_settings(CHANNEL_LAYERS=core):
        assert ids(checks.check_channel_layer()) == ["zndraw_joblib.W002"]


class SyncOnly:
    async_capable = False


def test_synchronous_middleware_is_a_warning_that_names_it(settings):
    assert checks.check_middleware() == []
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "tests.unit.test_settings.SyncOnly"]
    (warning,) = checks.check_middleware()
    assert warning.id == "zndraw_joblib.W003"
    assert "SyncOnly" in warning.msg


def test_unset_room_access_is_a_warning(settings):
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
        # Only the default cache must be shared by the processes.
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
    "good": ({}, []),
    "sqlite is embedded": (
        {"DATABASES": {"default": SQLITE}, "CHANNEL_LAYERS": IN_MEMORY, "CACHES": LOCMEM},
        [],
    ),
    "no offsets": ({"USE_TZ": False}, ["E015"]),
    "another time zone": ({"TIME_ZONE": "Europe/Berlin"}, []),
    "another time zone of PostgreSQL": (
        {"DATABASES": {"default": {**_POSTGRES, "TIME_ZONE": "Europe/Berlin"}}},
        [],
    ),
    "another time zone of SQLite": (
        {"DATABASES": {"default": {**SQLITE, "TIME_ZONE": "Europe/Berlin"}}},
        ["E015"],
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
                "DEFAULT_PERMISSION_CLASSES": ["tests.unit.test_settings.Open"],
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
    "atomic requests": ({"DATABASES": {"default": {**SQLITE, "ATOMIC_REQUESTS": True}}}, []),
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


class Open(AllowAny):
    """A subclass of AllowAny."""


class OwnThrottle(BaseThrottle):
    """A throttle of the host, whose rate the check does not know."""


@pytest.fixture
def deploy(settings, monkeypatch):
    """A function that runs the deployment checks with changed settings.

    It returns this app's messages.
    """

    def run(**changed):
        values = {**PRODUCTION, **changed}
        # Replaced here, because a change of DATABASES has no effect on open connections.
        handler = ConnectionHandler(values.pop("DATABASES"))
        monkeypatch.setattr(checks, "connections", handler)
        for name, value in values.items():
            setattr(settings, name, value)
        # DRF's class keeps the rates of the start of the process.
        rates = api_settings.DEFAULT_THROTTLE_RATES
        monkeypatch.setattr(SimpleRateThrottle, "THROTTLE_RATES", rates)
        found = run_checks(include_deployment_checks=True)
        return [message for message in found if message.id.startswith("zndraw_joblib.")]

    # Without the check of drf-spectacular, because it generates the whole OpenAPI document.
    others = [each for each in registry.deployment_checks if each is not schema_check]
    monkeypatch.setattr(registry, "deployment_checks", others)
    return run


def numbers(messages):
    assert all(message.hint for message in messages)
    return sorted(message.id.removeprefix("zndraw_joblib.") for message in messages)


@pytest.mark.parametrize(("changed", "expected"), DEPLOYMENTS.values(), ids=DEPLOYMENTS)
def test_each_unsuitable_setting_has_its_own_message(deploy, changed, expected):
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
        ("tests.unit.test_settings.OwnThrottle", {}, []),
    ],
)
def test_throttles_without_a_rate_are_a_warning(deploy, throttle, rates, expected):
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
        # libpq reads the environment only without an `options` of the connection.
        ("-c lock_timeout=1s", "-c statement_timeout=30s", ["W007"]),
    ],
)
def test_no_statement_timeout_is_a_warning(deploy, monkeypatch, options, environment, expected):
    monkeypatch.delenv("PGOPTIONS", raising=False)
    if environment is not None:
        monkeypatch.setenv("PGOPTIONS", environment)
    connection_options = {} if options is None else {"options": options}
    assert (
        numbers(deploy(DATABASES={"default": {**_POSTGRES, "OPTIONS": connection_options}}))
        == expected
    )


def test_an_engine_derived_from_postgresql_is_checked_as_postgresql(deploy, monkeypatch):
    database = derived_engine(monkeypatch, postgresql)
    found = deploy(DATABASES={"default": database}, CHANNEL_LAYERS=IN_MEMORY, CACHES=LOCMEM)
    assert numbers(found) == ["E005", "E006", "W006", "W007"]


@pytest.mark.parametrize("missing", [None, {}, {"default": None}, {"default": {}}])
def test_missing_layers_and_caches_do_not_break_the_checks(deploy, monkeypatch, missing):
    if missing is not None:
        assert numbers(deploy(CHANNEL_LAYERS=missing)) == ["W001"]
    deploy()
    bare = SimpleNamespace(CHANNEL_LAYERS=missing, CACHES=missing)
    monkeypatch.setattr(checks, "django_settings", bare)
    assert checks.check_servers() == []
    assert numbers(checks.check_channel_layer()) == ["W001"]


LOCAL_STORAGE = "django.core.files.storage.FileSystemStorage"
#: Several sets of unsuitable settings, because some exclude each other.
UNSUITABLE = (
    {
        "DEBUG": True,
        "ALLOWED_HOSTS": ["*"],
        "DATABASES": {"default": BARE},
        "CHANNEL_LAYERS": IN_MEMORY,
        "CACHES": LOCMEM,
        "REST_FRAMEWORK": {},
        "MIDDLEWARE": ["tests.unit.test_settings.SyncOnly"],
        "ZNDRAW_JOBLIB": {"worker_timeout_seconds": 10},
    },
    {"DATABASES": {"default": {"ENGINE": "django.db.backends.sqlite3"}}, "CHANNEL_LAYERS": {}},
    {"CHANNEL_LAYERS": {"default": {"BACKEND": "channels_redis.core.RedisChannelLayer"}}},
    {"DATABASES": {"default": {"ENGINE": "django.db.backends.dummy"}}},
    {"DATABASES": {"default": {"ENGINE": "django.db.backends.sqlite3", "AUTOCOMMIT": False}}},
    {
        "REST_FRAMEWORK": {
            "DEFAULT_AUTHENTICATION_CLASSES": [],
            "DEFAULT_THROTTLE_RATES": {"joblib_work": "often"},
        }
    },
    {"USE_TZ": False},
    {"STORAGES": {"zndraw_joblib": {"BACKEND": "no.such.Storage"}}},
    {"STORAGES": {"zndraw_joblib": {"BACKEND": LOCAL_STORAGE}}, "MEDIA_ROOT": ""},
)


def reported(deploy, **changed):
    """This app's ids in the output of `manage.py check --deploy`."""
    deploy(**changed)
    output = io.StringIO()
    call_command("check", deploy=True, fail_level="CRITICAL", stderr=output, stdout=output)
    return set(re.findall(r"zndraw_joblib\.[EW]\d+", output.getvalue()))


def test_the_check_command_reports_nothing_for_a_suitable_site(deploy):
    assert reported(deploy) == set()


def test_the_check_command_reports_every_documented_id(deploy, monkeypatch):
    monkeypatch.setenv("ZNDRAW_JOBLIB_TYPO", "1")
    documented = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
    known = set(re.findall(r"^\| `(zndraw_joblib\.[EW]\d+)`", documented.read_text(), re.M))
    tenants = derived_engine(monkeypatch, postgresql, set_tenant=lambda self, tenant: None)
    unsuitable = ({"DATABASES": {"default": tenants}}, *UNSUITABLE)
    assert set.union(*(reported(deploy, **changed) for changed in unsuitable)) == known


def test_deployment_checks_run_with_the_deploy_option_only():
    deployment = {getattr(check, "__name__", "") for check in registry.deployment_checks}
    assert {"check_site", "check_servers", "check_times", "check_room_access"} <= deployment
