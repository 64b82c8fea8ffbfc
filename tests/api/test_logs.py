"""`tasks/{id}/log`: writes of the worker, and reads by offsets."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.factories import V1, problem
from zndraw_joblib.models import Task, TaskLogChunk, Worker
from zndraw_joblib.storage import logs

pytestmark = pytest.mark.django_db

PAST = "2020-01-01T00:00:00Z"
LEASE = timedelta(seconds=60)


@pytest.fixture
def task_id(bob):
    """The id of a task that Bob's default worker has claimed, as its first attempt."""
    bob.register()
    bob.submit()
    return bob.claim()["id"]


def write(person, task_id, text, attempt=1):
    return person.send("post", f"/tasks/{task_id}/log", {"attempt": attempt, "text": text})


def read(person, task_id, offset=None):
    query = "" if offset is None else f"?offset={offset}"
    answer = person.get(f"/tasks/{task_id}/log{query}")
    assert answer.status_code == 200, answer.content
    return answer.json()


def whole(person, task_id):
    """The text of all parts, and the offset of the first."""
    part = read(person, task_id)
    first, text = part["offset"], part["text"]
    while part["text"]:
        part = read(person, task_id, part["next_offset"])
        text += part["text"]
    return first, text


def test_texts_follow_each_other(bob, alice, task_id):
    assert read(bob, task_id) == {"offset": 0, "text": "", "next_offset": 0, "ended": False}
    for text in ("one\n", "zwölf\n"):
        answer = write(bob, task_id, text)
        assert (answer.status_code, answer.content) == (204, b"")
    assert read(alice, task_id) == {
        "offset": 0,
        "text": "one\nzwölf\n",
        "next_offset": 11,
        "ended": False,
    }
    assert read(alice, task_id, 4) == {
        "offset": 4,
        "text": "zwölf\n",
        "next_offset": 11,
        "ended": False,
    }


def test_the_log_goes_on_over_attempts(bob, task_id):
    write(bob, task_id, "first\n")
    Task.objects.filter(pk=task_id).requeue()
    assert bob.claim()["attempt"] == 2
    assert write(bob, task_id, "second\n", 2).status_code == 204
    problem(write(bob, task_id, "late\n", 1), "lease-lost", 409)
    assert whole(bob, task_id) == (0, "first\nsecond\n")


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_the_end_of_a_task_ends_its_log(bob, task_id, status):
    bob.report(task_id, "running")
    write(bob, task_id, "text")
    bob.report(task_id, status)
    assert read(bob, task_id)["ended"]
    assert read(bob, task_id, 4) == {"offset": 4, "text": "", "next_offset": 4, "ended": True}
    problem(write(bob, task_id, "more"), "invalid-task-transition", 409)
    assert whole(bob, task_id) == (0, "text")


def test_a_log_has_ended_only_with_its_last_text(bob, task_id):
    """A reader who goes on until `ended` gets all of the text."""
    write(bob, task_id, "x" * 100_000)
    bob.report(task_id, "running")
    bob.report(task_id, "completed")
    part = read(bob, task_id)
    assert (len(part["text"]), part["ended"]) == (65_536, False)
    part = read(bob, task_id, part["next_offset"])
    assert (len(part["text"]), part["ended"]) == (100_000 - 65_536, True)


def test_a_pending_task_takes_no_text(bob, task_id):
    Task.objects.filter(pk=task_id).requeue()
    problem(write(bob, task_id, "x"), "invalid-task-transition", 409)
    assert not TaskLogChunk.objects.exists()


#: One character of each length in UTF-8.
CHARACTERS = "a\u00e4\u20ac\U0001f9ea"


def test_an_offset_within_a_character_goes_back_to_its_beginning(bob, task_id):
    write(bob, task_id, CHARACTERS)
    offsets = [read(bob, task_id, offset) for offset in range(11)]
    assert [part["offset"] for part in offsets] == [0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10]
    for part in offsets:
        assert part["text"].encode() == CHARACTERS.encode()[part["offset"] :]
        assert part["next_offset"] == 10


@pytest.mark.parametrize("offset", [10, 11, 1_000_000, 2**63 - 1])
def test_an_offset_beyond_the_end_gives_no_text(bob, task_id, offset):
    write(bob, task_id, CHARACTERS)
    part = read(bob, task_id, offset)
    assert part == {"offset": offset, "text": "", "next_offset": offset, "ended": False}


@pytest.mark.parametrize(
    "offset", ["-1", "1.5", "x", "", "٣", "+1", "1e3", "0x1", 2**63, "9" * 500]
)
def test_an_offset_that_is_no_offset_is_refused(bob, task_id, offset):
    document = problem(bob.get(f"/tasks/{task_id}/log?offset={offset}"), "validation-error", 400)
    (error,) = document["errors"]
    assert error["pointer"] == "/offset"


@pytest.mark.parametrize("character", ["x", "\u00e4", "\u20ac", "\U0001f9ea"])
def test_parts_have_64_kib_at_most_and_whole_characters(bob, task_id, character):
    text = "." + character * (150_000 // len(character.encode()))
    write(bob, task_id, text)
    got, offset, sizes = "", 0, []
    while (part := read(bob, task_id, offset))["text"]:
        assert part["offset"] == offset
        got += part["text"]
        sizes.append(len(part["text"].encode()))
        offset = part["next_offset"]
    assert got == text
    assert max(sizes) <= 65_536
    assert len(sizes) == 3


@pytest.mark.parametrize("character", ["x", "\u00e4", "\u20ac", "\U0001f9ea"])
@pytest.mark.parametrize("number", [1, 30])
def test_older_text_is_cut_from_the_front(bob, task_id, settings_of, character, number):
    """As many bytes as the setting says are kept, whatever texts they came in."""
    limit = 20_000
    settings_of(max_log_bytes=limit)
    text = "".join(f"{index:05}{character}" for index in range(60_000 // number))
    for _ in range(number):
        write(bob, task_id, text)
    written = (text * number).encode()
    first, kept = whole(bob, task_id)
    assert kept.encode() == written[first:]
    assert limit - 3 <= len(kept.encode()) <= limit
    assert read(bob, task_id, 5)["offset"] == first
    assert read(bob, task_id, first - 1)["offset"] == first
    stored = sum(len(chunk.text.encode()) for chunk in TaskLogChunk.objects.all())
    assert stored <= limit + 2 * logs.CHUNK_BYTES
    assert Task.objects.get().log_size == len(written)


def test_a_smaller_limit_holds_for_texts_that_are_there(bob, task_id, settings_of):
    write(bob, task_id, "x" * 100)
    settings_of(max_log_bytes=10)
    assert whole(bob, task_id) == (90, "x" * 10)
    settings_of(max_log_bytes=1000)
    assert whole(bob, task_id) == (0, "x" * 100)


def test_a_larger_limit_does_not_bring_cut_text_back(bob, task_id, settings_of):
    settings_of(max_log_bytes=10)
    write(bob, task_id, "a" * logs.CHUNK_BYTES)
    write(bob, task_id, "b" * logs.CHUNK_BYTES)
    settings_of(max_log_bytes=100_000)
    first, text = whole(bob, task_id)
    assert first > 0
    assert first + len(text) == 2 * logs.CHUNK_BYTES


def test_a_limit_below_one_character_leaves_no_part_of_it(bob, task_id, settings_of):
    settings_of(max_log_bytes=1)
    write(bob, task_id, "\u20ac\u20ac")
    part = read(bob, task_id)
    assert (part["offset"], part["text"], part["next_offset"]) == (6, "", 6)


def test_many_short_texts_take_few_rows(bob, task_id, monkeypatch):
    """Control: with a row for each text this was 600 rows."""
    monkeypatch.setattr(logs, "CHUNK_BYTES", 100)
    for index in range(600):
        assert TaskLogChunk.objects.append(
            Task.objects.get().pk, 1, None, str(index % 10), LEASE, 200
        )
    assert TaskLogChunk.objects.count() <= 4
    assert sum(len(chunk.text) for chunk in TaskLogChunk.objects.all()) <= 200 + 2 * 100
    whole_log = "".join(str(index % 10) for index in range(600))
    part = TaskLogChunk.objects.read(Task.objects.get().pk, 0, 200)
    assert (part.offset, part.text) == (400, whole_log[400:])


def test_short_texts_and_long_ones_mix(bob, task_id, monkeypatch):
    monkeypatch.setattr(logs, "CHUNK_BYTES", 10)
    texts = [f"{CHARACTERS * number}{number}" for number in (1, 0, 3, 9, 0, 0, 0, 2, 1, 40, 0, 1)]
    for text in texts:
        write(bob, task_id, text)
    assert whole(bob, task_id) == (0, "".join(texts))
    assert max(len(chunk.text.encode()) for chunk in TaskLogChunk.objects.all()) <= 10
    starts = list(TaskLogChunk.objects.values_list("start", "text"))
    assert [start for start, _ in starts[1:]] == [
        start + len(text.encode()) for start, text in starts[:-1]
    ]


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("a\x00b", "a\ufffdb"),
        ("\ud800", "\ufffd"),
        ("\udc00\ud800x", "\ufffd\ufffdx"),
        ("\ud83e\uddea", "\U0001f9ea"),
        ("\r\n\t\x1b[31m\x7f\x85", "\r\n\t\x1b[31m\x7f\x85"),
    ],
)
def test_a_log_is_free_text(bob, task_id, sent, stored):
    body = json.dumps({"attempt": 1, "text": sent})
    answer = bob.client.post(f"{V1}/tasks/{task_id}/log", body, content_type="application/json")
    assert answer.status_code == 204, answer.content
    assert whole(bob, task_id) == (0, stored)
    assert Task.objects.get().log_size == len(stored.encode())


@pytest.mark.parametrize(
    "body",
    [
        r'{"attempt": 1, "text": "x", "more": "\u0000"}',
        r'{"attempt": 1, "text": {"text": "\u0000"}}',
        r'{"attempt": 1, "text": "x", "\ud800": "x"}',
        '{"attempt": 1, "text": "a\x00"}',
        b'{"attempt": 1, "text": "\xff"}',
        b'{"attempt": 1, "text": "\xed\xa0\x80"}',
        '{"attempt": 1e400, "text": "x"}',
        '{"attempt": 1, "text": NaN}',
        '{"attempt": 1, "text": ' + "[" * 5000 + "]" * 5000 + "}",
    ],
)
def test_other_text_may_not_have_any_character(bob, task_id, body):
    answer = bob.client.post(f"{V1}/tasks/{task_id}/log", body, content_type="application/json")
    problem(answer, "validation-error", 400)
    assert not TaskLogChunk.objects.exists()


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"text": "x"}, "/attempt"),
        ({"attempt": None, "text": "x"}, "/attempt"),
        ({"attempt": -1, "text": "x"}, "/attempt"),
        ({"attempt": 2**31, "text": "x"}, "/attempt"),
        ({"attempt": True, "text": "x"}, "/attempt"),
        ({"attempt": "1", "text": "x"}, "/attempt"),
        ({"attempt": 1}, "/text"),
        ({"attempt": 1, "text": None}, "/text"),
        ({"attempt": 1, "text": 0}, "/text"),
        ({"attempt": 1, "text": ["x"]}, "/text"),
        ({"attempt": 1, "text": "x", "level": "info"}, "/level"),
        ({"attempt": 1, "text": "x", "a\ufffd": 1}, "/a\ufffd"),
        ([], ""),
        ("x", ""),
    ],
)
def test_an_invalid_body_is_refused(bob, task_id, body, pointer):
    document = problem(bob.send("post", f"/tasks/{task_id}/log", body), "validation-error", 400)
    assert [error["pointer"] for error in document["errors"]] == [pointer]
    assert not TaskLogChunk.objects.exists()


def test_a_text_beyond_the_limit_of_bodies_is_refused(bob, task_id, settings_of):
    settings_of(max_body_bytes=1000)
    problem(write(bob, task_id, "x" * 1000), "content-too-large", 413)
    assert Task.objects.get().log_size == 0


@pytest.mark.parametrize("path", ["x", "%00", "01a20c7d-1505-73c8-b9b4-1ae3b824bb1b"])
def test_an_unknown_task_is_not_found(bob, path):
    problem(bob.get(f"/tasks/{path}/log"), "task-not-found", 404)
    problem(write(bob, path, "x"), "task-not-found", 404)


@pytest.mark.parametrize("text", ["x", ""])
@pytest.mark.parametrize("status", ["claimed", "running"])
def test_a_write_renews_the_lease_and_counts_as_a_heartbeat(bob, task_id, text, status):
    if status == "running":
        bob.report(task_id, "running")
    Task.objects.update(lease_expires_at=PAST)
    Worker.objects.update(last_heartbeat=PAST)
    before = Task.objects.get()
    assert write(bob, task_id, text).status_code == 204
    after = Task.objects.get()
    assert after.lease_expires_at.year > 2020
    assert Worker.objects.get().last_heartbeat.year > 2020
    # Not a change that clients wait for.
    assert (after.revision, after.status) == (before.revision, status)
    assert TaskLogChunk.objects.count() == len(text)


def test_a_write_does_not_renew_the_lease_beyond_the_timeout(bob, task_id):
    bob.report(task_id, "running")
    Task.objects.update(timeout_seconds=1, started_at=PAST)
    assert write(bob, task_id, "x").status_code == 204
    assert Task.objects.get().lease_expires_at.year == 2020


def test_an_empty_text_writes_nothing(bob, task_id):
    assert write(bob, task_id, "").status_code == 204
    assert read(bob, task_id)["next_offset"] == 0


def test_a_refused_write_changes_nothing(bob, carol, task_id):
    before = (list(Task.objects.values()), list(Worker.objects.values()))
    problem(write(bob, task_id, "x", 2), "lease-lost", 409)
    problem(write(bob, task_id, "x", 0), "lease-lost", 409)
    problem(write(carol, task_id, "x"), "forbidden", 403)
    assert (list(Task.objects.values()), list(Worker.objects.values())) == before
    assert not TaskLogChunk.objects.exists()


def test_an_administrator_may_write(root, task_id):
    assert write(root, task_id, "by hand\n").status_code == 204
    problem(write(root, task_id, "x", 2), "lease-lost", 409)
    assert whole(root, task_id) == (0, "by hand\n")


def test_a_read_needs_few_queries(bob, task_id):
    write(bob, task_id, "x" * 200_000)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        read(bob, task_id, 100_000)
    ours = [query["sql"] for query in queries if "zndraw_joblib_" in query["sql"]]
    assert len(ours) == 2


def test_a_log_is_not_read_with_query_parameters_of_lists(bob, task_id):
    document = problem(bob.get(f"/tasks/{task_id}/log?limit=1"), "validation-error", 400)
    assert document["errors"][0]["detail"] == "Unknown query parameter; known are offset."
