"""System checks. Ids are stable, because hosts silence them; each hint names a setting."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router
from django.utils.module_loading import import_string
from rest_framework.permissions import AllowAny
from rest_framework.renderers import BrowsableAPIRenderer
from rest_framework.settings import api_settings
from rest_framework.throttling import ScopedRateThrottle, SimpleRateThrottle

from zndraw_joblib.models import Task
from zndraw_joblib.settings import ENV_PREFIX, NEEDS_USE_TZ, JobLibSettings, get_settings

_DOCS = "See docs/reference/settings.md."
#: The first version with `UPDATE ... RETURNING`.
MIN_SQLITE = (3, 35, 0)
#: Names of databases for messages, by Django's vendor.
_DATABASES = {"mysql": "MySQL or MariaDB", "oracle": "Oracle", "unknown": "not configured"}


@register(Tags.compatibility)
def check_settings(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """E001: every setting is known and valid."""
    messages: list[CheckMessage] = []
    try:
        get_settings()
    except ImproperlyConfigured as error:
        if str(error) == NEEDS_USE_TZ:
            return []  # E015 reports it.
        messages.append(Error(str(error), hint=_DOCS, id="zndraw_joblib.E001"))
    known = {f"{ENV_PREFIX}{name}".upper() for name in JobLibSettings.model_fields}
    for name in sorted(os.environ):
        if name.upper().startswith(ENV_PREFIX) and name.upper() not in known:
            messages.append(
                Error(
                    f"The environment variable {name} is not a setting of zndraw_joblib.",
                    hint=f"Unset {name}, or correct its name. {_DOCS}",
                    id="zndraw_joblib.E001",
                )
            )
    return messages


# Not tagged as a database check, because those run only for `check --database`.
@register(Tags.compatibility)
def check_database(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """E011, E018: PostgreSQL, or SQLite of a sufficient version, that commits by itself.

    The check sends no query. Django itself refuses versions of PostgreSQL that it does not support.
    """
    alias = router.db_for_write(Task)
    connection = connections[alias]
    if not connection.settings_dict.get("AUTOCOMMIT", True):
        text = f'DATABASES["{alias}"] has AUTOCOMMIT = False, so each submit fails.'
        hint = f'Remove DATABASES["{alias}"]["AUTOCOMMIT"].'
        return [Error(text, hint=hint, id="zndraw_joblib.E018")]
    hint = (
        f'Set DATABASES["{alias}"]["ENGINE"] = "django.db.backends.postgresql", or route the app '
        "to another database by DATABASE_ROUTERS."
    )
    found = _DATABASES.get(connection.vendor, connection.vendor)
    if connection.vendor == "sqlite":
        version = connection.get_database_version()
        if version >= MIN_SQLITE:
            return []
        found = f"SQLite {_dotted(version)}"
        hint = f"Upgrade SQLite to {_dotted(MIN_SQLITE)}. {hint}"
    elif connection.vendor == "postgresql":
        return []
    return [
        Error(
            f'DATABASES["{alias}"] is {found}; zndraw_joblib supports PostgreSQL, and SQLite from '
            f"version {_dotted(MIN_SQLITE)} on.",
            hint=hint,
            id="zndraw_joblib.E011",
        )
    ]


@register(Tags.compatibility)
def check_tenants(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """W009: the hooks of tenants are set for an engine with tenants, such as django-tenants'."""
    settings, connection = _settings(), connections[router.db_for_write(Task)]
    if settings is None or settings.tenant or not hasattr(connection, "set_tenant"):
        return []
    return [
        Warning(
            "The database's engine chooses a schema for each tenant, but waits, WebSockets, cached "
            "tokens and run_sweeper know no tenants.",
            hint=f"Set `tenant`, `in_tenant` and `tenants` in ZNDRAW_JOBLIB. {_DOCS}",
            id="zndraw_joblib.W009",
        )
    ]


@register(Tags.compatibility)
def check_time_zones(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """E015: times have an offset, and SQLite, which keeps none, has them in UTC."""
    if not django_settings.USE_TZ:
        hint = "Set USE_TZ = True. TIME_ZONE may stay as it is."
        return [Error(NEEDS_USE_TZ, hint=hint, id="zndraw_joblib.E015")]
    alias = router.db_for_write(Task)
    connection = connections[alias]
    if connection.vendor == "sqlite" and connection.timezone_name not in {"UTC", "Etc/UTC"}:
        return [
            Error(
                f'DATABASES["{alias}"] has TIME_ZONE = "{connection.timezone_name}", but SQLite '
                "keeps times without an offset, and zndraw_joblib writes them in UTC.",
                hint=f'Remove DATABASES["{alias}"]["TIME_ZONE"].',
                id="zndraw_joblib.E015",
            )
        ]
    return []


def _dotted(version: Sequence[int]) -> str:
    return ".".join(str(number) for number in version)


@register(Tags.async_support)
def check_channel_layer(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """W001, W002: a channel layer is configured, and not an unsuitable one."""
    backend = _backend("CHANNEL_LAYERS")
    if not backend:
        return [
            Warning(
                "There is no default channel layer, so a wait ends only when the server re-reads "
                "the task, every few seconds.",
                hint="Set CHANNEL_LAYERS, for instance to channels_redis.pubsub."
                "RedisPubSubChannelLayer.",
                id="zndraw_joblib.W001",
            )
        ]
    if backend == "channels_redis.core.RedisChannelLayer":
        return [
            Warning(
                "RedisChannelLayer times out under redis-py 8's default socket_timeout, and wakes "
                "waiters more slowly than RedisPubSubChannelLayer.",
                hint='Set its BACKEND to "channels_redis.pubsub.RedisPubSubChannelLayer".',
                id="zndraw_joblib.W002",
            )
        ]
    return []


@register(Tags.async_support)
def check_middleware(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """W003: no middleware is synchronous only."""
    messages: list[CheckMessage] = []
    for path in django_settings.MIDDLEWARE:
        try:
            middleware = import_string(path)
        except ImportError:
            continue  # Django reports it.
        if not getattr(middleware, "async_capable", False):
            messages.append(
                Warning(
                    f"The middleware {path} is synchronous only, so under ASGI every request that "
                    "waits holds a thread.",
                    hint="Replace it by one that is async_capable, or serve the API by "
                    "zndraw_joblib.contrib.asgi.ApiLane (docs/how-to/lane.md), under which a wait "
                    "holds no thread; then silence this check.",
                    id="zndraw_joblib.W003",
                )
            )
    return messages


def _settings() -> JobLibSettings | None:
    try:
        return get_settings()
    except ImproperlyConfigured:
        return None  # E001 reports it.


def _backend(setting: str) -> str:
    """The backend of the default channel layer or cache; empty if none is configured."""
    configured = getattr(django_settings, setting, None) or {}
    return str((configured.get("default") or {}).get("BACKEND") or "")


def _throttles(throttle: Any, rates: Mapping[str, str | None]) -> bool:
    """Whether a throttle class can refuse a request to the job server."""
    if not isinstance(throttle, type) or not issubclass(throttle, SimpleRateThrottle):
        return True
    if issubclass(throttle, ScopedRateThrottle):
        return any(rate for scope, rate in rates.items() if scope.startswith("joblib_"))
    return bool(getattr(throttle, "rate", None) or rates.get(throttle.scope or ""))


def _any_subclass(classes: Sequence[Any], of: type) -> bool:
    return any(isinstance(cls, type) and issubclass(cls, of) for cls in classes)


#: `statement_timeout` among libpq's `options`, in each spelling that PostgreSQL accepts.
_STATEMENT_TIMEOUT = re.compile(
    r"(?:^|\s)(?:-c\s*|--)statement[-_]timeout\s*=\s*'?([\d.]+)", re.IGNORECASE
)


def _has_statement_timeout(options: Mapping[str, Any]) -> bool:
    # The last one, because PostgreSQL applies the options in order; 0 means no timeout.
    text = str(options.get("options") or os.environ.get("PGOPTIONS", ""))
    return any(value.strip("0.") for value in _STATEMENT_TIMEOUT.findall(text)[-1:])


@register(Tags.security, deploy=True)
def check_site(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """E002-E004, W005, W008: the site limits access and does not expose its internals."""
    messages: list[CheckMessage] = []
    if django_settings.DEBUG:
        messages.append(
            Error(
                "DEBUG is on, so errors show settings and source code to everybody.",
                hint="Set DEBUG = False.",
                id="zndraw_joblib.E002",
            )
        )
    if "*" in django_settings.ALLOWED_HOSTS:
        messages.append(
            Error(
                "ALLOWED_HOSTS has '*', so every Host header and every Origin of a WebSocket is "
                "accepted.",
                hint='Set ALLOWED_HOSTS = ["jobs.example.org"].',
                id="zndraw_joblib.E003",
            )
        )
    drf: Any = api_settings
    permissions = drf.DEFAULT_PERMISSION_CLASSES
    if not permissions or _any_subclass(permissions, AllowAny):
        messages.append(
            Error(
                "DEFAULT_PERMISSION_CLASSES of REST_FRAMEWORK is empty or has AllowAny, DRF's "
                "default, so views without permission classes of their own are open to everybody.",
                hint='Set REST_FRAMEWORK["DEFAULT_PERMISSION_CLASSES"] = '
                '["rest_framework.permissions.IsAuthenticated"].',
                id="zndraw_joblib.E004",
            )
        )
    rates = drf.DEFAULT_THROTTLE_RATES or {}
    if not any(_throttles(throttle, rates) for throttle in drf.DEFAULT_THROTTLE_CLASSES):
        messages.append(
            Warning(
                "No throttle has a rate, so a single caller can use the server's whole capacity.",
                hint='Set REST_FRAMEWORK["DEFAULT_THROTTLE_CLASSES"] = '
                '["rest_framework.throttling.ScopedRateThrottle"] and rates for the scopes in '
                "docs/reference/settings.md.",
                id="zndraw_joblib.W005",
            )
        )
    if _any_subclass(drf.DEFAULT_RENDERER_CLASSES, BrowsableAPIRenderer):
        messages.append(
            Warning(
                "The browsable API is on for the host's views.",
                hint='Set REST_FRAMEWORK["DEFAULT_RENDERER_CLASSES"] = '
                '["rest_framework.renderers.JSONRenderer"].',
                id="zndraw_joblib.W008",
            )
        )
    return messages


@register(Tags.database, Tags.security, deploy=True)
def check_servers(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """E005-E007, W006, W007: database, channel layer and cache work with several processes."""
    messages: list[CheckMessage] = []
    alias = router.db_for_write(Task)
    # The vendor of the connection, because a host's ENGINE may be derived from one of Django's.
    vendor, database = connections[alias].vendor, connections[alias].settings_dict
    options = database.get("OPTIONS") or {}
    layer = _backend("CHANNEL_LAYERS")
    # Only the default cache, because DRF's throttles count there.
    cache = _backend("CACHES")
    if vendor == "postgresql":
        if layer == "channels.layers.InMemoryChannelLayer":
            messages.append(
                Error(
                    "The in-memory channel layer sends no events to other processes, and a site "
                    "on PostgreSQL usually has several.",
                    hint='Set CHANNEL_LAYERS["default"]["BACKEND"] = '
                    '"channels_redis.pubsub.RedisPubSubChannelLayer".',
                    id="zndraw_joblib.E005",
                )
            )
        if cache == "django.core.cache.backends.locmem.LocMemCache":
            messages.append(
                Error(
                    "The local-memory cache counts throttles for one process only, and a site on "
                    "PostgreSQL usually has several.",
                    hint='Set CACHES["default"]["BACKEND"] = "django_redis.cache.RedisCache".',
                    id="zndraw_joblib.E006",
                )
            )
        if not database.get("CONN_HEALTH_CHECKS"):
            messages.append(
                Warning(
                    "CONN_HEALTH_CHECKS is off, so after a restart of PostgreSQL requests fail on "
                    "closed connections.",
                    hint=f'Set DATABASES["{alias}"]["CONN_HEALTH_CHECKS"] = True.',
                    id="zndraw_joblib.W006",
                )
            )
        if not _has_statement_timeout(options):
            messages.append(
                Warning(
                    "No statement_timeout is set, so a query that hangs holds its connection.",
                    hint=f'Set DATABASES["{alias}"]["OPTIONS"]["options"] = '
                    '"-c statement_timeout=30000". Where the database\'s role has one '
                    "(ALTER ROLE ... SET statement_timeout), silence this check.",
                    id="zndraw_joblib.W007",
                )
            )
    if vendor == "sqlite" and str(options.get("transaction_mode", "")).upper() != "IMMEDIATE":
        messages.append(
            Error(
                "SQLite without IMMEDIATE transactions fails with 'database is locked' when two "
                "requests write at once.",
                hint=f'Set DATABASES["{alias}"]["OPTIONS"]["transaction_mode"] = "IMMEDIATE".',
                id="zndraw_joblib.E007",
            )
        )
    return messages


@register(Tags.security, deploy=True)
def check_times(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """E009, E010: a lease is at least three heartbeats and at least one sweep long."""
    messages: list[CheckMessage] = []
    settings = _settings()
    if settings is None:
        return messages
    lease = settings.worker_timeout_seconds
    if lease < 3 * settings.heartbeat_interval_seconds:
        messages.append(
            Error(
                f"A lease of {lease:g} s is shorter than three intervals of heartbeats of "
                f"{settings.heartbeat_interval_seconds:g} s, so a worker loses its tasks by a "
                "single lost packet.",
                hint="Raise worker_timeout_seconds or lower heartbeat_interval_seconds in "
                "ZNDRAW_JOBLIB.",
                id="zndraw_joblib.E009",
            )
        )
    if settings.sweeper_interval_seconds > lease:
        messages.append(
            Error(
                f"Sweeps every {settings.sweeper_interval_seconds:g} s are rarer than leases of "
                f"{lease:g} s, so tasks of dead workers wait longer for a sweep than for the end "
                "of their lease.",
                hint="Lower sweeper_interval_seconds in ZNDRAW_JOBLIB.",
                id="zndraw_joblib.E010",
            )
        )
    return messages


@register(Tags.security, deploy=True)
def check_room_access(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """W004: `room_access` is set."""
    settings = _settings()
    if settings and settings.room_access == JobLibSettings.model_fields["room_access"].default:
        return [
            Warning(
                "room_access is not set, so every authenticated user may use every room.",
                hint='Set ZNDRAW_JOBLIB = {"room_access": "path.to.your.function"}. ' + _DOCS,
                id="zndraw_joblib.W004",
            )
        ]
    return []
