"""System checks of the classes that the app takes from the site's REST_FRAMEWORK."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, Tags, register
from rest_framework.settings import api_settings
from rest_framework.throttling import ScopedRateThrottle


@register(Tags.compatibility)
def check_rest_framework(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """E016, E017: the site's authenticators, permissions and throttles can be used."""
    messages: list[CheckMessage] = []
    drf: Any = api_settings
    uses: dict[str, Callable[[Any], None]] = {
        "DEFAULT_AUTHENTICATION_CLASSES": _make_each,
        "DEFAULT_PERMISSION_CLASSES": _make_each,
        "DEFAULT_THROTTLE_CLASSES": _make_each,
        "DEFAULT_THROTTLE_RATES": _parse_rates,
    }
    for name, use in uses.items():
        try:
            use(getattr(drf, name))
        except Exception as error:
            messages.append(
                Error(
                    f"{name} of REST_FRAMEWORK makes each request fail: {error!r}",
                    hint=f'Correct REST_FRAMEWORK["{name}"], or leave it out.',
                    id="zndraw_joblib.E017",
                )
            )
    if drf.DEFAULT_AUTHENTICATION_CLASSES in ((), []):
        messages.append(
            Error(
                "DEFAULT_AUTHENTICATION_CLASSES of REST_FRAMEWORK is empty, so the job server "
                "answers 401 to every request.",
                hint='Set REST_FRAMEWORK["DEFAULT_AUTHENTICATION_CLASSES"]. If a middleware '
                "authenticates, name a class whose authenticate() returns its user.",
                id="zndraw_joblib.E016",
            )
        )
    return messages


def _make_each(classes: Sequence[Any]) -> None:
    for cls in classes:
        cls()


def _parse_rates(rates: Mapping[str, str | None] | None) -> None:
    throttle: Any = ScopedRateThrottle()
    for scope, rate in (rates or {}).items():
        if scope.startswith("joblib_"):
            throttle.parse_rate(rate)
