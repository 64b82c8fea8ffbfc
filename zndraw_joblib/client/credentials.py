"""The credentials of requests: a fixed token, a function that returns one, or an `httpx.Auth`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future

import httpx

from zndraw_joblib.client.exceptions import CredentialsError
from zndraw_joblib.client.forks import reset_after_fork

logger = logging.getLogger(__name__)

#: Seconds after which a call of the token's function that has not returned is left behind, because
#: a connection without a timeout may hang for ever.
LEFT_BEHIND_SECONDS = 60.0


def authorization(token: str, scheme: str) -> str:
    """The value of ``Authorization``; a token that contains a space is a whole value already.

    Raises
    ------
    TypeError
        The token is no text; a coroutine, for instance, because its function is asynchronous.
    ValueError
        The token is empty, or has characters that a header must not have.
    """
    if not isinstance(token, str):
        raise TypeError(f"a token must be a str, not {type(token).__name__}")
    token = token.strip()
    if not token or not (token.isascii() and token.isprintable()):
        raise ValueError("a token must be printable ASCII, and not empty")
    return token if " " in token else f"{scheme} {token}"


class RenewedToken(httpx.Auth):
    """Sends the token that a function returned, and asks for another after a 401.

    Threads whose requests were refused with the same token wait for one call of the function. A
    request is sent again with another token only, because the same one would be refused again.

    Parameters
    ----------
    source
        Returns the token, or a whole value of ``Authorization``. It is called in a thread of its
        own, one call at a time.
    scheme
        Precedes a token.
    timeout
        Seconds for which a request waits for the function.
    """

    def __init__(self, source: Callable[[], str], scheme: str, timeout: float) -> None:
        self._source = source
        self._scheme = scheme
        self._timeout = timeout
        self.after_fork()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Begin without a token, because the thread of a call under way belongs to the parent."""
        self._lock = threading.Lock()
        self._latest: Future[str] | None = None
        self._asked_at = 0.0

    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the request, and again with another token after a 401.

        Raises
        ------
        CredentialsError
            The function failed, or has not returned in time.
        """
        used = self._ask_unless(self._is_usable)
        sent = request.headers["Authorization"] = self._wait(used)
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            renewed = self._wait(self._ask_unless(lambda latest: latest is not used))
            if renewed != sent:
                request.headers["Authorization"] = renewed
                yield request

    def _is_usable(self, latest: Future[str]) -> bool:
        """Whether a call returned a token, or has some time left to do so."""
        if latest.done():
            return latest.exception() is None
        return time.monotonic() - self._asked_at < LEFT_BEHIND_SECONDS

    def _ask_unless(self, holds: Callable[[Future[str]], bool]) -> Future[str]:
        """The latest call of the function; begins another one unless `holds` is true of it."""
        with self._lock:
            if self._latest is None or not holds(self._latest):
                self._latest, self._asked_at = Future(), time.monotonic()
                threading.Thread(
                    target=self._ask, args=(self._latest,), name="joblib-token", daemon=True
                ).start()
            return self._latest

    def _ask(self, answer: Future[str]) -> None:
        try:
            header = authorization(self._source(), self._scheme)
        # Each of them, because a thread that ends without an answer would leave requests waiting.
        except BaseException as error:
            # The traceback alone, because the request logs the error as that of an outage.
            logger.debug("the function that returns the token failed", exc_info=True)
            answer.set_exception(error)
        else:
            answer.set_result(header)

    def _wait(self, answer: Future[str]) -> str:
        try:
            error = answer.exception(self._timeout)
        except TimeoutError as late:
            raise CredentialsError(
                f"the function that returns the token has not returned within {self._timeout:g} s"
            ) from late
        if error is not None:
            raise CredentialsError(
                f"the function that returns the token failed: {error!r}"
            ) from error
        return answer.result()


class GuardedAuth(httpx.Auth):
    """An `httpx.Auth` of the user's own, whose failures count as an outage of the server."""

    def __init__(self, auth: httpx.Auth) -> None:
        self._auth = auth

    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the requests of the user's flow.

        Raises
        ------
        CredentialsError
            The flow failed.
        httpx.TransportError
            A request of the flow did.
        """
        try:
            yield from self._auth.sync_auth_flow(request)
        except httpx.TransportError:
            raise
        except Exception as error:
            raise CredentialsError(f"{type(self._auth).__name__} failed: {error!r}") from error
