"""Reports on tasks, and the sending of those that come together in one request."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from zndraw_joblib.client.api import (
    ATTEMPTS,
    ApiManager,
    away,
    backoff,
    path,
    retry_after,
    send,
    transient,
)
from zndraw_joblib.client.batches import array, cuts, encode
from zndraw_joblib.client.exceptions import (
    ApiError,
    ForbiddenError,
    InvalidTaskTransitionError,
    LeaseLostError,
    raise_for_problem,
)
from zndraw_joblib.client.schemas import ClaimedTask, TaskInfo
from zndraw_joblib.lifecycle import TaskStatus

logger = logging.getLogger(__name__)

#: Seconds for which a report is repeated after a stop, or from its making if that is later. A
#: server that is restarted answers its long polls first, and a lease lasts no longer by default.
GIVE_UP_SECONDS = 60.0

#: How a list of reports may be refused that the server would take one by one: it knows no lists,
#: takes shorter ones, or one of them is malformed or makes it fail.
_ALONE_THEN = {400, 404, 405, 413, 422, 500}

#: Refusals that say that the task is this worker's no more.
LOST = (LeaseLostError, ForbiddenError, InvalidTaskTransitionError)

#: What became of a report: the task, or the error that the report alone would have raised.
Outcome = TaskInfo | ApiError | httpx.TransportError


@dataclass(frozen=True)
class Report:
    """What is said of a task. Without `attempt` the caller's identity alone is the fence."""

    task_id: str
    status: TaskStatus
    attempt: int | None = None
    error: str | None = None

    @classmethod
    def on(
        cls, task: ClaimedTask | TaskInfo | str, status: TaskStatus, error: str | None = None
    ) -> Report:
        """On a task; only what a claim gave says which attempt it is of."""
        attempt = task.attempt if isinstance(task, ClaimedTask) else None
        return cls(task if isinstance(task, str) else task.id, status, attempt, error)

    @property
    def body(self) -> dict[str, Any]:
        """As it is sent."""
        fields = {"status": self.status, "attempt": self.attempt, "error": self.error}
        return {key: value for key, value in fields.items() if value is not None}


class _Entry:
    """A report on its way; a lasting one is repeated until it is delivered."""

    def __init__(self, report: Report, lasting: bool) -> None:
        self.lasting = lasting
        self.made_at = time.monotonic()
        self.url = path("tasks", report.task_id)
        self.alone = encode(report.body)
        self.listed = encode({"id": report.task_id, **report.body})
        self.attempts = 0
        self.error: ApiError | httpx.TransportError | None = None
        self.outcome: Outcome | None = None


class Reporter:
    """Sends reports, one request at a time.

    Who reports while nobody else does sends at once, so that a single thread never waits. What
    comes meanwhile waits together: it goes with the next attempt of the thread that sends, or one
    of the threads that wait sends it all. A report may be sent twice, because the server answers a
    repeated one like the first.
    """

    def __init__(self, api: ApiManager, batch_size: int) -> None:
        self._api = api
        self._batch_size = batch_size
        self._turn = threading.Condition()
        self._waiting: list[_Entry] = []
        self._sending = False
        self._stopped_at: float | None = None

    def stop(self) -> None:
        """Give lasting reports up when they cannot be delivered for `GIVE_UP_SECONDS`."""
        with self._turn:
            if self._stopped_at is None:
                self._stopped_at = time.monotonic()
            self._turn.notify_all()

    def resume(self) -> None:
        """Repeat lasting reports for ever again."""
        with self._turn:
            self._stopped_at = None

    def send(self, reports: Sequence[Report], *, lasting: bool = False) -> list[Outcome]:
        """Deliver reports; what became of each, in their order. Refusals are not raised.

        While the server is away lasting ones are repeated until it is back or they are given up,
        others up to `ATTEMPTS` times.
        """
        mine = [_Entry(report, lasting) for report in reports]
        with self._turn:
            self._waiting += mine
            self._turn.wait_for(lambda: not self._sending or not _unsettled(mine))
            sends = bool(_unsettled(mine))
            self._sending = self._sending or sends
        if sends:
            try:
                self._send_until_settled(mine)
            finally:
                with self._turn:
                    # Interrupted, a thread leaves the others' reports to the next.
                    self._waiting = [entry for entry in self._waiting if entry not in mine]
                    self._sending = False
                    self._turn.notify_all()
        return [entry.outcome for entry in mine if entry.outcome is not None]

    def _send_until_settled(self, mine: Sequence[_Entry]) -> None:
        attempt = 0
        while _unsettled(mine):
            if attempt:
                self._pause(attempt)
            attempt += 1
            with self._turn:
                batch, self._waiting = self._waiting, []
            try:
                self._deliver(batch)
            finally:
                with self._turn:
                    self._waiting[:0] = _unsettled(batch)
                    self._turn.notify_all()

    def _pause(self, attempt: int) -> None:
        """Wait for the next attempt, but no longer than until a report is given up."""
        with self._turn:
            failed = [entry.error for entry in self._waiting if entry.error is not None]
            seconds = max(map(retry_after, failed), default=0) or backoff(attempt)
            logger.warning("could not deliver %d reports: %s; trying again", len(failed), failed[0])
            ends = time.monotonic() + seconds
            while (left := min([ends, *map(self._ends, self._waiting)]) - time.monotonic()) > 0:
                self._turn.wait(left)

    def _ends(self, entry: _Entry) -> float:
        """When a report is given up; others than lasting ones are when their attempts are used."""
        stopped_at = self._stopped_at
        if not entry.lasting or stopped_at is None:
            return float("inf")
        return max(stopped_at, entry.made_at) + GIVE_UP_SECONDS

    def _settle(self, entry: _Entry, outcome: Outcome) -> None:
        """Note what an attempt brought, which is the outcome unless another is worth it."""
        entry.attempts += 1
        if isinstance(outcome, Exception) and self._again(entry, outcome):
            entry.error = outcome
        else:
            entry.outcome = outcome

    def _again(self, entry: _Entry, error: Exception) -> bool:
        if entry.lasting:
            return away(error) and time.monotonic() < self._ends(entry)
        return bool(transient(error)) and entry.attempts < ATTEMPTS

    def _deliver(self, entries: Sequence[_Entry]) -> None:
        """Make one attempt to deliver each."""
        encoded = [entry.listed for entry in entries]
        for cut in cuts(encoded, self._batch_size):
            batch = entries[cut]
            if len(batch) == 1:
                self._alone(batch[0])
                continue
            body = array(encoded[cut])
            try:
                answer = send(self._api, "PATCH", path("tasks"), body=body, retry_on=None)
            except (ApiError, httpx.TransportError) as error:
                for entry in batch:
                    if isinstance(error, ApiError) and error.status in _ALONE_THEN:
                        self._alone(entry)
                    else:
                        self._settle(entry, error)
            else:
                for entry, result in zip(batch, answer.json(), strict=True):
                    self._settle(entry, _outcome(result, answer))

    def _alone(self, entry: _Entry) -> None:
        try:
            answer = send(self._api, "PATCH", entry.url, body=entry.alone, retry_on=None)
        except (ApiError, httpx.TransportError) as error:
            self._settle(entry, error)
        else:
            self._settle(entry, TaskInfo.model_validate_json(answer.content))


def _unsettled(entries: Sequence[_Entry]) -> list[_Entry]:
    return [entry for entry in entries if entry.outcome is None]


def _outcome(result: dict[str, Any], answer: httpx.Response) -> Outcome:
    """One line of the answer to a list of reports."""
    if "task" in result:
        return TaskInfo.model_validate(result["task"])
    problem = result.get("problem", {})
    alone = httpx.Response(result["status"], json=problem, request=answer.request)
    try:
        raise_for_problem(alone)
    except ApiError as error:
        return error
    raise ValueError(f"neither a task nor a problem: {result}")
