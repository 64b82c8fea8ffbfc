"""Token authentication that queries the database every few seconds, not at every request.

A host names it in ``REST_FRAMEWORK["DEFAULT_AUTHENTICATION_CLASSES"]`` in place of DRF's own.
"""

from __future__ import annotations

from copy import copy
from threading import Lock
from time import monotonic
from typing import Any

from cachetools import LRUCache
from django.contrib.auth import get_user_model
from django.db.models.signals import post_delete, post_save
from rest_framework.authentication import TokenAuthentication
from rest_framework.authtoken.models import Token

from zndraw_joblib.settings import get_settings
from zndraw_joblib.tenancy import tenant_of

#: Most tokens that a process caches.
MAX_TOKENS = 10_000

#: By authenticator, tenant and `Authorization` header: when the entry expires, the user and the
#: token.
_cache: LRUCache[tuple[type, str | None, str], tuple[float, Any, Any]] = LRUCache(MAX_TOKENS)
_lock = Lock()


class CachedTokenAuthentication(TokenAuthentication):
    """DRF's tokens, cached by each process for `token_cache_seconds`.

    A token that is revoked, or whose user is changed or deactivated, is refused after
    `token_cache_seconds` at the latest, and at once in the process that called the model's `save`
    or `delete`. Refused tokens and permissions of users are not cached.
    """

    def authenticate(self, request: Any) -> tuple[Any, Any] | None:
        """The user and the token, from the cache if possible; None without a token."""
        header = request.META.get("HTTP_AUTHORIZATION")
        tenant = tenant_of(request)
        with _lock:
            cached = _cache.get((type(self), tenant, header))
        if cached and monotonic() < cached[0]:
            return _copies(*cached[1:])
        found = super().authenticate(request)
        seconds = get_settings().token_cache_seconds
        # Other spellings of the header, which DRF accepts too, are not cached, because `forget`
        # finds an entry by the token at the end of the header.
        if found and seconds and header == f"{self.keyword} {found[1].key}":
            with _lock:
                _cache[type(self), tenant, header] = (monotonic() + seconds, *_copies(*found))
        return found


def _copies(user: Any, token: Any) -> tuple[Any, Any]:
    """Copies for one request, because changes to `request.user` must not leak into later ones."""
    user, token = copy(user), copy(token)
    token.user = user
    return user, token


def forget(*tokens: str) -> None:
    """Drop these tokens from this process's cache."""
    with _lock:
        for name in [name for name in _cache if name[2].rpartition(" ")[2] in tokens]:
            del _cache[name]


def _forget_token(instance: Any, created: bool = False, **_: Any) -> None:
    # A new token is not in the cache, which a site that makes many need not search for each.
    if not created:
        forget(instance.key)


def _forget_user(instance: Any, **_: Any) -> None:
    if token := Token.objects.filter(user=instance).first():
        forget(token.key)


def connect() -> None:
    """Drop tokens from the cache when they or their users change."""
    for signal in (post_save, post_delete):
        signal.connect(_forget_token, sender=Token, dispatch_uid="zndraw_joblib.token")
    post_save.connect(_forget_user, sender=get_user_model(), dispatch_uid="zndraw_joblib.user")


connect()
