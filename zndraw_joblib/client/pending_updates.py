"""The progress and the log text of a task that wait to be sent."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from zndraw_joblib.client.batches import encode
from zndraw_joblib.client.tasks import ClaimedTask
from zndraw_joblib.lifecycle import TaskStatus

#: Most characters of log text that wait to be sent, for one task.
MAX_LOG_BUFFER = 524_288
#: Most characters of one request. Each has six bytes of JSON at most, and the server accepts 1 MiB.
MAX_LOG_TEXT = 131_072


class PendingUpdates:
    """The updates of one attempt that wait to be sent."""

    def __init__(self, task: ClaimedTask) -> None:
        self.task = task
        self.fraction: float | None = None
        self.message: str | None = None
        self.has_progress = False
        self.sent: tuple[float | None, str | None] = (None, None)
        self.lines: deque[str] = deque()
        self.size = 0
        self.dropped = 0
        # Whether the code of the task has ended, so that nothing more follows.
        self.ending = False
        self.in_flight = False
        self.takes_progress = self.takes_log = True

    @property
    def pending(self) -> bool:
        """Whether something waits to be sent."""
        return self.has_progress or bool(self.lines)

    def add(self, text: str) -> None:
        """Append text; the front is dropped beyond `MAX_LOG_BUFFER` characters."""
        self.lines.append(text)
        self.size += len(text)
        self._drop_front()

    def _drop_front(self) -> None:
        while (excess := self.size - MAX_LOG_BUFFER) > 0:
            first = self.lines.popleft()
            if len(first) > excess:
                self.lines.appendleft(first[excess:])
            cut = min(len(first), excess)
            self.size -= cut
            self.dropped += cut

    def take_progress(self) -> bytes | None:
        """The fields of the latest progress; None if it was sent."""
        # Cleared before the values are read, because `progress` sets them before it reads this.
        self.has_progress = False
        values = self.fraction, self.message
        if values == self.sent:
            return None
        self.sent = values
        fields = {"progress": values[0], "message": values[1]}
        given = {key: value for key, value in fields.items() if value is not None}
        return encode({"status": TaskStatus.RUNNING, "attempt": self.task.attempt, **given})

    def take_text(self) -> str:
        """Text for one request, with a remark in place of the text that was dropped."""
        parts: list[str] = []
        size = 0
        while self.lines and size + len(self.lines[0]) <= MAX_LOG_TEXT:
            parts.append(self.lines.popleft())
            size += len(parts[-1])
        if self.lines and not parts:
            parts.append(self.lines[0][:MAX_LOG_TEXT])
            self.lines[0] = self.lines[0][MAX_LOG_TEXT:]
            size = MAX_LOG_TEXT
        self.size -= size
        if self.dropped and parts:
            parts.insert(0, f"[{self.dropped} characters of the log were dropped here]\n")
            self.dropped = 0
        return "".join(parts)

    def put_back(self, taken: Taken) -> None:
        """Let updates wait again that were not sent."""
        if taken.progress is not None:
            self.has_progress, self.sent = True, (None, None)
        if taken.text:
            self.lines.appendleft(taken.text)
            self.size += len(taken.text)
            self._drop_front()

    def refuse_progress(self) -> None:
        """Drop progress, also later one."""
        self.takes_progress = self.has_progress = False

    def refuse_log(self) -> None:
        """Drop log text, also later one."""
        self.takes_log = False
        self.lines.clear()
        self.size = 0


class Taken(NamedTuple):
    """Updates on their way: the fields of the progress as JSON, or None, and the log's text."""

    updates: PendingUpdates
    progress: bytes | None
    text: str
