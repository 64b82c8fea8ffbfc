"""A stand-in whose tasks change, are logged, cancelled and retried."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import httpx

from tests.client.stand_in import ENDED, NOW, Server, refusal, task


class LifeServer(Server):
    """Answers `GET tasks/{id}` with an ETag, unless `has_etags` is false, and 304 to a known one.

    `texts` has the log of each task in UTF-8, `attempts` the attempts.
    """

    def __init__(self):
        super().__init__()
        self.has_etags = True
        self.revisions, self.texts, self.attempts, self.headers = {}, {}, {}, []

    def change(self, task_id, status=None, **values):
        """Change a task, and wake the requests that wait for a change."""
        with self.changed:
            if status:
                self.tasks[task_id] = status
            self.values.setdefault(task_id, {}).update(values)
            self.revisions[task_id] = self.revisions.get(task_id, 1) + 1
            self.changed.notify_all()

    def write(self, task_id, text):
        with self.changed:
            self.texts[task_id] = self.texts.get(task_id, b"") + text.encode()
            self.changed.notify_all()

    def get(self, path, body, request):
        split = urlsplit(path)
        _, kind, task_id, *rest = split.path.split("/")
        if kind == "rooms":
            # As a server before events.
            return refusal("not-found", 404)
        if rest == ["attempts"]:
            return httpx.Response(200, json=self.attempts[task_id])
        if rest == ["log"]:
            offset = int(parse_qs(split.query)["offset"][0])
            waited = self.wait(request, lambda: len(self.texts.get(task_id, b"")) > offset, task_id)
            return httpx.Response(200, json=self.log(task_id, offset), headers=waited)
        self.headers.append(request.headers)
        if not self.has_etags or task_id in self.hidden:
            return super().get(path, body, request)
        known = request.headers.get("if-none-match")
        waited = self.wait(request, lambda: known != self.etag(task_id), task_id) if known else {}
        headers = {"ETag": self.etag(task_id), **waited}
        if known == self.etag(task_id):
            return httpx.Response(304, headers=headers)
        answer = super().get(path, body, request)
        answer.headers.update(headers)
        return answer

    def etag(self, task_id):
        return f'W/"{self.revisions.get(task_id, 1)}"'

    def log(self, task_id, offset):
        # Five bytes an answer, because the parts of a log must be put together.
        part = self.texts.get(task_id, b"")[offset : offset + 5]
        ended = self.tasks.get(task_id) in ENDED
        end = offset + len(part)
        return {"offset": offset, "text": part.decode(), "next_offset": end, "ended": ended}

    def wait(self, request, has_news, task_id):
        """Wait as the request prefers; returns the headers that say so."""
        prefer = request.headers.get("prefer")
        if not (prefer and self.honours_waits):
            return {}
        with self.changed:
            self.changed.wait_for(
                lambda: has_news() or self.tasks.get(task_id) in ENDED or self.released.is_set(),
                int(prefer.removeprefix("wait=")),
            )
        return {"Preference-Applied": prefer}

    def post(self, path, body, request):
        if path.endswith("/retry"):
            if self.tasks.get(path.split("/")[2]) not in ENDED:
                return refusal("invalid-task-transition")
            return httpx.Response(202, json=task("again", status="pending", retry_of="t1"))
        return super().post(path, body, request)


def attempt(number, **values):
    return {"attempt": number, "worker_id": "w", "claimed_at": NOW, **values}
