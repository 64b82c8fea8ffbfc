"""Each block of Python and of a shell in the documentation is run, or says why it is not.

The blocks of a page in Python are run from top to bottom in one namespace, in which the settings
and the modules of a site are defined. Pages in `RUN_ELSEWHERE` have a test of their own.
"""

from __future__ import annotations

import ast
import copy
import re
import shlex
import subprocess
import sys
from types import ModuleType
from unittest.mock import MagicMock

import pytest
from django.core.management import call_command, get_commands

from tests.packaging.code_blocks import PAGES, ROOT, Block, blocks

pytestmark = pytest.mark.any_database

#: The test that runs the blocks of a page.
RUN_ELSEWHERE = {
    "README.md": "tests/packaging/test_tutorial.py",
    "docs/how-to/sdk.md": "tests/packaging/test_tutorial.py",
    "docs/tutorial.md": "tests/packaging/test_tutorial.py",
    "docs/how-to/host-code.md": "tests/packaging/test_host_code_page.py",
}
HERE = [page for page in PAGES if str(page.relative_to(ROOT)) not in RUN_ELSEWHERE]
FENCED = re.compile(r"^ *```(\w*)\n(?:(?!^ *```).*\n)*^ *```$", re.MULTILINE)
PYTHON = [page for page in HERE if blocks(page, "python")]
SHELL = [block for page in PAGES for block in blocks(page, "sh", "bash", "console")]


def site_namespace() -> dict[str, object]:
    """Names that a site's settings.py, urls.py and asgi.py have before a block changes them."""
    from example_project import settings

    code = """
import logging
from contextlib import contextmanager
import numpy
from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.db import connection
from django.urls import include, path
from zndraw_joblib.client import Api, TaskLogHandler
from zndraw_joblib.models import Task
from zndraw_joblib.routing import websocket_urlpatterns
urlpatterns = []
"""
    namespace: dict[str, object] = {"__name__": "mysite.page"}
    exec(code, namespace)
    values = {name: value for name, value in vars(settings).items() if name.isupper()}
    return namespace | copy.deepcopy(values)


@pytest.fixture
def _site_modules(monkeypatch):
    """Modules of a site that pages import."""
    models = ModuleType("mysite.models")
    models.Room = MagicMock()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mysite", ModuleType("mysite"))
    monkeypatch.setitem(sys.modules, "mysite.models", models)


@pytest.mark.django_db
@pytest.mark.usefixtures("_site_modules")
@pytest.mark.parametrize("page", PYTHON, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_python_of_a_page_runs(page):
    namespace = site_namespace()
    for block in blocks(page, "python"):
        compiled = compile(block.code, block.place, "exec", dont_inherit=True)
        if block.reason is None:
            exec(compiled, namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_names_that_a_block_imports_from_the_package_exist(page):
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block.code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("zndraw_joblib"):
                names = ", ".join(alias.name for alias in node.names)
                exec(f"from {node.module} import {names}", {})


@pytest.mark.django_db
@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.place)
def test_a_block_of_a_shell_is_run_or_says_why_not(block):
    code = re.sub(r"<the \w+>", "x", block.code)
    code = code.replace("$ ", "", 1) if block.language == "console" else code
    checked = subprocess.run(["bash", "-n"], input=code, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert unknown_commands(code) == set()
    if block.reason or str(block.page.relative_to(ROOT)) in RUN_ELSEWHERE:
        return
    for line in code.strip().splitlines():
        command = shlex.split(line, comments=True)
        # The packages are installed already, with the extras of the project.
        if command[:2] == ["pip", "install"]:
            continue
        assert command[:2] == ["python", "manage.py"], f"{block.place}: mark it as not run"
        call_command(*command[2:])


def unknown_commands(code: str) -> set[str]:
    """Targets of make and commands of manage.py that do not exist."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    return {
        *(set(re.findall(r"^\s*make ([a-z-]+)", code, re.MULTILINE)) - targets),
        *(set(re.findall(r"manage\.py ([a-z_]+)", code)) - set(get_commands())),
    }


def test_mistakes_in_blocks_are_noticed(tmp_path):
    """Control of the tests above."""
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- not run: needs a server -->\n```python\nf(\n```\n\n```sh\nmake nothing\n"
        "python manage.py sweep_all\n```\n"
    )
    python, shell = blocks(page)
    assert (python.reason, shell.reason, shell.language) == ("needs a server", None, "sh")
    with pytest.raises(SyntaxError):
        compile(python.code, "page.md", "exec")
    assert unknown_commands(shell.code) == {"nothing", "sweep_all"}


def test_every_block_has_a_known_language():
    known = {"python", "sh", "bash", "console", "sql", "nginx", "ini", "json", "js", "yaml"}
    known |= {"html", "css", "text"}
    fences = [
        (page.name, language)
        for page in PAGES
        for language in re.findall(
            r"^ *```(\w*)\n(?:(?!^ *```).*\n)*^ *```$", page.read_text(), re.M
        )
    ]
    assert {fence for fence in fences if fence[1] not in known} == set()
    read: list[Block] = [block for page in PAGES for block in blocks(page)]
    assert len(read) == len(fences), "a block is indented, or its fence is not closed"
