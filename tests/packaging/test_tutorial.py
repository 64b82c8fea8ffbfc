"""The tutorial runs as printed, and its site runs the code of the README and of the SDK's page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.packaging.code_blocks import ROOT, blocks
from tests.servers import free_port

TUTORIAL = ROOT / "docs" / "tutorial.md"
#: How the tutorial introduces a file, in the paragraph before its block.
FILE = re.compile(r"(Add at the end of|Replace|Write) `([\w/.]+)`")
#: The package is installed here already, and the environment is active.
SKIPPED = re.compile(r"^(python3 -m venv|pip install|\. \.venv/bin/activate).*\n", re.MULTILINE)


class Site:
    """The folder of the tutorial, and the address and token of its server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"http://127.0.0.1:{free_port()}"
        self.token = ""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        keep = {"HOME", "LANG", "TMPDIR"}
        self.environment = {k: v for k, v in os.environ.items() if k in keep}
        self.environment |= {"PATH": path, "PYTHONPATH": f"{folder}:{ROOT}"}
        # Leaves no processes of the tests' own databases behind.
        self.environment |= {"PYTHONDONTWRITEBYTECODE": "1"}

    def adapted(self, code: str) -> str:
        """Code with the address and the token of this site, without commands that install."""
        code = re.sub(r"http://127\.0\.0\.1:8000|https://example\.org", self.address, code)
        code = code.replace("<the token>", self.token).replace(
            'token="..."', f'token="{self.token}"'
        )
        return SKIPPED.sub("", code.replace("python3 -m venv .venv && ", ""))

    def shell(self, code: str, **variables: str) -> str:
        """Run a script, of which each command must succeed; returns its output."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.adapted(code)],
            cwd=self.folder,
            env=self.environment | variables,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def python(self, code: str) -> str:
        """Run a Python script; returns its output."""
        (self.folder / "script.py").write_text(self.adapted(code))
        return self.shell("python -W error script.py")

    @contextmanager
    def running(self, command: str) -> Iterator[None]:
        """Run a command that ends when it is interrupted."""
        child = subprocess.Popen(
            ["bash", "-c", f"exec env {self.adapted(command).strip()}"],
            cwd=self.folder,
            env=self.environment,
        )
        try:
            yield
            assert child.poll() is None, f"{command} ended by itself"
        finally:
            child.terminate()
            child.wait(20)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The tutorial up to its worker, which runs."""
    site = Site(tmp_path_factory.mktemp("tutorial"))
    make, prepare, sweeper, worker, *_ = blocks(TUTORIAL, "sh")
    # The folder exists, because the fixture made it.
    site.shell(make.code.replace("mkdir lab && cd lab\n", ""))
    for block in blocks(TUTORIAL, "python"):
        found = FILE.search(block.before.strip().rpartition("\n\n")[2])
        assert found, f"{block.place} names no file"
        with (site.folder / found[2]).open("a" if found[1].startswith("Add") else "w") as file:
            file.write(site.adapted(block.code))
    *commands, server = prepare.code.strip().splitlines()
    printed = site.shell("\n".join(commands))
    site.token = re.findall(r"\b[0-9a-f]{40}\b", printed)[-1]
    with ExitStack() as stack:
        stack.enter_context(site.running(f"{server} --port {site.address.rpartition(':')[2]}"))
        stack.enter_context(site.running(SKIPPED.sub("", sweeper.code)))
        stack.enter_context(site.running(SKIPPED.sub("", worker.code)))
        wait_for_job(site, "@global:analysis:Nap")
        yield site


def wait_for_job(site, name):
    """Wait until a worker has registered a job."""
    deadline = time.monotonic() + 30
    headers = {"Authorization": f"Token {site.token}"}
    while time.monotonic() < deadline:
        try:
            answer = httpx.get(f"{site.address}/v1/joblib/rooms/room_123/jobs", headers=headers)
        except httpx.TransportError:
            pass
        else:
            if name in answer.text:
                return
        time.sleep(0.1)
    raise AssertionError(f"{name} was not registered")


@pytest.mark.slow
def test_the_tutorial_ends_with_results(site):
    *_, submit, run = blocks(TUTORIAL, "sh")
    first, second = submit.code.split("curl")[1:]
    export = submit.code.partition("curl")[0]
    task = re.search('"id":"([^"]+)"', site.shell(f"{export}curl{first}"))[1]
    ended = site.shell(f"{export}curl{second}".replace("<the id>", task))
    assert '"status":"completed"' in ended
    assert "slept for 3 s" in ended
    printed = site.shell(run.code, TOKEN=site.token)
    assert "slept for 3 s" in printed
    assert "step 9" in printed


@contextmanager
def worker_of(site, page, name):
    """Run the worker that a page shows; yields the line that imports its names."""
    (code,) = [b.code for b in blocks(page, "python") if "manager.serve" in b.code]
    if "__main__" not in code:
        code = code.replace("manager.serve", 'if __name__ == "__main__":\n    manager.serve')
    (site.folder / f"{name}.py").write_text(site.adapted(code))
    with site.running(f"python {name}.py"):
        wait_for_job(site, "@global:modifiers:Rotate")
        yield f"from {name} import manager, Rotate\n"


@pytest.mark.slow
def test_the_code_of_the_readme_runs(site):
    page = ROOT / "README.md"
    first, _worker, submits = (b.code for b in blocks(page, "python") if b.reason is None)
    (http,) = (b.code for b in blocks(page, "sh") if b.reason is None)
    (site.folder / "results").mkdir(exist_ok=True)
    with worker_of(site, page, "readme_worker") as imports:
        printed = site.python(imports + first + submits.replace("range(360)", "range(9)"))
        assert "{'angle': 45.0}" in printed
        assert "step 9" in printed
        assert (site.folder / "results" / "rotated.xyz").read_bytes() == b"..."
        submit, wait = http.split("curl")[1:]
        task = re.search('"id":"([^"]+)"', site.shell(f"curl -s{submit}", TOKEN=site.token))[1]
        assert '"angle":45.0' in site.shell(f"curl -s{wait}", TOKEN=site.token, ID=task)


@pytest.mark.slow
def test_the_code_of_the_page_about_the_sdk_runs(site):
    page = ROOT / "docs" / "how-to" / "sdk.md"
    # Without the worker, which runs beside it, and the program that prints the changes of a room.
    apart = ("manager.serve", "sys.argv")
    code = "\n".join(
        block.code
        for block in blocks(page, "python")
        if not any(mark in block.code for mark in apart)
    )
    # The task may have completed by then, as the page says.
    code = code.replace(
        "again.cancel()", "with suppress(InvalidTaskTransitionError):\n    again.cancel()"
    )
    known = (
        "import logging\nfrom contextlib import suppress\n"
        "from zndraw_joblib.client import InvalidTaskTransitionError, TaskLogHandler\n"
    )
    with worker_of(site, page, "sdk_worker") as imports:
        site.python(imports + known + code.replace("range(360)", "range(9)"))
