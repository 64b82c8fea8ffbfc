"""Reports on tasks, and the sending of those that come together in one request."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from zndraw_joblib.client.api import ApiManager, path, send
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

#: How a list of reports may be refused that the server would take one by one: it knows no lists,
#: takes shorter ones, or one of them is malformed.
_ALONE_THEN = {400, 404, 405, 413, 422}

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
    """A report on its way."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.outcome: Outcome | None = None


class Reporter:
    """Sends reports, one request at a time.

    Who reports while no request is under way sends at once, so that a single thread never waits.
    What comes meanwhile waits together, and one of the threads that wait sends it all. A report
    may be sent twice, because the server answers a repeated one like the first.
    """

    def __init__(self, api: ApiManager, batch_size: int) -> None:
        self._api = api
        self._batch_size = batch_size
        self._turn = threading.Condition()
        self._waiting: list[_Entry] = []
        self._sending = False

    def send(self, reports: Sequence[Report]) -> list[Outcome]:
        """Deliver reports; what became of each, in their order. Refusals are not raised."""
        mine = [_Entry(report) for report in reports]
        with self._turn:
            self._waiting += mine
            self._turn.wait_for(
                lambda: not self._sending or all(entry.outcome is not None for entry in mine)
            )
            batch: list[_Entry] = []
            if any(entry.outcome is None for entry in mine):
                batch, self._waiting, self._sending = self._waiting, [], True
        if batch:
            try:
                self._deliver(batch)
            finally:
                with self._turn:
                    # Interrupted, a thread leaves the others' reports to the next.
                    self._waiting[:0] = [
                        entry for entry in batch if entry.outcome is None and entry not in mine
                    ]
                    self._sending = False
                    self._turn.notify_all()
        return [entry.outcome for entry in mine if entry.outcome is not None]

    def _deliver(self, entries: Sequence[_Entry]) -> None:
        encoded = [encode({"id": e.report.task_id, **e.report.body}) for e in entries]
        for cut in cuts(encoded, self._batch_size):
            batch = entries[cut]
            if len(batch) == 1:
                self._alone(batch[0])
                continue
            try:
                answer = send(self._api, "PATCH", path("tasks"), body=array(encoded[cut]))
            except ApiError as error:
                for entry in batch:
                    if error.status in _ALONE_THEN:
                        self._alone(entry)
                    else:
                        entry.outcome = error
            except httpx.TransportError as error:
                for entry in batch:
                    entry.outcome = error
            else:
                for entry, result in zip(batch, answer.json(), strict=True):
                    entry.outcome = _outcome(result, answer)

    def _alone(self, entry: _Entry) -> None:
        url = path("tasks", entry.report.task_id)
        try:
            answer = send(self._api, "PATCH", url, body=encode(entry.report.body))
            entry.outcome = TaskInfo.model_validate_json(answer.content)
        except (ApiError, httpx.TransportError) as error:
            entry.outcome = error


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
