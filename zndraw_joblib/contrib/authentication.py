"""Token authentication that asks the database every few seconds instead of at every request.

A host names it in ``REST_FRAMEWORK["DEFAULT_AUTHENTICATION_CLASSES"]`` in place of DRF's own.
"""

from __future__ import annotations

from copy import copy
from threading import Lock
from time import monotonic
from typing import Any

from cachetools import LRUCache
from django.contrib.auth import get_user_model
from django.db.models import Model
from django.db.models.signals import post_delete, post_save
from rest_framework.authentication import TokenAuthentication
from rest_framework.authtoken.models import Token

from zndraw_joblib.settings import get_settings

#: Tokens that a process remembers.
MAX_TOKENS = 10_000

#: By the class that looked and the header: when that is too long ago, the user and the token.
_known: LRUCache[tuple[type, str], tuple[float, Any, Any]] = LRUCache(MAX_TOKENS)
_lock = Lock()


class CachedTokenAuthentication(TokenAuthentication):
    """DRF's tokens, remembered by each process for `token_cache_seconds`.

    A token that is revoked, or whose user is changed or deactivated, is refused within
    `token_cache_seconds`; at once in the process that did it by the model's `save` or `delete`.
    Refused tokens are not remembered, and permissions that a user was granted are read by each
    request that needs them.
    """

    def authenticate(self, request: Any) -> tuple[Any, Any] | None:
        """The user and the token, as remembered where they are."""
        header = request.META.get("HTTP_AUTHORIZATION")
        with _lock:
            known = _known.get((type(self), header))
        if known and monotonic() < known[0]:
            # What a request does to its user is not the next one's to see.
            user, token = _twin(known[1]), _twin(known[2])
            token.user = user
            return user, token
        found = super().authenticate(request)
        seconds = get_settings().token_cache_seconds
        # A header that is written otherwise may be right too, and is not remembered.
        if found and seconds and header == f"{self.keyword} {found[1].key}":
            user, token = map(_twin, found)
            with _lock:
                _known[type(self), header] = (monotonic() + seconds, user, token)
        return found


def forget(*tokens: str) -> None:
    """Ask the database for these tokens again."""
    with _lock:
        for name in [name for name in _known if name[1].rpartition(" ")[2] in tokens]:
            del _known[name]


def _twin(instance: Model) -> Any:
    """An instance with the same values, that knows no related ones yet."""
    return copy(instance)


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
