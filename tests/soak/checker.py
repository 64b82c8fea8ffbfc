"""The checker of a soak: compares the clients' logs with the final rows of the database.

A log is lines of JSON; `t` is seconds on the machine's monotonic clock and `e` the event:

- ``submit`` (`m`, the task's marker): sent. ``submitted`` (`m`, `id`): answered.
- ``granted`` (`id`, `a`, the attempt): a claim was answered.
- ``report`` (`r`, its number, `id`, `a`, `s`, the status): sent; a completed task has the number as
  its result. ``reported`` (`r`, `ok`): answered. A client's repetition of a report has a number of
  its own, and `again`.
- ``upload`` (`r`, its number, `id`, `a`): a file was sent, with the number as its content; answered
  as a report.
- ``waited`` (`id`, `s`, `result`): a waiting client was answered with this end and result.
- ``fault`` (`kind`): a fault was injected.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ENDED = {"completed", "failed", "cancelled"}
HELD = {"claimed", "running"}


@dataclass(frozen=True)
class Row:
    """The final row of a task."""

    marker: str
    status: str
    attempt: int
    error: str | None
    result: Any = None


@dataclass(frozen=True)
class Files:
    """The files at the end.

    `rows` has the id of the task and the attempt of each, beside its content, or None where the
    storage has no such file. `orphans` are paths in the storage that no row of the database names.
    """

    rows: Sequence[tuple[str, int, str | None]] = ()
    orphans: Sequence[str] = ()


@dataclass
class Verdict:
    """The checker's result: a text for each anomaly, and counts of events and outcomes."""

    counts: Counter[str] = field(default_factory=Counter)
    anomalies: list[str] = field(default_factory=list)

    def add_anomaly(self, kind: str, *details: object) -> None:
        self.counts[kind] += 1
        self.anomalies.append(f"{kind}: {' '.join(map(str, details))}")

    @property
    def void(self) -> list[str]:
        """Names of the events whose absence makes the run prove nothing."""
        return [name for name in ("kills", "requeues", "refused") if not self.counts[name]]


def check(
    events: Iterable[Mapping[str, Any]], rows: Mapping[str, Row], files: Files | None = None
) -> Verdict:
    """Compare the events of the clients with the rows of the database.

    Anomalies are *lost* (a task answered with 202 has no row, or an uploaded file is missing though
    its attempt completed the task), *unexpected* (a row without a
    submit, or an end without a cause), *duplicated* (two tasks of one submit, two grants of one
    attempt, two ends of one task), *stale* (an accepted report of an earlier attempt), *held*
    (claimed or running at the end), *misled* (a waiting client was answered with another end or
    result), *swapped* (a task has a result that no report of its latest attempt sent, or an attempt
    has a file that it did not send) and *orphaned* (a file in the storage that no row names).
    A request counts as *recovered* if it took effect although its client got no response.
    """
    verdict = Verdict()
    log = sorted(events, key=lambda event: event["t"])
    _check_submits(verdict, log, rows)
    _check_grants(verdict, log, rows)
    _check_reports(verdict, log, rows)
    _check_files(verdict, log, rows, files or Files())
    for event in log:
        if event["e"] == "fault":
            verdict.counts[event["kind"]] += 1
        elif event["e"] == "waited":
            verdict.counts["waits"] += 1
            row = rows.get(event["id"])
            if row is None:
                verdict.add_anomaly("lost", "waited for", event["id"], event["s"])
            elif (row.status, row.result) != (event["s"], event.get("result")):
                verdict.add_anomaly("misled", event["id"], event["s"], event.get("result"), row)
    for task_id, row in rows.items():
        verdict.counts[row.status] += 1
        if row.status in HELD:
            verdict.add_anomaly("held", task_id, row)
    verdict.counts["kills"] = sum(
        number for kind, number in verdict.counts.items() if kind.startswith("kill ")
    )
    return verdict


def _check_submits(verdict: Verdict, log: list[Any], rows: Mapping[str, Row]) -> None:
    created: dict[str, list[str]] = defaultdict(list)
    for task_id, row in rows.items():
        created[row.marker].append(task_id)
    sent = {event["m"] for event in log if event["e"] == "submit"}
    answered = [event for event in log if event["e"] == "submitted"]
    for event in answered:
        if event["id"] not in rows:
            verdict.add_anomaly("lost", event["m"], event["id"])
    for marker, ids in created.items():
        if marker not in sent:
            verdict.add_anomaly("unexpected", "no submit", marker, ids)
        if len(ids) > 1:
            verdict.add_anomaly("duplicated", marker, ids)
    seen = {event["m"] for event in answered}
    verdict.counts["submits"] = len(sent)
    verdict.counts["recovered"] += sum(marker not in seen for marker in created)


def _check_files(verdict: Verdict, log: list[Any], rows: Mapping[str, Row], files: Files) -> None:
    uploads = {event["r"]: (event["id"], event["a"]) for event in log if event["e"] == "upload"}
    kept = set()
    for task_id, attempt, content in files.rows:
        kept.add((task_id, attempt))
        verdict.counts["files"] += 1
        if content is None:
            verdict.add_anomaly("lost", "file", task_id, attempt)
        elif uploads.get(content) != (task_id, attempt):
            verdict.add_anomaly("swapped", "file", task_id, attempt, content)
    for event in log:
        if event["e"] == "reported" and event["r"] in uploads and event["ok"]:
            task_id, attempt = uploads[event["r"]]
            row = rows.get(task_id)
            if row and (row.status, row.attempt) == ("completed", attempt):
                verdict.counts["files of ends"] += 1
                if (task_id, attempt) not in kept:
                    verdict.add_anomaly("lost", "file", task_id, attempt)
    for path in files.orphans:
        verdict.add_anomaly("orphaned", path)


def _check_grants(verdict: Verdict, log: list[Any], rows: Mapping[str, Row]) -> None:
    granted: set[tuple[str, int]] = set()
    for event in log:
        if event["e"] != "granted":
            continue
        grant = (event["id"], event["a"])
        verdict.counts["grants"] += 1
        verdict.counts["requeues"] += event["a"] > 1
        if grant in granted:
            verdict.add_anomaly("duplicated", "grant", *grant)
        granted.add(grant)
        row = rows.get(event["id"])
        if row and event["a"] > row.attempt:
            verdict.add_anomaly("unexpected", "grant", *grant, row)


def _check_reports(verdict: Verdict, log: list[Any], rows: Mapping[str, Row]) -> None:
    sent = {event["r"]: event for event in log if event["e"] == "report"}
    answers = {event["r"]: event["ok"] for event in log if event["e"] == "reported"}
    latest: dict[str, int] = {}
    #: The latest attempt that was granted when a report was sent, by the report's number.
    latest_at_report: dict[str, int] = {}
    for event in log:
        if event["e"] == "granted":
            latest[event["id"]] = max(event["a"], latest.get(event["id"], 0))
        elif event["e"] == "report":
            latest_at_report[event["r"]] = latest.get(event["id"], 0)
    causes: dict[str, set[tuple[str, int | None]]] = defaultdict(set)
    ends: dict[str, set[tuple[str, int | None]]] = defaultdict(set)
    for number, report in sent.items():
        task_id, attempt, status = report["id"], report["a"], report["s"]
        row, accepted = rows.get(task_id), answers.get(number)
        if status in ENDED and accepted is not False:
            causes[task_id].add((status, attempt))
        if accepted is False:
            verdict.counts["repeats refused" if report.get("again") else "refused"] += 1
        if not accepted or row is None:
            continue
        verdict.counts["accepted"] += 1
        if attempt is not None and attempt < latest_at_report[number]:
            verdict.add_anomaly("stale", number, report, "was granted again before")
        if status in ENDED:
            ends[task_id].add((status, attempt))
            if row.status != status or attempt not in (None, row.attempt):
                verdict.add_anomaly("stale", number, report, row)
    for task_id, row in rows.items():
        report = sent.get(row.result) if isinstance(row.result, str) else None
        origin = report and (report["id"], report["a"], report["s"], answers.get(row.result))
        accepted_from = [(task_id, row.attempt, "completed", ok) for ok in (True, None)]
        if row.status == "completed":
            verdict.counts["results"] += 1
            if origin not in accepted_from:
                verdict.add_anomaly("swapped", task_id, row, report)
        elif row.result is not None:
            verdict.add_anomaly("swapped", task_id, row, report)
    for task_id, found in ends.items():
        if len(found) > 1:
            verdict.add_anomaly("duplicated", "ends", task_id, found)
    for task_id, row in rows.items():
        if row.status not in ENDED or task_id in ends:
            continue
        if causes[task_id] & {(row.status, row.attempt), (row.status, None)}:
            verdict.counts["recovered"] += 1
        elif row.status == "failed" and row.error and row.error.startswith("Worker '"):
            verdict.counts["timed out"] += 1
        else:
            verdict.add_anomaly("unexpected", "ended without a cause", task_id, row)
