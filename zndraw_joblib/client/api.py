"""Requests to the server: addresses, credentials, typed errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar
from urllib.parse import quote

import httpx

from zndraw_joblib.client.credentials import GuardedAuth, RenewedToken, authorization
from zndraw_joblib.client.exceptions import (
    ApiError,
    CredentialsError,
    UnexpectedAnswerError,
    error_of,
)
from zndraw_joblib.client.forks import reset_after_fork
from zndraw_joblib.client.retry import REPEATABLE, OutageLog, Retry

T = TypeVar("T")

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
        """Address below which ``v1/joblib`` is: ``https://example.org`` or with a path."""

    def get_headers(self) -> dict[str, str]:
        """Headers of each request, such as ``Authorization``; called before each attempt."""


class Api:
    """A ready `ApiManager`.

    Parameters
    ----------
    base_url
        Address below which ``v1/joblib`` is: ``https://example.org``, or with a path as in
        ``https://example.org/t/acme/``.
    token
        Sent as ``Authorization: <scheme> <token>``; a text with a space is sent as it is. A
        function without arguments returns the token and is asked again after a 401.
    scheme
        Precedes a token: ``Token`` for DRF's tokens, ``Bearer`` for JSON Web Tokens.
    auth
        Authenticates the requests in place of `token`.
    timeout
        Seconds within which the server must answer, in addition to the seconds of a wait, and the
        function of a token must return.
    transport
        Carries the requests; for tests.

    Raises
    ------
    ValueError
        The address is not one of HTTP, or has a query; the token cannot be sent in a header; or
        more than one of `token`, `auth` and credentials in the address are given.
    TypeError
        `token` is no text, or `auth` no `httpx.Auth`.
    """

    def __init__(
        self,
        base_url: str,
        token: str | Callable[[], str] | None = None,
        *,
        scheme: str = "Token",
        auth: httpx.Auth | None = None,
        timeout: float = GRACE,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        address = httpx.URL(base_url)
        if address.scheme not in {"http", "https"} or not address.host:
            raise ValueError(f"base_url must be like https://example.org, not {base_url!r}")
        if set("?#") & set(base_url):
            raise ValueError("base_url must have neither a query nor a fragment")
        if address.userinfo and (token or auth):
            # httpx would send these in place of the token, without a word.
            raise ValueError("give credentials either in base_url, or as token or auth")
        if token and auth:
            raise ValueError("give either token or auth")
        if not isinstance(auth, httpx.Auth | None):
            raise TypeError("auth must be an httpx.Auth; a function is given as token")
        self.base_url = base_url.rstrip("/")
        self._headers: dict[str, str] = {}
        if callable(token):
            auth = RenewedToken(token, scheme, timeout)
        elif token:
            self._headers = {"Authorization": authorization(token, scheme)}
        elif auth:
            auth = GuardedAuth(auth)
        self._auth = auth
        self._timeout = timeout
        self._transport = transport
        reset_after_fork(self)

    @cached_property
    def http(self) -> httpx.Client:
        """The client that sends the requests, made at the first one of each process."""
        return httpx.Client(
            auth=self._auth,
            timeout=self._timeout,
            transport=self._transport,
            limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=20),
        )

    def after_fork(self) -> None:
        """Leave the connections to the parent, because two processes cannot share them."""
        self.__dict__.pop("http", None)

    def __getstate__(self) -> dict[str, Any]:
        # Without connections, because another process makes its own. The credentials are kept.
        return {name: value for name, value in self.__dict__.items() if name != "http"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        reset_after_fork(self)

    def get_headers(self) -> dict[str, str]:
        """The fixed token; empty without one, because `http` adds all other credentials."""
        return self._headers

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
    read: Callable[[httpx.Response], T],
    body: dict[str, Any] | bytes | None = None,
    stream: Iterable[bytes] | None = None,
    headers: dict[str, str] | None = None,
    wait: int = 0,
    timeout: float | None = None,
    retry: Retry | None = REPEATABLE,
    outage: OutageLog | None = None,
) -> T:
    """Send a request; returns what `read` makes of the answer, and raises a refusal.

    An answer that is not the server's is an error like a failed connection, because proxies send
    pages of their own while the server is away. Redirects are not followed: a redirected POST
    becomes a GET, and the credentials would go to another host.

    Parameters
    ----------
    read
        Returns the value of an answer below 300, or of a 304 to ``If-None-Match``, and raises
        `ValueError` if it is not one that the server gives.
    body
        Sent as JSON; bytes are JSON already.
    stream
        Sent in place of `body`, and again from its beginning at each attempt; `headers` have its
        type and length.
    headers
        Sent besides the credentials.
    wait
        Seconds for which the server may delay the answer until it changes (``Prefer: wait=N``,
        RFC 7240).
    timeout
        Seconds for which the server may neither take a part of the body nor answer, in place of
        those of the client.
    retry
        The policy for further attempts; None sends the request once.
    outage
        Logs the failures before further attempts; given by a caller that repeats the request.

    Raises
    ------
    ApiError
        The server refused, or the answer is not the server's (its `problem` is empty).
    httpx.TransportError
        The server cannot be reached.
    """
    headers = dict(headers or {})
    limits: Any = httpx.USE_CLIENT_DEFAULT if timeout is None else _timeout(timeout)
    content: dict[str, Any] = {"json": body}
    if isinstance(body, bytes):
        content = {"content": body}
        headers["Content-Type"] = "application/json"
    elif stream is not None:
        content = {"content": stream}
    if wait:
        headers["Prefer"] = f"wait={wait}"
        limits = httpx.Timeout(GRACE, read=wait + GRACE)
    options = {"headers": headers, "timeout": limits, "follow_redirects": False, **content}
    outage = outage or OutageLog(f"{method} {url}")
    attempt = 1
    while True:
        try:
            value = _value(_request(api, method, url, options), read)
        except (ApiError, httpx.TransportError) as error:
            pause = retry.pause(error, attempt) if retry else None
            if pause is None:
                raise
            outage.failed(error, pause)
        else:
            outage.ended()
            return value
        time.sleep(pause)
        attempt += 1


@contextmanager
def open_stream(
    api: ApiManager, url: str, headers: dict[str, str], timeout: float
) -> Iterator[httpx.Response]:
    """Send a GET request once; yields the answer, whose body is read in the block.

    Raises
    ------
    ApiError, httpx.TransportError
        As `send` does; also in the block.
    """
    with _errors():
        headers = {**_credentials(api), **headers}
        address = api.base_url.rstrip("/") + url
        with api.http.stream(
            "GET", address, headers=headers, timeout=_timeout(timeout), follow_redirects=False
        ) as response:
            if response.status_code >= 400:
                response.read()
                raise error_of(response)
            if not response.is_success:
                raise UnexpectedAnswerError(response, {})
            yield response


def _timeout(seconds: float) -> httpx.Timeout:
    return httpx.Timeout(GRACE, read=seconds, write=seconds)


def _request(api: ApiManager, method: str, url: str, options: dict[str, Any]) -> httpx.Response:
    with _errors():
        options = {**options, "headers": {**_credentials(api), **options["headers"]}}
        return api.http.request(method, api.base_url.rstrip("/") + url, **options)


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except httpx.DecodingError as error:
        # Not a `TransportError`, although the answer is as damaged as one that was cut off.
        raise httpx.RemoteProtocolError(
            f"the body of the answer cannot be decoded: {error}", request=error.request
        ) from error


def _value(response: httpx.Response, read: Callable[[httpx.Response], T]) -> T:
    if response.status_code >= 400:
        raise error_of(response)
    if response.is_success or _is_unchanged(response):
        try:
            return read(response)
        except ValueError:
            pass
    # Without the error of `read`, because its text may contain a payload.
    raise UnexpectedAnswerError(response, {})


def _is_unchanged(response: httpx.Response) -> bool:
    """Whether this is a 304 that was asked for; any other redirect is not the server's."""
    return (
        response.status_code == httpx.codes.NOT_MODIFIED
        and "If-None-Match" in response.request.headers
    )


def _credentials(api: ApiManager) -> dict[str, str]:
    try:
        return api.get_headers()
    except httpx.TransportError:
        raise
    except Exception as error:
        raise CredentialsError(f"get_headers() failed: {error!r}") from error
