"""A small host with drf-spectacular's defaults: ``python -m tests.small_host [own] COMMAND``.

With `own` it has a view whose serializer has enums named `status`, as two of this app's fields are.
"""

from __future__ import annotations

import sys
from typing import Any

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="x",
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=[
        "django.contrib.contenttypes",
        "django.contrib.auth",
        "rest_framework",
        "drf_spectacular",
        "zndraw_joblib",
    ],
    REST_FRAMEWORK={"DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema"},
)
django.setup()

from django.core.management import execute_from_command_line  # noqa: E402
from django.urls import include, path  # noqa: E402
from rest_framework import serializers  # noqa: E402
from rest_framework.generics import CreateAPIView  # noqa: E402


class OrderSerializer(serializers.Serializer[dict[str, str]]):
    """An order of the host."""

    status = serializers.ChoiceField(choices=["open", "paid"])


class InvoiceSerializer(serializers.Serializer[dict[str, str]]):
    """An invoice of the host, with the same statuses as an order."""

    status = serializers.ChoiceField(choices=["open", "paid"])


class OrderView(CreateAPIView[dict[str, str]]):  # type: ignore[type-var]
    """Orders."""

    serializer_class = OrderSerializer


class InvoiceView(CreateAPIView[dict[str, str]]):  # type: ignore[type-var]
    """Invoices."""

    serializer_class = InvoiceSerializer


urlpatterns: list[Any] = [path("", include("zndraw_joblib.api.urls"))]

if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[0] == "own":
        del arguments[0]
        urlpatterns += [
            path("orders/", OrderView.as_view()),
            path("invoices/", InvoiceView.as_view()),
        ]
    execute_from_command_line(["manage.py", *arguments])
