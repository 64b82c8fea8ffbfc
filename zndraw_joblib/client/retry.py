"""Which failed requests are sent again, and after how many seconds."""

from __future__ import annotations

import random
from dataclasses import dataclass

import httpx

from zndraw_joblib.client.exceptions import ApiError

#: Requests sent at most while a caller waits for the answer; they take some six seconds.
ATTEMPTS = 6
#: Seconds before the second attempt, jitter apart.
FIRST_PAUSE = 0.1
#: Most seconds between two attempts, unless the server asks for more (`Retry-After`).
LONGEST_PAUSE = 5.0

#: Errors of a request that did not reach the server.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
#: Statuses of a request that the server did not begin to carry out.
_NOT_BEGUN = {429, 503}
#: Statuses that a proxy answers while the server is away; the server may have got the request.
_UNCERTAIN = {502, 504}


def is_outage(error: Exception) -> bool:
    """Whether the server cannot be reached, fails or is overloaded, rather than refuses."""
    if isinstance(error, ApiError):
        return error.status >= 500 or error.status == 429
    return isinstance(error, httpx.TransportError)


def retry_after(error: Exception) -> float:
    """Seconds that the server asks to wait before another attempt; 0 when it names none."""
    return (error.retry_after or 0.0) if isinstance(error, ApiError) else 0.0


def backoff(attempt: int) -> float:
    """Seconds to wait after this attempt, of which the first is 1: doubled, with jitter."""
    doubled = FIRST_PAUSE * 2.0 ** min(attempt - 1, 10)
    return min(LONGEST_PAUSE, doubled + random.uniform(0, 1))


@dataclass(frozen=True)
class Retry:
    """A policy for requests that fail.

    The loops of the SDK ask it for each pause, because a stop, a deadline or a report that joins
    the next attempt must be able to cut the pause short.

    Parameters
    ----------
    repeatable
        The server answers a repeated request like the first one. Otherwise a request is only sent
        again when the server certainly did not carry it out.
    attempts
        Requests sent at most. None repeats them until the outage is over, also when the server
        answers 500, because a server whose database starts may do so.
    """

    repeatable: bool = True
    attempts: int | None = ATTEMPTS

    def pause(self, error: Exception, attempt: int) -> float | None:
        """Seconds until the next attempt after this one failed; None when the error is final."""
        if self.attempts is not None and attempt >= self.attempts:
            return None
        if not self._is_worthwhile(error):
            return None
        return retry_after(error) or backoff(attempt)

    def _is_worthwhile(self, error: Exception) -> bool:
        if self.attempts is None:
            return is_outage(error)
        if isinstance(error, ApiError):
            return error.status in _NOT_BEGUN or (self.repeatable and error.status in _UNCERTAIN)
        return isinstance(error, httpx.TransportError if self.repeatable else _NOT_SENT)


#: For requests that the server answers alike however often they come.
REPEATABLE = Retry()
#: For requests that would have a second effect: another worker, another grant.
UNREPEATABLE = Retry(repeatable=False)
#: For requests that go on until the server is back.
LASTING = Retry(attempts=None)
