"""Starts the recommended deployment from the files of docs/deploy: nginx, granian, uvicorn."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.deploy.programs import FILES, program, service
from tests.servers import free_port, process, until


def listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@dataclass
class Nginx:
    """A running nginx and the ports of the servers behind it."""

    url: str
    folder: Path
    wsgi: int
    asgi: int
    _skipped: int = 0
    _read: dict[tuple[str, str], int] = field(default_factory=dict)

    def served(self, method: str, path: str) -> list[str]:
        """The servers that nginx tried for the next request of this method and path, in order."""
        names = {f"127.0.0.1:{self.wsgi}": "granian", f"127.0.0.1:{self.asgi}": "uvicorn"}
        request = re.escape(f'"{method} {path} HTTP/1.1"')
        line = re.compile(rf"^.*{request} .* upstream=((?:[\d.]+:\d+(?:, )?)+) .*\n", re.M)
        # nginx writes the line after the response, so the log is read until it is there.
        start = self._read.get((method, path), self._skipped)
        found = until(lambda: line.search(self._log(), start), 5)
        self._read[method, path] = found.end()
        return [names[address] for address in found[1].split(", ")]

    def skip(self) -> None:
        """Ignore the requests so far."""
        self._skipped = len(self._log())
        self._read.clear()

    def _log(self) -> str:
        return (self.folder / "access.log").read_text()


@contextmanager
def nginx(wsgi: int, asgi: int) -> Iterator[Nginx]:
    """Run the system's nginx with the shipped files, on a free port and in a temporary folder."""
    binary = program("nginx", "nginx")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="joblib-nginx-") as name:
        folder = Path(name)
        # Readable for www-data, the user of nginx's workers.
        folder.chmod(0o755)
        shutil.copy(FILES / "nginx.conf", folder)
        upstreams = (FILES / "nginx-upstreams.conf").read_text()
        for shipped, ours in ((":8001", f":{wsgi}"), (":8002", f":{asgi}")):
            assert upstreams.count(shipped) == 2
            upstreams = upstreams.replace(shipped, ours)
        # Not in Debian's folders, because the tests may lack the permission to write there.
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
            upstreams += f"{kind}_temp_path {folder}/{kind};\n"
        (folder / "nginx-upstreams.conf").write_text(upstreams)
        site = (FILES / "nginx-site.conf").read_text()
        site = site.replace("\nlisten 80;", f"\nlisten 127.0.0.1:{port};")
        site = site.replace("/var/log/nginx/joblib.log", f"{folder}/access.log")
        (folder / "nginx-site.conf").write_text(site)
        command = [binary, "-p", name, "-c", f"{name}/nginx.conf", "-e", f"{name}/error.log"]
        command += ["-g", f"daemon off; pid {name}/nginx.pid;"]
        child = subprocess.Popen(command, env={"PATH": os.environ.get("PATH", "")})
        try:
            until(lambda: child.poll() is not None or listens(port), 10)
            assert child.poll() is None, (folder / "error.log").read_text()
            yield Nginx(f"http://127.0.0.1:{port}", folder, wsgi, asgi)
        finally:
            child.terminate()
            child.wait(10)


@dataclass(frozen=True)
class Site:
    """A running deployment: nginx and the two servers behind it."""

    nginx: Nginx
    granian: Any
    uvicorn: Any


@contextmanager
def site() -> Iterator[Site]:
    """Run the services by the commands of their unit files, on free ports."""
    wsgi, asgi = free_port(), free_port()
    with ExitStack() as stack:
        front = stack.enter_context(nginx(wsgi, asgi))
        # Granian waits 1 s, not 3.5 s, before it replaces a worker, which only shortens the test.
        granian = stack.enter_context(
            process(*service("joblib-wsgi", **{"8001": str(wsgi)}), GRANIAN_RESPAWN_INTERVAL="1")
        )
        uvicorn = stack.enter_context(
            process(*service("joblib-asgi", **{"8002": str(asgi), "125": "3"}))
        )
        for child, port in ((granian, wsgi), (uvicorn, asgi)):
            until(lambda child=child, port=port: child.poll() is not None or listens(port))
            assert child.poll() is None, child.log.read_text()
        yield Site(front, granian, uvicorn)
