"""The example project with metrics, for processes of its own."""

from __future__ import annotations

from django.urls import include, path

from example_project import settings as example
from example_project.settings import *  # noqa: F403

INSTALLED_APPS = [*example.INSTALLED_APPS, "zndraw_joblib.contrib.metrics"]
ROOT_URLCONF = "tests.observed_site"


# A module of addresses too. Its views are imported when the first request needs them, because
# Django has loaded the models by then.
def __getattr__(name: str):
    if name != "urlpatterns":
        raise AttributeError(name)
    from zndraw_joblib.contrib.metrics.views import metrics

    return [path("metrics", metrics), path("", include("example_project.urls"))]
