"""The addresses of `tests.strange_site`: the app below a namespace and a captured tenant."""

from __future__ import annotations

from django.urls import include, path

_versioned = ([path("", include("zndraw_joblib.api.urls"))], "v1")
urlpatterns = [path("t/<slug:tenant>/", include(_versioned))]
