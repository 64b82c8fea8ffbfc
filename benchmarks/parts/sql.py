"""Plain SQL by psycopg on the same table: the upper bound of what a server can reach."""

from __future__ import annotations

import threading
import time
from statistics import median
from typing import Any, LiteralString

import psycopg

from benchmarks.bench import Bench
from benchmarks.report import Section, figures_are, per_second, table

CONNECTIONS = 2
BATCH = 100

_SUBMIT: LiteralString = """
    INSERT INTO zndraw_joblib_task (id, job_id, room_id, created_by, payload, status, attempt,
                                    retries_left, worker_identity)
    SELECT uuidv7(), %s, 'bench', 'bench', '{}', 'pending', 0, 0, ''
    FROM generate_series(1, %s)"""
_CLAIM: LiteralString = """
    WITH picked AS MATERIALIZED (
        SELECT id FROM zndraw_joblib_task WHERE job_id = %s AND status = 'pending'
        ORDER BY created_at, id LIMIT %s FOR UPDATE SKIP LOCKED
    )
    UPDATE zndraw_joblib_task task
    SET status = 'claimed', attempt = attempt + 1, worker_id = 'bench',
        lease_expires_at = statement_timestamp() + interval '1 minute'
    FROM picked WHERE task.id = picked.id RETURNING task.id"""
_START: LiteralString = """
    UPDATE zndraw_joblib_task SET status = 'running', started_at = statement_timestamp()
    WHERE id = ANY(%s) AND status = 'claimed'"""
_FINISH: LiteralString = """
    UPDATE zndraw_joblib_task
    SET status = 'completed', completed_at = statement_timestamp(), lease_expires_at = NULL
    WHERE id = ANY(%s) AND status = 'running'"""


def measure(bench: Bench) -> Section:
    """Cycles of four statements a second, with one task or a hundred in a statement."""
    bench.postgres.clone(bench.template("history"), "sql")
    url = bench.postgres.url("sql")
    rows = []
    for size in (1, BATCH):
        rates = [_rate(url, size, bench.scale.seconds) for _ in range(bench.scale.rounds)]
        rows.append([size, per_second(median(rates))])
    section = Section("Plain SQL, for orientation")
    section.body += [
        f"psycopg without any server in front, {CONNECTIONS} connections in threads of one "
        "process, each statement its own transaction: submit, claim, running, completed. "
        f"{figures_are(bench.scale.rounds)}.",
        table(["tasks in a statement", "cycles/s"], rows),
    ]
    return section


def _rate(url: str, size: int, seconds: float) -> float:
    end = time.perf_counter() + seconds
    counts = [0] * CONNECTIONS
    threads = [
        threading.Thread(target=_loop, args=(url, size, end, counts, number))
        for number in range(CONNECTIONS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def _loop(url: str, size: int, end: float, counts: list[int], number: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        run: Any = connection.execute
        name = f"Job{number:03}"
        (job,) = run("SELECT id FROM zndraw_joblib_job WHERE name = %s", [name]).fetchone()
        while time.perf_counter() < end:
            run(_SUBMIT, [job, size])
            ids = [row[0] for row in run(_CLAIM, [job, size]).fetchall()]
            run(_START, [ids])
            run(_FINISH, [ids])
            counts[number] += len(ids)
