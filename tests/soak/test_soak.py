"""The checker with small logs, and the soak's short profiles with and without the fence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import connection

from tests.soak.checker import Files, Row, check

ROOT = Path(__file__).parents[2]


def log(*events):
    return [{"t": number, **event} for number, event in enumerate(events)]


def submit(marker="m", task_id="x"):
    return {"e": "submit", "m": marker}, {"e": "submitted", "m": marker, "id": task_id}


def grant(attempt=1, task_id="x"):
    return {"e": "granted", "id": task_id, "a": attempt}


def report(number, status, attempt=1, ok=True, **extra):
    sent = {"e": "report", "r": number, "id": "x", "a": attempt, "s": status, **extra}
    answer = [] if ok is None else [{"e": "reported", "r": number, "ok": ok}]
    return sent, *answer


def row(attempt=1, status="completed", marker="m", error=None, result="2"):
    return Row(marker, status, attempt, error, result if status == "completed" else None)


CLEAN = log(*submit(), grant(), *report("1", "running"), *report("2", "completed"))


def kinds(events, rows):
    return {anomaly.partition(":")[0] for anomaly in check(events, rows).anomalies}


def test_the_checker_finds_no_anomaly_in_a_clean_log():
    verdict = check(CLEAN, {"x": row()})
    assert not verdict.anomalies
    assert verdict.counts["accepted"] == 2
    assert verdict.void == ["kills", "requeues", "refused"]


def test_a_run_with_kills_requeues_and_refusals_is_not_void():
    events = log(
        *submit(),
        grant(),
        {"e": "fault", "kind": "kill worker"},
        grant(2),
        *report("1", "running", ok=False),
        *report("2", "running", 2),
        *report("3", "completed", 2),
    )
    verdict = check(events, {"x": row(2, result="3")})
    assert (verdict.void, verdict.anomalies) == ([], [])


@pytest.mark.parametrize(
    ("events", "rows", "kind"),
    [
        (CLEAN, {}, "lost"),
        (log({"e": "waited", "id": "x", "s": "completed"}), {}, "lost"),
        (CLEAN, {"x": row(), "y": row(0, "pending", "nobody")}, "unexpected"),
        (CLEAN, {"x": row(), "y": row(0, "pending")}, "duplicated"),
        (log(*submit(), grant(), grant()), {"x": row(1, "pending")}, "duplicated"),
        (log(*submit(), grant(2)), {"x": row(1, "pending")}, "unexpected"),
        (log(*submit()), {"x": row()}, "unexpected"),
        (log(*submit(), grant()), {"x": row(1, "running")}, "held"),
        (CLEAN, {"x": row(2)}, "stale"),
        (CLEAN, {"x": row(1, "failed")}, "stale"),
        (
            log(*submit(), grant(), grant(2), *report("1", "running")),
            {"x": row(2, "pending")},
            "stale",
        ),
        ([*CLEAN, *log(*report("3", "failed"))], {"x": row()}, "duplicated"),
        ([*CLEAN, {"t": 9, "e": "waited", "id": "x", "s": "failed"}], {"x": row()}, "misled"),
        (
            [*CLEAN, {"t": 9, "e": "waited", "id": "x", "s": "completed", "result": "1"}],
            {"x": row()},
            "misled",
        ),
        (CLEAN, {"x": row(result=None)}, "swapped"),
        (CLEAN, {"x": row(result="1")}, "swapped"),
        (CLEAN, {"x": row(2)}, "swapped"),
        ([*CLEAN, *log(*report("3", "completed", ok=False))], {"x": row(result="3")}, "swapped"),
    ],
)
def test_the_checker_finds_each_anomaly(events, rows, kind):
    assert kind in kinds(events, rows)


UPLOAD = {"e": "upload", "r": "7", "id": "x", "a": 1}, {"e": "reported", "r": "7", "ok": True}


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (Files([("x", 1, "7")]), None),
        (Files(), "lost"),
        (Files([("x", 1, None)]), "lost"),
        (Files([("x", 1, "8")]), "swapped"),
        (Files([("x", 2, "7")]), "swapped"),
        (Files([("x", 1, "7")], ["aa/bb"]), "orphaned"),
    ],
)
def test_the_checker_compares_the_files_with_the_uploads(files, kind):
    verdict = check([*CLEAN, *log(*UPLOAD)], {"x": row()}, files)
    found = {anomaly.partition(":")[0] for anomaly in verdict.anomalies}
    assert found >= {kind} if kind else not found


def test_submits_and_ends_without_a_logged_response_count_as_recovered():
    events = log(
        {"e": "submit", "m": "m"},
        grant(),
        *report("1", "running"),
        *report("2", "completed", ok=None),
    )
    verdict = check(events, {"x": row()})
    assert not verdict.anomalies
    assert verdict.counts["recovered"] == 2


def test_an_end_by_a_sweep_counts_as_timed_out():
    verdict = check(log(*submit(), grant()), {"x": row(1, "failed", error="Worker 'w' timed out")})
    assert not verdict.anomalies
    assert verdict.counts["timed out"] == 1


def soak(*arguments):
    if connection.vendor != "postgresql":
        pytest.skip("runs once, in the pass on PostgreSQL")
    return subprocess.run(
        [sys.executable, "-m", "tests.soak.run", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_no_task_is_lost_while_processes_and_servers_are_killed():
    run = soak("--profile", "ci")
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-5000:]


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_without_the_fence_the_checker_finds_stale_reports():
    """Control of the test above."""
    run = soak("--profile", "control", "--no-fence")
    assert run.returncode == 1, run.stdout[-5000:] + run.stderr[-5000:]
    assert "ANOMALY stale" in run.stdout
