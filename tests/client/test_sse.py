"""The parser of Server-Sent Events."""

from __future__ import annotations

import pytest

from zndraw_joblib.client import sse
from zndraw_joblib.client.room_events import JobEvent, read_event
from zndraw_joblib.client.sse import Message, MessageParser

#: Streams and their messages, by the rules of the HTML Standard, section 9.2.6.
STREAMS = {
    "a message": ("event: task\nid: 1\ndata: {}\n\n", [("task", "{}")]),
    "no type": ("data: a\n\n", [("message", "a")]),
    "no space": ("event:task\ndata:a\n\n", [("task", "a")]),
    "one space only is left out": ("data:  a\n\n", [("message", " a")]),
    "lines of data": ("data: a\ndata\ndata: b\n\n", [("message", "a\n\nb")]),
    "no data": ("event: task\nid: 1\n\ndata: a\n\n", [("message", "a")]),
    "empty data": ("data\n\n", [("message", "")]),
    "comments": (": a\n\n:\ndata: b\n: c\n\n", [("message", "b")]),
    "unknown fields": ("colour: red\ndata: a\nDATA: b\n\n", [("message", "a")]),
    "CRLF": ("event: x\r\ndata: a\r\n\r\ndata: b\r\n\r\n", [("x", "a"), ("message", "b")]),
    "CR": ("event: x\rdata: a\r\rdata: b\r\r", [("x", "a"), ("message", "b")]),
    "mixed ends": ("data: a\r\n\ndata: b\n\r\n", [("message", "a"), ("message", "b")]),
    "a byte order mark": ("\ufeffdata: a\n\n", [("message", "a")]),
    "a later mark is data": ("\n\ufeffdata: a\ndata: b\n\n", [("message", "b")]),
    "separators of Unicode": (
        "data: a\u2028b\x85c\x0bd\x1ce\n\n",
        [("message", "a\u2028b\x85c\x0bd\x1ce")],
    ),
    "an incomplete message": ("data: a\n\ndata: b\n", [("message", "a")]),
    "an incomplete line": ("data: a\n\ndata: b", [("message", "a")]),
    "the end of a message resets its type": (
        "event: a\ndata: 1\n\ndata: 2\n\n",
        [("a", "1"), ("message", "2")],
    ),
}


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize(("text", "expected"), STREAMS.values(), ids=STREAMS)
def test_a_stream_is_parsed_however_it_is_divided(text, expected, size):
    content = text.encode()
    parser = MessageParser()
    chunks = [content[start : start + size] for start in range(0, len(content), size)]
    found = [message for chunk in [b"", *chunks] for message in parser.feed(chunk)]
    assert found == [Message(*one) for one in expected]


def test_the_latest_id_is_known_also_without_a_message():
    parser = MessageParser()
    found = []
    parts = ("id: 1\ndata: a\n", "\n", "data: b\n\n", "id: 2\n", ": c\n\n", "id: 3\0\n\n", "id\n\n")
    for part in parts:
        list(parser.feed(part.encode()))
        found.append(parser.last_id)
    assert found == [None, "1", "1", "1", "2", "2", ""]


@pytest.mark.parametrize(
    ("field", "seconds"),
    [
        ("2000", 2.0),
        ("0", 0.0),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("²", None),
        ("9" * 99, 999_999.999),
    ],
)
def test_the_time_of_the_next_connection_is_read(field, seconds):
    parser = MessageParser()
    assert list(parser.feed(f"retry: {field}\n\n".encode())) == []
    assert parser.retry == seconds


@pytest.mark.parametrize("content", [b"data: \xff\n", b"\xff\n", b"data: \xed\xa0\x80\n"])
def test_a_stream_that_is_not_utf_8_is_refused(content):
    with pytest.raises(ValueError, match="utf-8"):
        list(MessageParser().feed(content))


@pytest.mark.parametrize("chunk", [b"x" * 100, b"data: xxx\n", b": xxxxxx\n"])
def test_a_message_that_is_too_large_is_refused(chunk, monkeypatch):
    """Control: it would be kept in memory as long as it grows."""
    monkeypatch.setattr(sse, "MAX_MESSAGE_BYTES", 1000)
    parser = MessageParser()
    for _ in range(1000 // len(chunk)):
        list(parser.feed(chunk))
    with pytest.raises(ValueError, match="too large"):
        [list(parser.feed(chunk)) for _ in range(20)]


def test_many_messages_in_one_part_are_not_too_large(monkeypatch):
    monkeypatch.setattr(sse, "MAX_MESSAGE_BYTES", 100)
    assert len(list(MessageParser().feed(b"data: 1\n\n" * 1000))) == 1000


def test_an_event_of_an_unknown_type_or_with_unknown_fields_is_read():
    assert read_event('{"type": "weather", "cursor": "1"}') is None
    event = read_event(
        '{"type": "job", "cursor": "1", "more": 1, "job": {"id": "j", "room_id": "r", '
        '"full_name": "r:m:X", "category": "m", "name": "X", "worker_count": 2, "durable": true}}'
    )
    assert isinstance(event, JobEvent)
    assert (event.job.full_name, event.job.worker_count) == ("r:m:X", 2)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "1",
        "{}",
        '{"type": 1}',
        '{"type": "task", "cursor": "1"}',
        '{"type": "ready"}',
        "[" * 10_000,
    ],
)
def test_a_document_that_is_no_event_is_a_value_error(text):
    with pytest.raises(ValueError):  # noqa: PT011
        read_event(text)
