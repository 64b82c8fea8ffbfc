"""Tasks that do nothing, from their submit to the last result: the SDK beside two task queues."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
from valkey import Valkey

from benchmarks.bench import Bench, median_figure, rounds
from benchmarks.report import Goal, Section, figures_are, median_of, per_second, table, times
from benchmarks.stack import queues
from benchmarks.stack.front import behind_nginx
from benchmarks.stack.ours import started
from benchmarks.stack.processes import serving
from tests.servers import until

OURS = "the SDK, `map`"
CELERY = "Celery, prefork, Redis as broker and result backend"
PROCRASTINATE = "procrastinate, the same PostgreSQL, without results"
WANTED = 1.2
#: The columns of CPU: the processes of one contender.
PARTS = ("client", "worker", "servers", "stores")


def measure(bench: Bench) -> Section:
    """Tasks a second and CPU of a task, with workers that run four tasks at once."""
    queues.ensure()
    site = bench.site("history", "sdk")
    broker = bench.redis()
    others = {
        CELERY: queues.celery(broker),
        PROCRASTINATE: queues.procrastinate(
            bench.postgres.url(bench.postgres.create("sdk-procrastinate"))
        ),
    }
    with ExitStack() as stack:
        wsgi, asgi = stack.enter_context(started(site.granian(), site.uvicorn()))
        front = stack.enter_context(behind_nginx(wsgi, asgi)) or asgi
        url = f"http://127.0.0.1:{front.port}"
        command = ["-m", "benchmarks.child.sdk", "worker", url, site.tokens[0]]
        worker = stack.enter_context(serving("sdk-worker", [sys.executable, *command], 0, site.env))
        until(lambda: "registered" in worker.log.read_text())
        database = _postmaster(bench)
        servers = [wsgi.process.pid, asgi.process.pid]
        servers += [child.pid for child in psutil.Process().children() if child.name() == "nginx"]
        ours = {
            "worker": [worker.process.pid],
            "servers": servers,
            "stores": [database, _pid_of(site.redis_url)],
        }
        contenders: dict[str, Callable[[int], dict[str, Any]]] = {
            OURS: lambda count: _with_cpu(
                ours,
                lambda: site.run_child("sdk", str(count), url, site.tokens[0]),
            )
        }
        for name, queue in others.items():
            parts = {
                "worker": [stack.enter_context(queue.work()).process.pid],
                "servers": [],
                "stores": [_pid_of(broker) if name == CELERY else database],
            }
            contenders[name] = lambda count, queue=queue, parts=parts: _with_cpu(  # type: ignore[misc]
                parts, lambda: queue.submit(count)
            )
        for run in contenders.values():
            run(100)  # The worker is ready when the last of these tasks has ended.
        count = bench.scale.sdk_tasks
        found = rounds(
            bench, {name: lambda run=run: run(count) for name, run in contenders.items()}
        )
    rates = {name: count / median_figure(results, "seconds") for name, results in found.items()}
    best = rates[CELERY]
    section = Section("From `map` to the last result: the SDK beside task queues")
    section.goals.append(
        Goal(
            f"SDK: {count:,} tasks that do nothing, from `map` to the last result, beside Celery",
            f"{WANTED} times Celery or more",
            per_second(rates[OURS]),
            per_second(best),
            times(rates[OURS] / best),
            rates[OURS] >= WANTED * best,
            median_of(bench.scale.rounds),
        )
    )
    section.body += [
        "The SDK's worker is `serve(concurrency=4, prefetch=100)`, its server the recommended "
        "deployment with one more process for waits; Celery has four processes that take 25 tasks "
        "ahead each, procrastinate four tasks at once. All run on the same cores, one after "
        "another. CPU is in microseconds for one task: of the client that submits and waits, the "
        "worker, the servers, and PostgreSQL or Valkey. "
        f"{figures_are(bench.scale.rounds)}.",
        table(
            ["", "tasks/s", "times Celery", "CPU of a task, us", *PARTS],
            (
                [
                    name,
                    per_second(rates[name]),
                    times(rates[name] / best),
                    *(
                        round(1e6 * median_figure(results, part) / count)
                        for part in ("all", *PARTS)
                    ),
                ]
                for name, results in found.items()
            ),
        ),
    ]
    return section


def _with_cpu(parts: dict[str, list[int]], run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run a client; adds the CPU seconds of each part and their sum, ``all``."""
    before = {part: _cpu(pids) for part, pids in parts.items()}
    figures = run()
    cpu = {part: _cpu(pids) - before[part] for part, pids in parts.items()}
    cpu["client"] = figures["cpu"]
    return {**figures, **cpu, "all": sum(cpu.values())}


def _cpu(pids: Sequence[int]) -> float:
    """CPU seconds of processes and their descendants, ended ones included."""
    total = 0.0
    for pid in pids:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += sum(process.cpu_times()[:4])
    return total


def _postmaster(bench: Bench) -> int:
    return int((Path(bench.postgres.socket_dir) / "postmaster.pid").read_text().split()[0])


def _pid_of(redis_url: str) -> int:
    with Valkey.from_url(redis_url) as client:
        return int(client.info("server")["process_id"])
