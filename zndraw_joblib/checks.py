"""System checks, with stable ids and a hint that says what to type."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from zndraw_joblib.settings import ENV_PREFIX, JobLibSettings, get_settings

_DOCS = "See docs/settings.md."


@register(Tags.compatibility)
def check_settings(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """E001: every setting is known and has a value that makes sense."""
    messages: list[CheckMessage] = []
    try:
        get_settings()
    except ImproperlyConfigured as error:
        messages.append(Error(str(error), hint=_DOCS, id="zndraw_joblib.E001"))
    known = {f"{ENV_PREFIX}{name}".upper() for name in JobLibSettings.model_fields}
    for name in sorted(os.environ):
        if name.upper().startswith(ENV_PREFIX) and name.upper() not in known:
            messages.append(
                Error(
                    f"The environment variable {name} is no setting of zndraw_joblib.",
                    hint=f"Unset {name}, or correct its name. {_DOCS}",
                    id="zndraw_joblib.E001",
                )
            )
    return messages


@register(Tags.async_support)
def check_channel_layer(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """W001, W002: there is a channel layer, and one that suits."""
    layers = getattr(django_settings, "CHANNEL_LAYERS", {})
    backend = layers.get("default", {}).get("BACKEND")
    if backend is None:
        return [
            Warning(
                "There is no default channel layer; waiters only learn of an end by re-reading.",
                hint="Set CHANNEL_LAYERS, for instance to channels_redis.pubsub."
                "RedisPubSubChannelLayer.",
                id="zndraw_joblib.W001",
            )
        ]
    if backend == "channels_redis.core.RedisChannelLayer":
        return [
            Warning(
                "RedisChannelLayer times out while it waits, under redis-py 8's default "
                "socket_timeout, and wakes waiters more slowly.",
                hint='Set its BACKEND to "channels_redis.pubsub.RedisPubSubChannelLayer".',
                id="zndraw_joblib.W002",
            )
        ]
    return []


@register(Tags.async_support)
def check_middleware(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """W003: no middleware is sync only."""
    messages: list[CheckMessage] = []
    for path in django_settings.MIDDLEWARE:
        try:
            middleware = import_string(path)
        except ImportError:
            continue  # Django says so itself.
        if not getattr(middleware, "async_capable", False):
            messages.append(
                Warning(
                    f"The middleware {path} is sync only: under ASGI every request that waits "
                    "holds a thread.",
                    hint="Replace it by one that is async_capable, or serve waits without it.",
                    id="zndraw_joblib.W003",
                )
            )
    return messages


@register(Tags.security, deploy=True)
def check_room_access(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """W004: somebody decided who may use which room."""
    try:
        settings = get_settings()
    except ImproperlyConfigured:
        return []  # E001 says so.
    if settings.room_access == JobLibSettings.model_fields["room_access"].default:
        return [
            Warning(
                "room_access is unset: every authenticated user may use every room.",
                hint='Set ZNDRAW_JOBLIB = {"room_access": "path.to.your.function"}. ' + _DOCS,
                id="zndraw_joblib.W004",
            )
        ]
    return []
