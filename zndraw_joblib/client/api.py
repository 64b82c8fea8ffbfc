"""Requests to the server: addresses, credentials, typed errors, retries."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import quote

import httpx
import stamina

from zndraw_joblib.client.exceptions import ApiError, raise_for_problem

#: Seconds by which a read may outlast the wait that it asked for.
GRACE = 10.0
#: Most connections at once; a worker holds one for each claim that waits.
CONNECTIONS = 100
#: Requests sent at most for an answer that somebody waits for.
ATTEMPTS = 6
#: Seconds before the second attempt, jitter apart, and most before any.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
#: Too many requests, and answers while a server or its database is away.
_PASSING = {429, 502, 503, 504}


class ApiManager(Protocol):
    """What a `JobManager` needs to reach a server."""

    @property
    def http(self) -> httpx.Client:
        """The client that sends the requests."""

    @property
    def base_url(self) -> str:
        """Address of the site, without the path: ``https://example.org``."""

    def get_headers(self) -> dict[str, str]:
        """Headers of each request, such as ``Authorization``."""


class Api:
    """A ready `ApiManager` for token authentication.

    Parameters
    ----------
    base_url
        Address of the site: ``https://example.org``.
    token
        Sent as ``Authorization: Token <token>``.
    timeout
        Seconds that the server may take for an answer, waits apart.
    transport
        For tests: what carries the requests.
    """

    def __init__(
        self,
        base_url: str,
        token: str | None = None,
        *,
        timeout: float = GRACE,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._token = token
        self.http = httpx.Client(
            timeout=timeout,
            transport=transport,
            limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=20),
        )

    def get_headers(self) -> dict[str, str]:
        """The credentials."""
        return {"Authorization": f"Token {self._token}"} if self._token else {}

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def path(*segments: str) -> str:
    """A path under the job server's prefix; each segment is quoted."""
    return "/v1/joblib/" + "/".join(quote(segment, safe="@:") for segment in segments)


def never_sent(error: Exception) -> bool:
    """Whether the request did not reach the server: it may be sent again whatever it does."""
    return isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)


def turned_away(error: Exception) -> bool | float:
    """Whether the request changed nothing and is worth repeating, or in how many seconds."""
    if isinstance(error, ApiError):
        return error.status in {429, 503} and (error.retry_after or True)
    return never_sent(error)


def transient(error: Exception) -> bool | float:
    """Whether a request that may be repeated is worth repeating, or in how many seconds."""
    if isinstance(error, ApiError):
        return error.status in _PASSING and (error.retry_after or True)
    return isinstance(error, httpx.TransportError)


def away(error: Exception) -> bool:
    """Whether the server is away or fails, so that nothing was refused and may be later."""
    if isinstance(error, ApiError):
        return error.status >= 500 or error.status == 429
    return isinstance(error, httpx.TransportError)


def retry_after(error: Exception) -> float:
    """Seconds that the server asks to wait before another attempt; 0 when it does not say."""
    return (error.retry_after or 0.0) if isinstance(error, ApiError) else 0.0


def backoff(attempt: int) -> float:
    """Seconds to wait after this attempt, of which the first is 1: doubled, with jitter."""
    doubled = FIRST_PAUSE * 2.0 ** min(attempt - 1, 10)
    return min(LONGEST_PAUSE, doubled + random.uniform(0, 1))


def send(
    api: ApiManager,
    method: str,
    url: str,
    *,
    body: dict[str, Any] | bytes | None = None,
    headers: dict[str, str] | None = None,
    wait: int = 0,
    retry_on: Callable[[Exception], bool | float] | None = transient,
    attempts: int = ATTEMPTS,
) -> httpx.Response:
    """Send a request and raise its problem.

    Parameters
    ----------
    body
        Sent as JSON; bytes are JSON already.
    headers
        Sent besides the credentials.
    wait
        Seconds that the server is asked to wait for news (``Prefer: wait=N``, RFC 7240).
    retry_on
        Which errors are worth another attempt; None sends once.
    attempts
        Requests sent at most, with exponential backoff and jitter between them.

    Raises
    ------
    ApiError
        The server refused.
    httpx.TransportError
        The server cannot be reached.
    """
    headers = {**api.get_headers(), **(headers or {})}
    timeout: Any = httpx.USE_CLIENT_DEFAULT
    content: dict[str, Any] = {"json": body}
    if isinstance(body, bytes):
        content = {"content": body}
        headers = {**headers, "Content-Type": "application/json"}
    if wait:
        headers = {**headers, "Prefer": f"wait={wait}"}
        timeout = httpx.Timeout(GRACE, read=wait + GRACE)

    def once() -> httpx.Response:
        return raise_for_problem(
            api.http.request(
                method, api.base_url + url, headers=headers, timeout=timeout, **content
            )
        )

    if retry_on is None:
        return once()
    for attempt in stamina.retry_context(
        on=retry_on,
        attempts=attempts,
        timeout=None,
        wait_initial=FIRST_PAUSE,
        wait_max=LONGEST_PAUSE,
    ):
        with attempt:
            return once()
    raise AssertionError("stamina raises the last error")  # pragma: no cover
