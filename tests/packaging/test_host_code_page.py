"""The shop of docs/how-to/host-code.md runs as it is printed, and the plugin of pytest loads."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "host-code.md"
#: A block of code whose first line names its file.
FILE = re.compile(r"^```python\n# (shop/\w+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

SETTINGS = """
from example_project.settings import *

INSTALLED_APPS = [*INSTALLED_APPS, "shop.apps.ShopConfig"]
ROOT_URLCONF = "shop.urls"
DATABASES["default"]["TEST"] = {"NAME": ":memory:"}
"""


@pytest.fixture
def run(tmp_path):
    """A function that runs Python in a folder where the plugin of pytest is installed."""
    plugins = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    info = tmp_path / "plugin-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1\n")
    lines = [f"{name} = {path}" for name, path in plugins["pytest11"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[pytest11]", *lines]))
    # On SQLite, because the other database is that of the tests that are running.
    drop = ("DJANGO", "PYTEST", "DATABASE_URL", "REDIS_URL")
    environment = {name: v for name, v in os.environ.items() if not name.startswith(drop)}
    environment |= {"PYTHONPATH": f"{tmp_path}:{ROOT}", "DATA_DIR": str(tmp_path / "data")}

    def run(*arguments, **variables):
        done = subprocess.run(
            [sys.executable, "-W", "error::RuntimeWarning", "-m", *arguments],
            cwd=tmp_path,
            env=environment | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def test_the_shop_of_the_page_passes_its_own_tests(tmp_path, run):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "site_settings.py").write_text(SETTINGS)
    files = dict(FILE.findall(PAGE.read_text()))
    assert len(files) == 8
    for name, code in files.items():
        (tmp_path / name).write_text(code)
    # Without migrations, because the shop has none and the others take seconds.
    options = ["-q", "-c", "/dev/null", "--rootdir", ".", "--nomigrations"]
    tests = ["shop/tests.py", "shop/test_orders.py"]
    assert "3 passed" in run("pytest", *options, *tests, DJANGO_SETTINGS_MODULE="site_settings")


def test_the_plugin_does_not_import_django_before_a_fixture_is_used(tmp_path, run):
    (tmp_path / "test_plain.py").write_text(
        """
import sys

def test_plain():
    assert "zndraw_joblib.pytest_plugin" in sys.modules
    assert "django" not in sys.modules
"""
    )
    # Without the plugins of this project's tests, some of which import Django.
    others = ("django", "schemathesis", "hypothesispytest", "asyncio")
    pytest_here = ["pytest", "-q", "-c", "/dev/null", "--rootdir", ".", "-Werror"]
    pytest_here += [f"-pno:{name}" for name in others]
    assert "1 passed" in run(*pytest_here, "test_plain.py")
    fixtures = run(*pytest_here, "--fixtures", "test_plain.py")
    assert "joblib_run_pending" in fixtures
    assert "joblib_assert_submitted" in fixtures
