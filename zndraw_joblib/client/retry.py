"""Which failed requests are sent again, and after how many seconds."""

from __future__ import annotations

import random
from dataclasses import dataclass

import httpx

from zndraw_joblib.client.exceptions import ApiError

#: Most attempts while a caller waits for the answer; they take about six seconds.
ATTEMPTS = 6
#: Seconds before the second attempt, without jitter.
FIRST_PAUSE = 0.1
#: Most seconds between two attempts, unless the server asks for more (`Retry-After`).
LONGEST_PAUSE = 5.0

#: Errors of a request that did not reach the server.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
#: Statuses of a request that the server did not begin to carry out.
_NOT_BEGUN = {429, 503}
#: Statuses of a proxy whose server is away; the server may have carried out the request.
_UNCERTAIN = {502, 504}


def is_outage(error: Exception) -> bool:
    """Whether the server is unreachable, failing or overloaded, and did not refuse the request."""
    if isinstance(error, ApiError):
        return error.status >= 500 or error.status == 429
    return isinstance(error, httpx.TransportError)


def retry_after(error: Exception) -> float:
    """Seconds that the server asks to wait before another attempt; 0 without `Retry-After`."""
    return (error.retry_after or 0.0) if isinstance(error, ApiError) else 0.0


def backoff(attempt: int) -> float:
    """Seconds to wait after this attempt, counted from 1; doubles each time, with jitter."""
    doubled = FIRST_PAUSE * 2.0 ** min(attempt - 1, 10)
    return min(LONGEST_PAUSE, doubled + random.uniform(0, 1))


@dataclass(frozen=True)
class Retry:
    """A policy for requests that fail.

    It computes pauses and does not sleep, because a stop, a deadline or another report must be able
    to end a pause early.

    Parameters
    ----------
    repeatable
        Whether the server answers a repeated request as it did the first. If not, a request is only
        sent again if the server certainly did not carry it out.
    attempts
        Most requests. None repeats them until the outage is over, even after a 500, because a
        server answers so while its database starts.
    """

    repeatable: bool = True
    attempts: int | None = ATTEMPTS

    def pause(self, error: Exception, attempt: int) -> float | None:
        """Seconds to wait after this attempt failed; None if the error is final."""
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


#: For requests that the server answers alike each time.
REPEATABLE = Retry()
#: For requests whose repetition would make another worker or another grant.
UNREPEATABLE = Retry(repeatable=False)
#: For requests that are repeated until the outage is over.
LASTING = Retry(attempts=None)
