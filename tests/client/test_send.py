"""`send` against the stand-in: its requests, and the arguments that it refuses."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import Field, ValidationError

from tests.client.stand_in import Rotate
from zndraw_joblib.client import submissions

ROTATE = "/rooms/r/tasks/@global:modifiers:Rotate"


def test_send_submits_an_instance_with_its_options(server, manager):
    at = datetime(2026, 5, 1, 12, tzinfo=UTC)
    options = {"retries": 0, "timeout_seconds": 2.5, "idempotency_key": 'a"\\b'}
    handle = manager.send(Rotate(angle=3), room="r", run_at=at, **options)
    manager.send(Rotate(angle=3), room="r", job_room="other", delay=0)
    assert handle.id == "t1"
    assert repr(handle) == "<TaskHandle t1 of @global:modifiers:Rotate>"
    first, second = server.sent("POST")
    assert first[1:] == (
        ROTATE,
        {
            "payload": {"angle": 3.0},
            "retries": 0,
            "run_at": "2026-05-01T12:00:00+00:00",
            "timeout_seconds": 2.5,
        },
    )
    assert second[1:] == (
        "/rooms/r/tasks/other:modifiers:Rotate",
        {"payload": {"angle": 3.0}, "delay": 0},
    )
    assert server.keys[0] == '"a\\"\\\\b"'
    assert server.keys[1] != server.keys[0]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"delay": 1, "run_at": datetime(2026, 1, 1, tzinfo=UTC)}, "either delay or run_at"),
        ({"run_at": datetime(2026, 1, 1)}, "time zone"),
        ({"delay": float("nan")}, "JSON"),
        ({"timeout_seconds": float("inf")}, "JSON"),
        ({"idempotency_key": ""}, "printable"),
        ({"idempotency_key": "ä"}, "printable"),
        ({"idempotency_key": "a\nb"}, "printable"),
    ],
)
def test_send_refuses_options_that_cannot_be_sent(server, manager, options, text):
    with pytest.raises(ValueError, match=text):
        manager.send(Rotate(), room="r", **options)
    assert server.calls == []


def test_send_refuses_arguments_beside_an_instance_and_a_bare_class(server, manager):
    with pytest.raises(TypeError, match="arguments already"):
        manager.send(Rotate(), angle=3, room="r")
    with pytest.raises(TypeError, match="an instance of Rotate"):
        manager.send(Rotate, angle=3, room="r")
    with pytest.raises(TypeError):
        manager.send(len, [], room="r")
    assert server.calls == []


class Turned(Rotate):
    """Stands for the class that a decorator makes of a function."""

    copied: int = Field(1, alias="copy")


class Delayed(Rotate):
    delay: float = 0
    room: str = "hall"


def turn(angle: float, copy: int = 1) -> None: ...


def turn_late(angle: float, delay: float = 0, room: str = "hall") -> None: ...


@pytest.fixture
def job_of_turn(monkeypatch):
    monkeypatch.setattr(submissions, "model_of", {turn: Turned, turn_late: Delayed}.__getitem__)


def test_send_takes_a_function_and_its_arguments(server, manager, job_of_turn):
    url = "/rooms/r/tasks/@global:modifiers:Turned"
    handle = manager.send(turn, angle=45, room="r")
    manager.send(turn, 45, copy=2, room="r")
    manager.send(turn, 45, 3, room="r", delay=1)
    assert [call[1:] for call in server.sent("POST")] == [
        (url, {"payload": {"angle": 45.0, "copy": 1}}),
        (url, {"payload": {"angle": 45.0, "copy": 2}}),
        (url, {"payload": {"angle": 45.0, "copy": 3}, "delay": 1}),
    ]
    assert repr(handle) == "<TaskHandle t1 of @global:modifiers:Turned>"


@pytest.mark.parametrize(
    ("values", "arguments", "text"),
    [
        ((1, 2, 3), {}, "takes 2 arguments, not 3"),
        ((), {"angel": 3}, "does not take angel"),
        ((1,), {"angle": 3}, "angle"),
    ],
)
def test_send_refuses_arguments_that_the_function_does_not_take(
    server, manager, job_of_turn, values, arguments, text
):
    with pytest.raises(TypeError, match=text):
        manager.send(turn, *values, room="r", **arguments)
    with pytest.raises(ValidationError):
        manager.send(turn, angle=1000, room="r")
    assert server.calls == []


def test_an_argument_named_like_an_option_is_given_by_its_position(server, manager, job_of_turn):
    with pytest.raises(TypeError, match="an argument named delay, room, like an option"):
        manager.send(turn_late, 1, delay=3, room="r")
    with pytest.raises(TypeError, match="an argument named room, like"):
        manager.send(turn_late, 1, 3, room="r")
    manager.send(turn_late, 1, 3, "attic", delay=4, room="r")
    payload = {"angle": 1.0, "delay": 3.0, "room": "attic"}
    assert [call[2] for call in server.sent("POST")] == [{"payload": payload, "delay": 4}]


def test_map_submits_a_function_with_the_values_at_each_place(server, manager, job_of_turn):
    angles = iter([1, 2, 3])
    manager.map(turn, angles, [7, 8], room="r")
    manager.map(turn, [4], room="r")
    payloads = [[entry["payload"] for entry in call[2]] for call in server.sent("POST")]
    assert payloads == [
        [{"angle": 1.0, "copy": 7}, {"angle": 2.0, "copy": 8}],
        [{"angle": 4.0, "copy": 1}],
    ]


def test_map_refuses_values_that_do_not_fit(server, manager, job_of_turn):
    with pytest.raises(TypeError, match="arguments already"):
        manager.map([Rotate()], [1], room="r")
    with pytest.raises(TypeError, match="an iterable of values"):
        manager.map(turn, room="r")
    with pytest.raises(TypeError, match="takes 2 arguments, not 3"):
        manager.map(turn, [1], [2], [3], room="r")
    with pytest.raises(ValidationError):
        manager.map(turn, [1, 1000], room="r")
    assert server.calls == []
