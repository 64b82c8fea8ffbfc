"""The wheel's contents, its installation, and the package's public names and settings."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import zndraw_joblib
from tests.packaging.environments import make_environment
from zndraw_joblib.settings import JobLibSettings

ROOT = Path(__file__).parents[2]

PUBLIC = [
    "Job",
    "Worker",
    "Task",
    "WorkerJobLink",
    "TaskStatus",
    "ProblemException",
    "problem_exception_handler",
    "JobNotFound",
    "SchemaConflict",
    "InvalidCategory",
    "InvalidRoomId",
    "Forbidden",
    "WorkerNotFound",
    "TaskNotFound",
    "InvalidTaskTransition",
    "LeaseLost",
    "JobLibSettings",
    "get_settings",
    "JobManager",
    "TaskStream",
    "ClaimedTask",
    "ApiManager",
    "sweep",
    "submit",
    "asubmit",
    "wait_for",
    "await_for",
    "declare_job",
    "InvalidPayload",
    "TooManyPending",
    "IdempotencyKeyReused",
    "ValidationError",
]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_resolve(name):
    assert getattr(zndraw_joblib, name).__name__ == name


def test_a_misspelt_name_raises_an_attribute_error():
    with pytest.raises(AttributeError, match="JobManger"):
        _ = zndraw_joblib.JobManger  # type: ignore[attr-defined]


def test_importing_the_package_loads_neither_django_nor_httpx():
    code = "import sys, zndraw_joblib; print(*{'django', 'httpx', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_each_floor_imports_only_from_floors_below():
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_table_of_settings_agrees_with_the_code():
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| (.+) \|$", page, re.MULTILINE))
    assert rows == {
        name: f"{default_of(field)} | {field.description}"
        for name, field in JobLibSettings.model_fields.items()
    }, "correct the table in docs/reference/settings.md"


def default_of(field):
    """A setting's default in the form of the table."""
    default = field.default
    if isinstance(default, str):
        return f"`{default}`"
    return f"`{json.dumps(default)}`" if isinstance(default, list) else str(default)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", out, ROOT],
        check=True,
    )
    return next(out.glob("django_zndraw_joblib-*.whl"))


def clean_environment(**extra):
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("DJANGO", "PYTHON"))}
    return {**keep, **extra}


@pytest.mark.network
def test_the_wheel_contains_templates_static_files_and_migrations(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "zndraw_joblib/py.typed",
        "zndraw_joblib/migrations/0001_initial.py",
        "zndraw_joblib/templates/zndraw_joblib/problem.html",
        "zndraw_joblib/templates/admin/zndraw_joblib/confirm.html",
        "zndraw_joblib/static/zndraw_joblib/admin.css",
    } <= names
    assert not [name for name in names if name.startswith(("tests", "example_project"))]


URLS = """
from django.contrib import admin
from django.urls import include, path

urlpatterns = [path("admin/", admin.site.urls), path("", include("zndraw_joblib.api.urls"))]
"""
SETTINGS = """
INSTALLED_APPS += ["rest_framework", "channels", "zndraw_joblib"]
CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
"""


@pytest.mark.network
def test_a_new_project_migrates_and_passes_the_checks_with_the_wheel(wheel, tmp_path):
    python = make_environment(tmp_path / "venv", wheel)
    run = {"cwd": tmp_path, "env": clean_environment(), "check": True}
    subprocess.run([python, "-m", "django", "startproject", "site1", "."], **run)
    (tmp_path / "site1" / "urls.py").write_text(URLS)
    with (tmp_path / "site1" / "settings.py").open("a") as settings:
        settings.write(SETTINGS)
    subprocess.run([python, "manage.py", "migrate", "-v0"], **run)
    subprocess.run([python, "manage.py", "check", "--fail-level", "WARNING"], **run)
    swept = subprocess.run(
        [python, "manage.py", "run_sweeper", "--once"], **run, capture_output=True, text=True
    )
    assert "sweep requeued=0" in swept.stderr
    code = f"""
import django; django.setup()
from django.test import Client
client = Client(headers={{"host": "localhost"}})
assert client.get("/v1/problems/job-not-found").status_code == 200
assert client.get("/v1/me").status_code == 401
import zndraw_joblib
for name in {PUBLIC}: getattr(zndraw_joblib, name)
import zndraw_joblib.routing
"""
    run["env"] = clean_environment(
        DJANGO_SETTINGS_MODULE="site1.settings", PYTHONPATH=str(tmp_path)
    )
    subprocess.run([python, "-c", code], **run)


@pytest.mark.network
def test_the_sdk_of_the_wheel_imports_without_django(wheel, tmp_path, python_of_the_original):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = """
import importlib.util, sys
assert importlib.util.find_spec("django") is None
from zndraw_joblib import ApiManager, ClaimedTask, JobManager, TaskStatus, TaskStream
from zndraw_joblib import *
assert sys.modules["zndraw_joblib"].__file__.startswith(sys.argv[1])
assert not {"fastapi", "sqlalchemy"} & set(sys.modules)
"""
    environment = clean_environment(PYTHONPATH=str(tmp_path))
    command = [python_of_the_original, "-c", code, tmp_path]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
