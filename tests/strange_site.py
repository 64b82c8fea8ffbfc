"""A site with few apps and unusual settings, for a process of its own: ``-m tests.strange_site``.

It has neither users in the database nor sessions, admin, middleware, templates, migrations of the
app or a channel layer. APPS names further apps, FOLDER is for its databases.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

_SQLITE = {"ENGINE": "django.db.backends.sqlite3", "ATOMIC_REQUESTS": True}
_FOLDER = os.environ.get("FOLDER", ".")
#: Django takes the names in capitals of this module as its settings.
SECRET_KEY = "strange"
ALLOWED_HOSTS = ["testserver"]
INSTALLED_APPS = [*filter(None, os.environ.get("APPS", "").split(",")), "zndraw_joblib"]
MIDDLEWARE: list[str] = []
ROOT_URLCONF = "tests.strange_urls"
DATABASES = {
    "default": {**_SQLITE, "NAME": f"{_FOLDER}/default"},
    "other": {**_SQLITE, "NAME": f"{_FOLDER}/other"},
}
MIGRATION_MODULES = {"zndraw_joblib": None}
CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
LOGGING_CONFIG = None
USE_I18N = False
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["tests.strange_site.Authentication"],
    "DEFAULT_VERSIONING_CLASS": "rest_framework.versioning.NamespaceVersioning",
    "ALLOWED_VERSIONS": ["v9"],
    "DEFAULT_VERSION": "v9",
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.TemplateHTMLRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.FormParser"],
    "DEFAULT_METADATA_CLASS": None,
    "DEFAULT_THROTTLE_RATES": None,
    "FORMAT_SUFFIX_KWARG": None,
    "UNAUTHENTICATED_USER": None,
    "UNAUTHENTICATED_TOKEN": None,
}
ZNDRAW_JOBLIB = {"is_admin": "tests.strange_site.is_admin"}


class Ada:
    """A user who is no model."""

    pk = "ada"
    is_authenticated = is_active = True


class Authentication:
    """Knows Ada by a header."""

    def authenticate(self, request: Any) -> Any:
        return (Ada(), None) if request.META.get("HTTP_X_USER") else None

    def authenticate_header(self, request: Any) -> None:
        """No challenge."""


def is_admin(request: Any) -> bool:
    return False


def main() -> None:
    """Serve requests of each kind; an assertion fails for a wrong answer."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.strange_site"
    import django

    django.setup()
    from django.core.management import call_command
    from django.test import AsyncClient, Client

    call_command("check")
    call_command("migrate", run_syncdb=True, verbosity=0)
    import zndraw_joblib.consumers  # noqa: F401  (without `django.contrib.auth`)

    v1, json_ = "/t/acme/v1/joblib", "application/json"
    client = Client(headers={"X-User": "ada"})
    refused = Client().get(f"{v1}/workers")
    assert (refused.status_code, "WWW-Authenticate" in refused) == (401, True)
    job = {"category": "modifiers", "name": "Rotate", "schema": {}}
    assert client.put(f"{v1}/rooms/a/jobs", job, json_).status_code == 201
    submit = f"{v1}/rooms/a/tasks/a:modifiers:Rotate"
    submitted = client.post(submit, {"payload": {}}, json_)
    assert submitted.status_code == 202, submitted.content
    assert client.get(submitted["Location"]).json()["status"] == "pending"
    task = client.post(f"{v1}/tasks/claim", {}, json_).json()["task"]
    report = {"status": "completed", "attempt": 1}
    client.patch(f"{v1}/tasks/{task['id']}", {"status": "running"}, json_)
    assert client.patch(f"{v1}/tasks/{task['id']}", report, json_).status_code == 200
    assert client.get(f"{v1}/tasks/none").json()["type"] == "/t/acme/v1/problems/task-not-found"
    assert client.options(f"{v1}/workers").status_code == 405

    async def wait() -> Any:
        headers = {"X-User": "ada", "Prefer": "wait=1"}
        return await AsyncClient().post(f"{v1}/tasks/claim", {}, json_, headers=headers)

    answer = asyncio.run(wait())
    assert (answer.status_code, answer["Preference-Applied"]) == (200, "wait=1"), answer.content


if __name__ == "__main__":
    main()
