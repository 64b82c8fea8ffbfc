"""What a soak proves: the clients' logs against the rows that the database ended with.

A log is lines of JSON; `t` is seconds on the machine's monotonic clock and `e` the event:

- ``submit`` (`m`, the task's marker) was sent; ``submitted`` (`m`, `id`) was answered.
- ``granted`` (`id`, `a`, its attempt) was answered.
- ``report`` (`r`, its number, `id`, `a`, `s`, the status) was sent; ``reported`` (`r`, `ok`) was
  answered. A report that the client repeats is another one, with `again`.
- ``waited`` (`id`, `s`): somebody who waited was told of this end.
- ``fault`` (`kind`): something was broken on purpose.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

ENDED = {"completed", "failed", "cancelled"}
HELD = {"claimed", "running"}


@dataclass(frozen=True)
class Row:
    """A task as the database ended with it."""

    marker: str
    status: str
    attempt: int
    error: str | None


@dataclass
class Verdict:
    """What the checker found; `anomalies` name each violation, `counts` what happened."""

    counts: Counter[str] = field(default_factory=Counter)
    anomalies: list[str] = field(default_factory=list)

    def wrong(self, kind: str, *about: object) -> None:
        self.counts[kind] += 1
        self.anomalies.append(f"{kind}: {' '.join(map(str, about))}")

    @property
    def void(self) -> list[str]:
        """What did not happen, so that the run proves nothing."""
        return [name for name in ("kills", "requeues", "refused") if not self.counts[name]]


def check(events: Iterable[Mapping[str, Any]], rows: Mapping[str, Row]) -> Verdict:
    """Compare what clients saw with what the database holds.

    Anomalies are *lost* (answered 202, not there), *unexpected* (there, and nobody asked for it,
    or ended without a cause), *duplicated* (two tasks of one submit, two grants of one attempt,
    two ends of one task), *stale* (an accepted report that is not the last attempt's), *held*
    (claimed or running at the end), *misled* (somebody who waited was told another end). What is
    *recovered* was done although its client never saw an answer.
    """
    verdict = Verdict()
    log = sorted(events, key=lambda event: event["t"])
    _check_submits(verdict, log, rows)
    _check_grants(verdict, log, rows)
    _check_reports(verdict, log, rows)
    for event in log:
        if event["e"] == "fault":
            verdict.counts[event["kind"]] += 1
        elif event["e"] == "waited":
            verdict.counts["waits"] += 1
            row = rows.get(event["id"])
            if row is None:
                verdict.wrong("lost", "waited for", event["id"], event["s"])
            elif row.status != event["s"]:
                verdict.wrong("misled", event["id"], event["s"])
    for task_id, row in rows.items():
        verdict.counts[row.status] += 1
        if row.status in HELD:
            verdict.wrong("held", task_id, row)
    verdict.counts["kills"] = sum(
        number for kind, number in verdict.counts.items() if kind.startswith("kill ")
    )
    return verdict


def _check_submits(verdict: Verdict, log: list[Any], rows: Mapping[str, Row]) -> None:
    made: dict[str, list[str]] = defaultdict(list)
    for task_id, row in rows.items():
        made[row.marker].append(task_id)
    sent = {event["m"] for event in log if event["e"] == "submit"}
    answered = [event for event in log if event["e"] == "submitted"]
    for event in answered:
        if event["id"] not in rows:
            verdict.wrong("lost", event["m"], event["id"])
    for marker, ids in made.items():
        if marker not in sent:
            verdict.wrong("unexpected", "nobody submitted", marker, ids)
        if len(ids) > 1:
            verdict.wrong("duplicated", marker, ids)
    seen = {event["m"] for event in answered}
    verdict.counts["submits"] = len(sent)
    verdict.counts["recovered"] += sum(marker not in seen for marker in made)


def _check_grants(verdict: Verdict, log: list[Any], rows: Mapping[str, Row]) -> None:
    granted: set[tuple[str, int]] = set()
    for event in log:
        if event["e"] != "granted":
            continue
        grant = (event["id"], event["a"])
        verdict.counts["grants"] += 1
        verdict.counts["requeues"] += event["a"] > 1
        if grant in granted:
            verdict.wrong("duplicated", "grant", *grant)
        granted.add(grant)
        row = rows.get(event["id"])
        if row and event["a"] > row.attempt:
            verdict.wrong("unexpected", "grant", *grant, row)


def _check_reports(verdict: Verdict, log: list[Any], rows: Mapping[str, Row]) -> None:
    sent = {event["r"]: event for event in log if event["e"] == "report"}
    answers = {event["r"]: event["ok"] for event in log if event["e"] == "reported"}
    latest: dict[str, int] = {}
    overtaken: dict[str, int] = {}
    for event in log:
        if event["e"] == "granted":
            latest[event["id"]] = max(event["a"], latest.get(event["id"], 0))
        elif event["e"] == "report":
            overtaken[event["r"]] = latest.get(event["id"], 0)
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
        if attempt is not None and attempt < overtaken[number]:
            verdict.wrong("stale", number, report, "was granted again before")
        if status in ENDED:
            ends[task_id].add((status, attempt))
            if row.status != status or attempt not in (None, row.attempt):
                verdict.wrong("stale", number, report, row)
    for task_id, found in ends.items():
        if len(found) > 1:
            verdict.wrong("duplicated", "ends", task_id, found)
    for task_id, row in rows.items():
        if row.status not in ENDED or task_id in ends:
            continue
        if causes[task_id] & {(row.status, row.attempt), (row.status, None)}:
            verdict.counts["recovered"] += 1
        elif row.status == "failed" and row.error and row.error.startswith("Worker '"):
            verdict.counts["timed out"] += 1
        else:
            verdict.wrong("unexpected", "ended without a cause", task_id, row)
