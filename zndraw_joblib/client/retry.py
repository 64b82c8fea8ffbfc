"""Which failed requests are sent again, and after how many seconds."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass

import httpx

from zndraw_joblib.client.exceptions import ApiError, CredentialsError, NotAuthenticatedError

logger = logging.getLogger(__name__)

#: Most attempts while a caller waits for the answer; they take about six seconds.
ATTEMPTS = 6
#: Seconds before the second attempt, without jitter.
FIRST_PAUSE = 0.1
#: Most seconds between two attempts, unless the server asks for more (`Retry-After`).
LONGEST_PAUSE = 5.0

#: Errors of a request that did not reach the server.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, CredentialsError)
#: Statuses of a request that the server did not begin to carry out.
_NOT_BEGUN = {429, 503}
#: Statuses of a proxy whose server is away; the server may have carried out the request.
_UNCERTAIN = {502, 504}
#: Statuses by which a proxy says that the request is too large for it. It will say so again, unless
#: the answer is part of an outage; such requests are therefore sent `ATTEMPTS` times at most.
_TOO_LARGE = {413, 414, 431}


def is_outage(error: Exception) -> bool:
    """Whether the server is unreachable, failing or overloaded, and did not refuse the request.

    An answer without a problem document means that the server is unreachable, because a proxy or a
    captive portal answered in its place.
    """
    if isinstance(error, ApiError):
        if not error.problem:
            return error.status not in _TOO_LARGE
        return error.status >= 500 or error.status == 429
    return isinstance(error, httpx.TransportError)


def retry_after(error: Exception) -> float:
    """Seconds that the server asks to wait before another attempt; 0 without `Retry-After`."""
    return (error.retry_after or 0.0) if isinstance(error, ApiError) else 0.0


def backoff(attempt: int) -> float:
    """Seconds to wait after this attempt, counted from 1; doubles each time, with jitter."""
    doubled = FIRST_PAUSE * 2.0 ** min(attempt - 1, 10)
    return min(LONGEST_PAUSE, doubled + random.uniform(0, 1))


def _is_patient(error: Exception, patience: float) -> bool:
    return isinstance(error, NotAuthenticatedError) and patience > 0


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
        server answers so while its database starts. Without a problem document, a request that is
        too large has `ATTEMPTS` all the same.
    """

    repeatable: bool = True
    attempts: int | None = ATTEMPTS

    def pause(self, error: Exception, attempt: int, patience: float = 0.0) -> float | None:
        """Seconds to wait after this attempt failed; None if the error is final.

        While `patience` seconds are left, a 401 of credentials that were good before is repeated
        like an outage, because they may be good again: a token file is written anew, a revoked
        token is restored.
        """
        if self.attempts is None and (is_outage(error) or _is_patient(error, patience)):
            return retry_after(error) or backoff(attempt)
        if attempt >= (self.attempts or ATTEMPTS) or not self._is_worthwhile(error):
            return None
        return retry_after(error) or backoff(attempt)

    def _is_worthwhile(self, error: Exception) -> bool:
        if not isinstance(error, ApiError):
            return isinstance(error, httpx.TransportError if self.repeatable else _NOT_SENT)
        if self.repeatable and not error.problem:
            return True
        # The page of a proxy below 500 shows that the request did not reach the server.
        if error.status in _NOT_BEGUN or (error.status < 500 and not error.problem):
            return True
        return self.repeatable and error.status in _UNCERTAIN


#: For requests that the server answers alike each time.
REPEATABLE = Retry()
#: For requests whose repetition would make another worker or another grant.
UNREPEATABLE = Retry(repeatable=False)
#: For requests that are repeated until the outage is over.
LASTING = Retry(attempts=None)


class OutageLog:
    """Logs each kind of failure of an outage once, because requests are repeated many times.

    `action` is the failing action, for messages: ``deliver reports``.
    """

    def __init__(self, action: str) -> None:
        self._action = action
        self._logged: set[str] = set()

    @property
    def is_open(self) -> bool:
        """Whether a request failed, and none has succeeded since."""
        return bool(self._logged)

    def failed(self, error: Exception, pause: float) -> None:
        """Log a failure; `pause` is the number of seconds until the next attempt."""
        text = str(error) or type(error).__name__
        level = logging.DEBUG if text in self._logged else logging.WARNING
        self._logged.add(text)
        logger.log(level, "could not %s: %s; trying again in %.1f s", self._action, text, pause)

    def ended(self) -> None:
        """Log the end of the outage, if there was one."""
        if self._logged:
            logger.info("could %s again", self._action)
            self._logged.clear()
