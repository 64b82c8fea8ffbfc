"""Addresses of the example project."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.views import LogoutView
from django.contrib.staticfiles.views import serve
from django.templatetags.static import static
from django.urls import include, path, re_path
from django.views.generic import RedirectView
from drf_spectacular.views import (
    SpectacularAPIView,
    SpectacularRedocView,
    SpectacularSwaggerView,
)

from example_project.accounts.views import SignIn, TokenView
from example_project.rooms import views as rooms

urlpatterns = [
    path("", include("zndraw_joblib.api.urls")),
    path("", rooms.first_page, name="first-page"),
    path("", include("zndraw_joblib.pages.urls")),
    path("sign-in/", SignIn.as_view(), name="sign-in"),
    path("sign-out/", LogoutView.as_view(), name="sign-out"),
    path("demo/worker/", rooms.worker_command, name="worker-command"),
    path("demo/<str:key>/", rooms.sign_in_by_link, name="sign-in-by-link"),
    path("v1/auth/token", TokenView.as_view(), name="token"),
    path("admin/", admin.site.urls),
    path("api/schema", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs", SpectacularSwaggerView.as_view(url_name="schema"), name="docs"),
    path("api/redoc", SpectacularRedocView.as_view(url_name="schema"), name="redoc"),
    # For the pages that name no icon, such as those of the admin.
    path("favicon.ico", RedirectView.as_view(url=static("example/icon.svg"))),
    # Served here, because the example runs without a web server in front.
    re_path(r"^static/(?P<path>.*)$", serve, {"insecure": True}),
]
