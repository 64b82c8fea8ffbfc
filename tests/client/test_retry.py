"""The retry policies: the errors after which a request is sent again, and the pauses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from tests.client.stand_in import refusal
from zndraw_joblib.client.exceptions import UnexpectedAnswerError, error_of
from zndraw_joblib.client.retry import (
    ATTEMPTS,
    LASTING,
    REPEATABLE,
    UNREPEATABLE,
    OutageLog,
    backoff,
)


def answer(status, **headers):
    """A refusal of the server."""
    return error_of(refusal("some-problem", status, **headers))


def page(status, **headers):
    """A page of a proxy."""
    response = httpx.Response(status, html="<h1>Sorry</h1>", headers=headers)
    return UnexpectedAnswerError(response, {}) if status < 400 else error_of(response)


#: Errors, and whether REPEATABLE, UNREPEATABLE and LASTING send the request again.
ERRORS = [
    (httpx.ConnectError("refused"), True, True, True),
    (httpx.ConnectTimeout("late"), True, True, True),
    (httpx.PoolTimeout("late"), True, True, True),
    (httpx.ReadTimeout("late"), True, False, True),
    (httpx.ReadError("cut"), True, False, True),
    (httpx.RemoteProtocolError("cut"), True, False, True),
    (answer(429), True, True, True),
    (answer(503), True, True, True),
    (answer(502), True, False, True),
    (answer(504), True, False, True),
    (answer(500), False, False, True),
    *((answer(status), False, False, False) for status in (400, 401, 403, 404, 409, 413, 422)),
    *((page(status), True, True, True) for status in (200, 204, 302, 400, 401, 403, 404, 413)),
    *((page(status), True, True, True) for status in (429, 503)),
    *((page(status), True, False, True) for status in (500, 502, 504, 520)),
    (ValueError("a bug"), False, False, False),
]


@pytest.mark.parametrize(("error", "repeatable", "unrepeatable", "lasting"), ERRORS, ids=str)
def test_each_policy_retries_after_its_errors_only(error, repeatable, unrepeatable, lasting):
    repeats = [policy.pause(error, 1) is not None for policy in (REPEATABLE, UNREPEATABLE, LASTING)]
    assert repeats == [repeatable, unrepeatable, lasting]


def test_attempts_are_bounded_except_for_lasting_requests():
    error = httpx.ConnectError("refused")
    assert REPEATABLE.pause(error, ATTEMPTS - 1) is not None
    assert REPEATABLE.pause(error, ATTEMPTS) is None
    assert LASTING.pause(error, 100_000) == 5.0


def test_retry_after_sets_the_pause():
    assert REPEATABLE.pause(answer(503, **{"Retry-After": "7"}), 1) == 7
    assert REPEATABLE.pause(answer(503, **{"Retry-After": "soon"}), 1) < 2
    assert LASTING.pause(page(403, **{"Retry-After": "7"}), 9) == 7
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 57 < LASTING.pause(page(429, **{"Retry-After": in_a_minute}), 1) <= 60


def test_a_long_retry_after_is_at_most_a_day():
    """A longer pause would be an `OverflowError` of `Event.wait`."""
    for text in ("9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"):
        assert LASTING.pause(answer(503, **{"Retry-After": text}), 1) == 86_400


@pytest.mark.parametrize("status", [413, 414, 431])
def test_a_request_that_is_too_large_for_a_proxy_is_repeated_six_times_at_most(status):
    assert LASTING.pause(page(status), ATTEMPTS - 1) is not None
    assert LASTING.pause(page(status), ATTEMPTS) is None


def test_a_failure_is_logged_once_for_each_outage(caplog):
    caplog.set_level("INFO")
    log = OutageLog("fly")
    for error in (page(302), page(302), httpx.ConnectError("refused"), page(302)):
        log.failed(error, 1.0)
    log.ended()
    log.ended()
    log.failed(page(302), 1.0)
    page_text = "302 Found: not an answer of the server (text/html; charset=utf-8)"
    assert caplog.messages == [
        f"could not fly: {page_text}; trying again in 1.0 s",
        "could not fly: refused; trying again in 1.0 s",
        "could fly again",
        f"could not fly: {page_text}; trying again in 1.0 s",
    ]


def test_pauses_grow_up_to_five_seconds():
    pauses = [backoff(attempt) for attempt in (1, 2, 4, 7, 100_000)]
    assert 0.1 <= pauses[0] <= 1.1
    assert 0.8 <= pauses[2] <= 1.8
    assert pauses[3:] == [5.0, 5.0]
