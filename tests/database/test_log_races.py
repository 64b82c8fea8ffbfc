"""Concurrent writes to the log of one task."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.db import connection, transaction

from tests.database.test_interleavings import ConcurrentCall, postgres_only
from tests.database.test_races import run_concurrently
from tests.factories import grant_one
from zndraw_joblib.models import Task, TaskLogChunk, Worker
from zndraw_joblib.names import JobName
from zndraw_joblib.services.register import offer
from zndraw_joblib.services.workers import deregister
from zndraw_joblib.storage import logs

pytestmark = pytest.mark.django_db(transaction=True)

LEASE = timedelta(seconds=60)
MAX = 2**20
#: A character of three bytes.
EURO = "\u20ac"


@pytest.fixture
def held():
    """A task that a worker holds."""
    worker = Worker.objects.create(identity="bob")
    offer(worker, JobName("room", "modifiers", "Rotate"), {}, LEASE)[0].enqueue(
        "room", {}, "alice", 0
    )
    return grant_one(worker.pk, "bob")


def write(task, text, max_bytes=MAX):
    return TaskLogChunk.objects.append(task.id, 1, "bob", text, LEASE, max_bytes)


def test_concurrent_writes_lose_no_text_and_do_not_interleave(held, monkeypatch):
    monkeypatch.setattr(logs, "CHUNK_BYTES", 100)

    def write_lines(number):
        for line in range(15):
            # Some lines are longer than a chunk.
            assert write(held, f"{number}.{line}:{EURO * (line * 3)}\n")

    run_concurrently(4, write_lines)
    part = TaskLogChunk.objects.read(held.id, 0, MAX)
    assert (part.offset, part.next_offset) == (0, Task.objects.get().log_size)
    lines = part.text.splitlines()
    assert len(lines) == 60
    for number in range(4):
        mine = [line for line in lines if line.startswith(f"{number}.")]
        assert mine == [f"{number}.{line}:{EURO * (line * 3)}" for line in range(15)]


def test_a_read_beside_writes_gets_a_part_without_gaps(held, monkeypatch):
    """The text is numbered, so that a part tells where it has to begin."""
    monkeypatch.setattr(logs, "CHUNK_BYTES", 50)
    text = "".join(f"{number:09}\n" for number in range(300))

    def work(number):
        if number == 0:
            for start in range(0, len(text), 30):
                write(held, text[start : start + 30], 200)
            return
        for _ in range(60):
            part = TaskLogChunk.objects.read(held.id, 0, 200)
            assert part.text == text[part.offset : part.next_offset]
            assert len(part.text) <= 200

    run_concurrently(3, work)


def test_a_write_that_fails_leaves_nothing(held, monkeypatch):
    write(held, "before\n")
    before = list(Task.objects.values())

    def fail(*args, **kwargs):
        raise RuntimeError

    monkeypatch.setattr(logs, "_pieces", fail)
    with pytest.raises(RuntimeError):
        write(held, "x" * logs.CHUNK_BYTES)
    assert list(Task.objects.values()) == before
    assert TaskLogChunk.objects.read(held.id, 0, MAX).text == "before\n"


@postgres_only
def test_a_write_does_not_wait_for_the_worker_that_leaves(held):
    """A worker that leaves locks its own row, and then the rows of its tasks.

    Control: without SKIP LOCKED in `touch_workers` each waited for the other, and PostgreSQL ended
    one of them with a deadlock.
    """
    Worker.objects.update(last_heartbeat="2020-01-01T00:00:00Z")
    with transaction.atomic():
        Worker.objects.select_for_update().get()
        writing = ConcurrentCall(lambda: write(held, "last words\n"))
        assert not writing.is_blocked(5)
        assert writing.result()
        deregister(Worker.objects.get())
    assert TaskLogChunk.objects.read(held.id, 0, MAX).text == "last words\n"


@postgres_only
def test_a_read_uses_the_indexes(held):
    """The log of one task among many is found without a scan of all."""
    Task.objects.update(log_size=200_000)
    chunks = [
        TaskLogChunk(task_id=held.id, start=start, text="x" * 10) for start in range(0, 200_000, 10)
    ]
    TaskLogChunk.objects.bulk_create(chunks)
    statement = re.sub(r"%\(id\)s", f"'{held.id}'", _text("read_log"))
    for name, value in (("first", 100_000), ("max_bytes", MAX), ("limit", 1000)):
        statement = statement.replace(f"%({name})s", str(value))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE zndraw_joblib_tasklogchunk")
        cursor.execute(f"EXPLAIN {statement}")
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "joblib_log_unique" in plan
    assert "Seq Scan on zndraw_joblib_tasklogchunk" not in plan


def _text(name):
    from zndraw_joblib.storage.statements import load

    return load("postgresql")[name]
