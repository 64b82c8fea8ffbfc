"""Token authentication that asks the database every few seconds instead of at every request.

A host names it in ``REST_FRAMEWORK["DEFAULT_AUTHENTICATION_CLASSES"]`` in place of DRF's own.
"""

from __future__ import annotations

import hashlib
from typing import Any

from django.contrib.auth import get_user_model
from django.core.cache import caches
from django.db.models.signals import post_delete, post_save
from rest_framework.authentication import TokenAuthentication
from rest_framework.authtoken.models import Token

from zndraw_joblib.settings import get_settings


class CachedTokenAuthentication(TokenAuthentication):
    """DRF's tokens, remembered in the cache `token_cache` for `token_cache_seconds`.

    A token that is revoked, or whose user is changed or deactivated, is refused within
    `token_cache_seconds`; at once where the process that did it shares the cache and did it by the
    model's `save` or `delete`. Refused tokens are not remembered, and permissions that a user was
    granted are read by each request that needs them.
    """

    def authenticate_credentials(self, key: str) -> tuple[Any, Any]:
        """The user and the token, from the cache where it knows them."""
        settings = get_settings()
        if not settings.token_cache_seconds:
            return super().authenticate_credentials(key)
        cache = caches[settings.token_cache]
        name = cache_key(key)
        known: tuple[Any, Any] | None = cache.get(name)
        if known is None:
            known = super().authenticate_credentials(key)
            cache.set(name, known, settings.token_cache_seconds)
        return known


def cache_key(token: str) -> str:
    """Where a token is remembered; the cache holds none that could be used."""
    return f"joblib.token.{hashlib.sha256(token.encode()).hexdigest()}"


def forget(*tokens: str) -> None:
    """Ask the database for these tokens again."""
    caches[get_settings().token_cache].delete_many([cache_key(token) for token in tokens])


def _forget_token(instance: Any, **_: Any) -> None:
    forget(instance.key)


def _forget_user(instance: Any, **_: Any) -> None:
    if token := Token.objects.filter(user=instance).first():
        forget(token.key)


def connect() -> None:
    """Forget what changes."""
    for signal in (post_save, post_delete):
        signal.connect(_forget_token, sender=Token, dispatch_uid="zndraw_joblib.token")
    post_save.connect(_forget_user, sender=get_user_model(), dispatch_uid="zndraw_joblib.user")


connect()
