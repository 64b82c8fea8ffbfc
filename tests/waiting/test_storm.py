"""1,000 long polls on one server while Valkey is stopped, flushed and started again."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import connection

from tests.factories import V1
from tests.servers import server, until
from tests.soak.faults import Valkey
from zndraw_joblib.models import Job, Task

pytestmark = pytest.mark.django_db(transaction=True)

POLLS = 1000
WAIT = 30
#: Database connections that the server may have at most; the example project's pool has fewer.
MAX_CONNECTIONS = 10
#: The server's `application_name` in PostgreSQL.
NAME = "joblib-storm"


@dataclass
class Poll:
    """A long poll: the times of its request and response, and the response."""

    task_id: str
    sent: float = 0.0
    answered: float = 0.0
    status: int = 0
    applied: bool = False
    task: Any = None

    async def send(self, port: int, token: str) -> None:
        self.sent = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = (
            f"GET {V1}/tasks/{self.task_id} HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Token {token}\r\nPrefer: wait={WAIT}\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode())
        answer = await reader.read()
        self.answered = time.monotonic()
        writer.close()
        start, _, body = answer.partition(b"\r\n\r\n")
        self.status = int(start.split()[1])
        self.applied = b"preference-applied" in start.lower()
        self.task = json.loads(body)


def poll_all(polls: list[Poll], port: int, token: str) -> threading.Thread:
    """Send all polls at once from a new thread."""

    async def send_all() -> None:
        await asyncio.gather(*(poll.send(port, token) for poll in polls))

    thread = threading.Thread(target=lambda: asyncio.run(send_all()))
    thread.start()
    return thread


def connections() -> int:
    """The number of the server's database connections."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [NAME])
        return cursor.fetchone()[0]


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_every_waiter_is_answered_in_time_while_valkey_is_stopped_and_flushed(bob):
    if connection.vendor != "postgresql":
        pytest.skip("runs once, on PostgreSQL")
    bob.register()
    job = Job.objects.get()
    ids = [str(job.enqueue("open", {}, bob.identity, 0).id) for _ in range(POLLS)]
    polls = [Poll(task_id) for task_id in ids]
    most = 0

    def end(part: list[str], seconds: float) -> None:
        """Cancel these tasks, a tenth at a time, and count the connections meanwhile."""
        nonlocal most
        step = max(1, len(part) // 10)
        for start in range(0, len(part), step):
            Task.objects.filter(pk__in=part[start : start + step]).cancel()
            time.sleep(seconds / 10)
            most = max(most, connections())

    valkey = Valkey()
    try:
        with server(REDIS_URL=valkey.url, PGAPPNAME=NAME) as url:
            thread = poll_all(polls, int(url.rpartition(":")[2]), bob.token)
            time.sleep(2)
            end(ids[:200], 2)
            valkey.flush()
            end(ids[200:400], 2)
            valkey.stop()
            end(ids[400:600], 2)
            valkey.start()
            end(ids[600:800], 2)
            # The last 200 tasks do not end, so their polls are answered at the deadline.
            until(lambda: not thread.is_alive(), WAIT + 60)
            thread.join()
            log = url.log.read_text()
    finally:
        valkey.stop()
    late = max(poll.answered - poll.sent - WAIT for poll in polls)
    print(f"latest answer {late:.2f} s after its deadline, {most} connections")
    assert [poll.status for poll in polls] == [200] * POLLS
    assert all(poll.applied for poll in polls)
    ended = {"cancelled": 800, "pending": 200}
    assert {s: sum(p.task["status"] == s for p in polls) for s in ended} == ended
    assert all(poll.task["id"] == poll.task_id for poll in polls)
    # Polls of ended tasks were answered by an event or the re-read, before their deadline.
    assert sum(poll.answered - poll.sent < WAIT - 1 for poll in polls[:800]) == 800
    assert late < 1
    assert 1 <= most <= MAX_CONNECTIONS
    errors = [line for line in log.splitlines() if " ERROR " in line]
    assert all("channel layer" in line or "channels_redis" in line for line in errors), errors
