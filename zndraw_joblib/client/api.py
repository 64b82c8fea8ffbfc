"""Requests to the server: addresses, credentials, typed errors."""

from __future__ import annotations

import logging
import time
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import quote

import httpx

from zndraw_joblib.client.exceptions import ApiError, raise_for_problem
from zndraw_joblib.client.retry import REPEATABLE, Retry

logger = logging.getLogger(__name__)

#: Seconds that an answer may take in addition to the requested wait.
GRACE = 10.0
#: Most connections at once, because many threads may wait for tasks.
CONNECTIONS = 100


class ApiManager(Protocol):
    """Access to a server, as a `JobManager` needs it."""

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
        Seconds within which the server must answer, in addition to the seconds of a wait.
    transport
        Carries the requests; for tests.
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


def send(
    api: ApiManager,
    method: str,
    url: str,
    *,
    body: dict[str, Any] | bytes | None = None,
    headers: dict[str, str] | None = None,
    wait: int = 0,
    retry: Retry | None = REPEATABLE,
) -> httpx.Response:
    """Send a request; returns the answer, and raises the problem of a refusal.

    Parameters
    ----------
    body
        Sent as JSON; bytes are JSON already.
    headers
        Sent besides the credentials.
    wait
        Seconds for which the server may delay the answer until it changes (``Prefer: wait=N``,
        RFC 7240).
    retry
        The policy for further attempts; None sends the request once.

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
        headers["Content-Type"] = "application/json"
    if wait:
        headers["Prefer"] = f"wait={wait}"
        timeout = httpx.Timeout(GRACE, read=wait + GRACE)
    attempt = 1
    while True:
        try:
            return raise_for_problem(
                api.http.request(
                    method, api.base_url + url, headers=headers, timeout=timeout, **content
                )
            )
        except (ApiError, httpx.TransportError) as error:
            pause = retry.pause(error, attempt) if retry else None
            if pause is None:
                raise
            logger.info("%s %s failed (%s); trying again in %.1f s", method, url, error, pause)
        time.sleep(pause)
        attempt += 1
