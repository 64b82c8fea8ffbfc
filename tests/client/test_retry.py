"""The retry policies: the errors after which a request is sent again, and the pauses."""

from __future__ import annotations

import httpx
import pytest

from zndraw_joblib.client.exceptions import error_of
from zndraw_joblib.client.retry import ATTEMPTS, LASTING, REPEATABLE, UNREPEATABLE, backoff


def answer(status, **headers):
    return error_of(httpx.Response(status, json={}, headers=headers))


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


def test_pauses_grow_up_to_five_seconds():
    pauses = [backoff(attempt) for attempt in (1, 2, 4, 7, 100_000)]
    assert 0.1 <= pauses[0] <= 1.1
    assert 0.8 <= pauses[2] <= 1.8
    assert pauses[3:] == [5.0, 5.0]
