"""The soak: clients under injected faults, and a checker that compares their logs with the rows.

``make soak`` runs the full profile; ``python -m tests.soak.run --profile ci`` a short one.
``--no-fence`` removes the guard against stale reports, so the checker must find anomalies.
The exit code is 0 without anomalies, 1 with anomalies, 3 when the run proves nothing.
It starts a PostgreSQL and a Valkey of its own, because it breaks them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from tests.servers import free_port
from tests.soak.checker import Files, Row, Verdict, check
from tests.soak.faults import Postgres, Proxy, Valkey
from tests.soak.log import Log


@dataclass(frozen=True)
class Profile:
    """Sizes of a soak, and the mean seconds between two faults of each kind (from `kill_worker`).

    `slow` is the share of tasks that take time, `proxy_rate` that of requests with a fault, `lease`
    is in seconds.
    """

    verb_tasks: int
    http_tasks: int
    verb_workers: int = 16
    verb_submitters: int = 2
    http_workers: int = 16
    http_submitters: int = 8
    servers: int = 2
    sweepers: int = 2
    lease: float = 2.0
    slow: float = 0.01
    proxy_rate: float = 0.015
    kill_worker: float = 0.6
    kill_sweeper: float = 2.0
    kill_server: float = 6.0
    stop_worker: float = 1.0
    restart_postgres: float = 30.0
    break_valkey: float = 10.0
    fence: bool = True


PROFILES = {
    "full": Profile(verb_tasks=100_000, http_tasks=5_000),
    "ci": Profile(
        verb_tasks=2_500,
        http_tasks=120,
        lease=1.0,
        slow=0.03,
        kill_worker=0.3,
        kill_server=2.0,
        stop_worker=0.5,
        restart_postgres=6.0,
        break_valkey=3.0,
    ),
    "control": Profile(
        verb_tasks=600,
        http_tasks=40,
        lease=1.0,
        slow=0.2,
        kill_worker=2.0,
        stop_worker=0.3,
        restart_postgres=60.0,
    ),
}


@dataclass
class Child:
    """A process of the load, which is started again when it is killed."""

    kind: str
    main: Callable[[str], Any]
    pid: int = 0
    lives: int = 0
    awake_at: float | None = None
    done: bool = field(default=False)


class Soak:
    """Starts the processes of the load, injects faults, and waits until all tasks have ended."""

    def __init__(self, profile: Profile, folder: Path, postgres: Postgres, valkey: Valkey) -> None:
        self.profile = profile
        self.folder = folder
        self.postgres = postgres
        self.valkey = valkey
        self.log = Log(folder, "supervisor")
        self.children: list[Child] = []

    # -- processes

    def fork(self, name: str, main: Callable[[str], Any]) -> int:
        """Run `main(name)` in a forked process; its output goes to the file `name`.out."""
        if pid := os.fork():
            return pid
        code = 1
        try:
            out = os.open(self.folder / f"{name}.out", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(out, 1)
            os.dup2(out, 2)
            random.seed()
            main(name)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def call(self, name: str, main: Callable[[str], Any]) -> None:
        """Run `main` in a forked process and wait for its end."""
        _, status = os.waitpid(self.fork(name, main), 0)
        if status:
            raise SystemExit((self.folder / f"{name}.out").read_text())

    def add(self, kind: str, main: Callable[[str], Any], number: int = 1) -> list[Child]:
        added = [Child(kind, main) for _ in range(number)]
        self.children += added
        for child in added:
            self.start(child)
        return added

    def start(self, child: Child) -> None:
        child.lives += 1
        number = self.children.index(child)
        child.pid = self.fork(f"{child.kind}-{number}-{child.lives}", child.main)
        child.awake_at = None

    def reap(self) -> None:
        """Restart processes that have ended; a submitter that ended by itself is done."""
        for child in self.children:
            if child.done or os.waitpid(child.pid, os.WNOHANG)[0] == 0:
                continue
            if child.kind.startswith("submitter"):
                child.done = True
            else:
                self.start(child)

    def kill(self, child: Child) -> None:
        self.log("fault", kind=f"kill {child.kind}")
        os.kill(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)

    def end(self, children: Iterable[Child]) -> None:
        """Kill processes without starting them again."""
        for child in children:
            if not child.done:
                os.kill(child.pid, signal.SIGKILL)
                os.waitpid(child.pid, 0)
                child.done = True

    def alive(self, prefix: str) -> list[Child]:
        return [c for c in self.children if c.kind.startswith(prefix) and not c.done]

    # -- faults

    def faults(self) -> dict[str, Callable[[], None]]:
        def kill(prefix: str) -> Callable[[], None]:
            def kill_one() -> None:
                if alive := self.alive(prefix):
                    victim = random.choice(alive)
                    self.kill(victim)
                    self.start(victim)

            return kill_one

        return {
            "kill_worker": kill("worker"),
            "kill_sweeper": kill("sweeper"),
            "kill_server": kill("server"),
            "stop_worker": self.stop_worker,
            "restart_postgres": self.restart_postgres,
            "break_valkey": self.break_valkey,
        }

    def stop_worker(self) -> None:
        victims = [child for child in self.alive("worker") if child.awake_at is None]
        if victims:
            victim = random.choice(victims)
            self.log("fault", kind="stop worker")
            os.kill(victim.pid, signal.SIGSTOP)
            victim.awake_at = time.monotonic() + random.uniform(0, 2 * self.profile.lease)

    def wake(self) -> None:
        now = time.monotonic()
        for child in self.alive("worker"):
            if child.awake_at is not None and child.awake_at <= now:
                os.kill(child.pid, signal.SIGCONT)
                child.awake_at = None

    def restart_postgres(self) -> None:
        self.log("fault", kind="restart postgres")
        self.postgres.restart()

    def break_valkey(self) -> None:
        if not self.valkey.runs:
            self.valkey.start()
        elif random.random() < 0.5:
            self.log("fault", kind="flush valkey")
            self.valkey.flush()
        else:
            self.log("fault", kind="stop valkey")
            self.valkey.stop()

    # -- the database, by connections of the supervisor

    def unfinished(self) -> int | None:
        """The number of tasks that have not ended; None while the database is unreachable."""
        try:
            with psycopg.connect(self.postgres.url, connect_timeout=2) as connection:
                row = connection.execute(
                    "SELECT count(*) FROM zndraw_joblib_task"
                    " WHERE status IN ('pending', 'claimed', 'running')"
                ).fetchone()
                assert row
                return int(row[0])
        except psycopg.Error:
            return None

    def rows(self) -> dict[str, Any]:
        with psycopg.connect(self.postgres.url) as connection:
            found = connection.execute(
                "SELECT id::text, payload::jsonb ->> 'marker', status, attempt, error,"
                " result::jsonb #>> '{}' FROM zndraw_joblib_task"
            )
            return {task_id: Row(*values) for task_id, *values in found}

    def files(self) -> Files:
        """The files of tasks as the database and the storage have them."""
        media = self.folder / "data" / "media"
        stored = {
            str(path.relative_to(media)): path.read_text()
            for path in media.rglob("*")
            if path.is_file()
        }
        with psycopg.connect(self.postgres.url) as connection:
            found = connection.execute(
                "SELECT path, task_id::text, attempt FROM zndraw_joblib_taskfile"
            ).fetchall()
            marked = connection.execute("SELECT path FROM zndraw_joblib_filetodelete").fetchall()
        known = {path for path, *_ in [*found, *marked]}
        rows = [(task_id, attempt, stored.get(path)) for path, task_id, attempt in found]
        return Files(rows, sorted(stored.keys() - known))

    # -- the run

    def inject_faults(self, until_left: int, limit: float = 900) -> None:
        """Inject faults until all submits are done and at most `until_left` tasks are unfinished.

        Fails after `limit` seconds.
        """
        faults = self.faults()
        due = {kind: time.monotonic() + getattr(self.profile, kind) for kind in faults}
        began = reported = time.monotonic()
        while True:
            time.sleep(0.02)
            self.reap()
            self.wake()
            now = time.monotonic()
            for kind, at in due.items():
                if at <= now:
                    faults[kind]()
                    due[kind] = now + random.expovariate(1 / getattr(self.profile, kind))
            if now - reported < 2:
                continue
            reported = now
            left = self.unfinished()
            print(f"{now - began:.0f} s, {left} unfinished", flush=True)
            if not self.alive("submitter") and left is not None and left <= until_left:
                return
            if now - began > limit:
                raise SystemExit(f"not done after {limit} s, {left} tasks unfinished")

    def run(self) -> None:
        """Run the load with faults; then kill all workers at work, wait for a lease and sweep."""
        from django.core.management import call_command

        from tests.soak import clients

        profile = self.profile
        self.call("migrate", lambda _: call_command("migrate", verbosity=0))
        self.call("user", lambda _: self.create_user())
        token = (self.folder / "token").read_text()
        interval = profile.lease / 4
        self.add(
            "sweeper",
            lambda _: call_command("run_sweeper", interval=interval),
            profile.sweepers,
        )

        def log(name: str) -> Any:
            return Log(self.folder, name)

        workers = self.add(
            "worker by verbs",
            lambda name: clients.VerbWorker(log(name)).run(),
            profile.verb_workers,
        )
        share = profile.verb_tasks // profile.verb_submitters
        self.add(
            "submitter by verbs",
            lambda name: clients.submit_by_verbs(log(name), share, profile.slow),
            profile.verb_submitters,
        )
        # The slow tasks that are left end during the load by HTTP.
        self.inject_faults(until_left=profile.verb_tasks // 100)
        self.end(workers[4:])
        ports = self.serve(log)
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        share = profile.http_tasks // profile.http_submitters

        def by_http(main: Callable[..., None], url: str, *rest: Any) -> Callable[[str], None]:
            """The function of a child that runs `main` against the server at this URL."""
            return lambda name: main(log(name), url, token, *rest)

        for number in range(max(profile.http_workers, profile.http_submitters)):
            url = urls[number % len(urls)]
            if number < profile.http_workers:
                self.add(
                    "worker by http",
                    by_http(clients.work_by_http, url),
                )
            if number < profile.http_submitters:
                self.add(
                    "submitter by http",
                    by_http(clients.submit_by_http, url, share, profile.slow),
                )
        self.inject_faults(until_left=0)
        self.end(child for child in self.children if child.kind != "sweeper")

        self.postgres.settle()
        for worker in workers:
            worker.done = False
            self.start(worker)
        self.call("last wave", lambda name: clients.submit_by_verbs(log(name), 100, 1.0))
        time.sleep(profile.lease / 2)
        self.end(self.children)
        time.sleep(profile.lease + 0.1)
        for number in range(2):
            self.call(f"last sweep {number}", lambda _: call_command("run_sweeper", once=True))

    def create_user(self) -> None:
        from rest_framework.authtoken.models import Token

        from example_project.accounts.models import User

        root = User.objects.create_superuser("root")
        (self.folder / "token").write_text(Token.objects.create(user=root).key)

    def serve(self, log: Callable[[str], Any]) -> list[int]:
        """Start the servers and a proxy in front of them; returns the ports of the proxy."""
        import uvicorn

        def run_uvicorn(port: int) -> Callable[[str], None]:
            application = "example_project.asgi:application"
            return lambda _: uvicorn.run(application, port=port, log_level="warning")

        targets = {free_port(): free_port() for _ in range(self.profile.servers)}
        for port in targets.values():
            self.add("server", run_uvicorn(port))
        self.add(
            "proxy",
            lambda name: asyncio.run(Proxy(log(name), self.profile.proxy_rate).serve(targets)),
        )
        return list(targets)


def events(folder: Path) -> Iterator[dict[str, Any]]:
    """The events in the logs of all processes."""
    for file in sorted(folder.glob("*.jsonl")):
        with file.open() as lines:
            yield from map(json.loads, lines)


def remove_fence() -> None:
    """Accept reports of any attempt, as the control of the checker."""
    from zndraw_joblib.storage.tasks import TaskManager

    move = TaskManager.move

    def unfenced(self: Any, reports: Any, identity: str | None = None) -> Any:
        moved = move(self, [report._replace(attempt=None) for report in reports], identity)
        # The reporting client compares attempts, so it must get the one of its report.
        attempts = {report.task_id: report.attempt for report in reports}
        return [task._replace(attempt=attempts[task.id]) for task in moved]

    TaskManager.move = unfenced


def main() -> int:
    """Run a profile and print the checker's verdict; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", choices=PROFILES, default="full")
    parser.add_argument("--verb-tasks", type=int, help="Instead of the profile's number.")
    parser.add_argument("--http-tasks", type=int, help="Instead of the profile's number.")
    parser.add_argument("--no-fence", action="store_true")
    parser.add_argument("--report", type=Path, help="Write the verdict to this Markdown file.")
    parser.add_argument(
        "--keep", type=Path, help="Keep the logs in this folder; by default they are removed."
    )
    options = parser.parse_args()
    overrides = {name: getattr(options, name) for name in ("verb_tasks", "http_tasks")}
    profile = replace(
        PROFILES[options.profile],
        fence=not options.no_fence,
        **{name: number for name, number in overrides.items() if number is not None},
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    began = time.monotonic()
    with ExitStack() as stack:
        # In memory where possible, because only processes crash here, not the machine.
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        folder = options.keep or Path(tempfile.mkdtemp(prefix="joblib-soak-", dir=memory))
        folder.mkdir(parents=True, exist_ok=True)
        if options.keep is None:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        os.environ.update(
            DJANGO_SETTINGS_MODULE="example_project.settings",
            DATA_DIR=str(folder / "data"),
            ZNDRAW_JOBLIB_WORKER_TIMEOUT_SECONDS=str(profile.lease),
            ZNDRAW_JOBLIB_HEARTBEAT_INTERVAL_SECONDS=str(profile.lease / 4),
            ZNDRAW_JOBLIB_TASK_MAX_RETRIES="5",
            ZNDRAW_JOBLIB_MAX_WORKERS_PER_IDENTITY="100000",
        )
        postgres, valkey = Postgres(folder / "postgres"), Valkey()
        stack.callback(postgres.stop)
        stack.callback(valkey.stop)
        os.environ.update(DATABASE_URL=postgres.url, REDIS_URL=valkey.url)
        import django

        django.setup()
        if not profile.fence:
            remove_fence()
        soak = Soak(profile, folder, postgres, valkey)

        stack.callback(soak.end, soak.children)
        soak.run()
        verdict = check(events(folder), soak.rows(), soak.files())
    text = describe(profile, verdict, time.monotonic() - began)
    print(text)
    if options.report:
        options.report.write_text(text)
    if verdict.void:
        return 3
    return 1 if verdict.anomalies else 0


def describe(profile: Profile, verdict: Verdict, seconds: float) -> str:
    """The verdict in Markdown."""
    if verdict.void:
        outcome = f"VOID: no {', no '.join(verdict.void)}."
    elif verdict.anomalies:
        outcome = f"ANOMALIES: {len(verdict.anomalies)}."
    else:
        outcome = (
            "OK: nothing lost, unexpected, duplicated, stale, held, misled, swapped or orphaned."
        )
    values = asdict(profile)
    lines = [
        "# A soak",
        "",
        f"{outcome} {seconds:.0f} s on {os.cpu_count()} cores, {datetime.now(UTC):%Y-%m-%d}.",
        "",
        "| event or outcome | number |",
        "|---|---|",
        *(f"| {kind} | {number:,} |" for kind, number in sorted(verdict.counts.items())),
        "",
        f"Profile: {', '.join(f'{name} {value}' for name, value in values.items())}.",
        *([""] if verdict.anomalies else []),
        *(f"- ANOMALY {anomaly}" for anomaly in verdict.anomalies[:20]),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
