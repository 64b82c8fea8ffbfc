"""Pages of other origins open WebSockets only where the host trusts them."""

from __future__ import annotations

import re

import pytest
from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured

from tests.sockets import Socket, token
from tests.waiting.test_websockets import session_cookie
from zndraw_joblib.origins import Trust, page_trust
from zndraw_joblib.settings import get_settings

APP = "https://app.example.org"
PATH = "/ws/v1/joblib/rooms/open/"

LISTED = {"CORS_ALLOWED_ORIGINS": [APP]}
PATTERNS = {"CORS_ALLOWED_ORIGIN_REGEXES": [r"^https://\w+\.example\.org$"]}
COMPILED = {"CORS_ALLOWED_ORIGIN_REGEXES": [re.compile(r"^https://\w+\.example\.org$")]}
OLD_NAMES = {"CORS_ORIGIN_WHITELIST": [APP]}
ALL = {"CORS_ALLOW_ALL_ORIGINS": True}
COOKIES = {"CORS_ALLOW_CREDENTIALS": True}
OWN = {"ZNDRAW_JOBLIB": {"websocket_origins": [APP]}}
ANY = {"ZNDRAW_JOBLIB": {"websocket_origins": ["*"]}}
API_ONLY = {"CORS_URLS_REGEX": r"^/v1/joblib/.*$"}
OTHER_PATHS = {"CORS_URLS_REGEX": r"^/public/"}


@pytest.fixture
def trust(settings):
    """A function that applies a host's settings and returns the trust in an origin."""

    def of(origin, changed=None, path=PATH):
        for name, value in (changed or {}).items():
            setattr(settings, name, value)
        return page_trust(origin, path)

    return of


@pytest.mark.parametrize(
    ("host", "origin", "expected"),
    [
        ("jobs.example.org", "https://jobs.example.org", Trust.FULL),
        ("jobs.example.org", "https://jobs.example.org:8443", Trust.FULL),
        ("jobs.example.org", "HTTPS://Jobs.Example.ORG", Trust.FULL),
        ("jobs.example.org", "https://jobs.example.org.evil.example", Trust.NONE),
        ("jobs.example.org", "https://jobs.example.org@evil.example", Trust.NONE),
        ("jobs.example.org", APP, Trust.NONE),
        (".example.org", APP, Trust.FULL),
        ("[::1]", "http://[::1]:8000", Trust.FULL),
        ("[::1]", "http://[::2]:8000", Trust.NONE),
        ("jobs.example.org", "null", Trust.NONE),
        ("jobs.example.org", "", Trust.NONE),
        ("jobs.example.org", "https://jobs.example.org:99999", Trust.NONE),
        ("jobs.example.org", "https://[", Trust.NONE),
        # Every client that is no browser.
        ("jobs.example.org", None, Trust.FULL),
    ],
)
def test_pages_of_allowed_hosts_are_trusted(trust, host, origin, expected):
    assert trust(origin, {"ALLOWED_HOSTS": [host]}) is expected


@pytest.mark.parametrize(
    ("origin", "expected"), [("http://a.localhost:3000", Trust.FULL), (APP, Trust.NONE)]
)
def test_in_debug_without_hosts_the_local_pages_are_trusted(trust, origin, expected):
    assert trust(origin, {"ALLOWED_HOSTS": [], "DEBUG": True}) is expected


@pytest.mark.parametrize(
    ("entry", "origin", "expected"),
    [
        (APP, APP, Trust.FULL),
        (APP, "https://APP.example.org:443", Trust.FULL),
        (APP, "http://app.example.org", Trust.NONE),
        (APP, "https://app.example.org:8443", Trust.NONE),
        (APP, "https://x.app.example.org", Trust.NONE),
        ("https://.example.org", APP, Trust.FULL),
        ("http://localhost:3000", "http://localhost:3000", Trust.FULL),
        ("http://[2001:db8::1]:3000", "http://[2001:DB8::1]:3000", Trust.FULL),
        ("capacitor://localhost", "capacitor://localhost", Trust.FULL),
        (APP, "null", Trust.NONE),
        ("*", "https://evil.example", Trust.WITHOUT_COOKIES),
        ("*", "null", Trust.WITHOUT_COOKIES),
    ],
)
def test_pages_of_websocket_origins_are_trusted(trust, entry, origin, expected):
    changed = {"ALLOWED_HOSTS": ["jobs.x"], "ZNDRAW_JOBLIB": {"websocket_origins": [entry]}}
    assert trust(origin, changed) is expected


@pytest.mark.parametrize(
    ("changed", "origin", "expected"),
    [
        (LISTED, APP, Trust.WITHOUT_COOKIES),
        (LISTED | COOKIES, APP, Trust.FULL),
        (LISTED | COOKIES, "https://app.example.org:8443", Trust.NONE),
        (LISTED | COOKIES, "https://evil.example", Trust.NONE),
        (PATTERNS, APP, Trust.WITHOUT_COOKIES),
        (PATTERNS | COOKIES, APP, Trust.FULL),
        (PATTERNS | COOKIES, "https://app.example.org.evil.example", Trust.NONE),
        (COMPILED | COOKIES, APP, Trust.FULL),
        (OLD_NAMES | COOKIES, APP, Trust.FULL),
        (ALL, "https://evil.example", Trust.WITHOUT_COOKIES),
        (ALL | COOKIES, "https://evil.example", Trust.WITHOUT_COOKIES),
        (ALL | COOKIES | LISTED, APP, Trust.FULL),
        (ALL | COOKIES, "null", Trust.WITHOUT_COOKIES),
        (ALL | OTHER_PATHS, "null", Trust.NONE),
        (LISTED | COOKIES, "null", Trust.NONE),
        # As django-cors-headers does, but without cookies: any site can make such a page.
        ({"CORS_ALLOWED_ORIGINS": ["null", "*"]} | COOKIES, "null", Trust.WITHOUT_COOKIES),
        ({"CORS_ALLOWED_ORIGIN_REGEXES": ["^null$"]}, "null", Trust.WITHOUT_COOKIES),
        ({"CORS_ALLOWED_ORIGINS": ["null", "*"]} | COOKIES, "https://evil.example", Trust.NONE),
        (LISTED | COOKIES | API_ONLY, APP, Trust.FULL),
        (LISTED | COOKIES | OTHER_PATHS, APP, Trust.NONE),
        (ALL | OTHER_PATHS, APP, Trust.NONE),
    ],
)
def test_pages_of_the_hosts_cors_are_trusted_as_over_http(trust, changed, origin, expected):
    assert trust(origin, changed) is expected


@pytest.mark.parametrize(
    "entry",
    [
        "app.example.org",
        "https://app.example.org/",
        "https://app.example.org/x",
        "https://",
        "https://a:port",
        "https://*.example.org",
        "wss://app.example.org",
        "https://user@app.example.org",
        "null",
        "",
    ],
)
def test_an_entry_that_is_no_origin_is_a_wrong_setting(settings_of, entry):
    settings_of(websocket_origins=[APP, entry])
    with pytest.raises(ImproperlyConfigured, match="websocket_origins"):
        get_settings()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("changed", "by_token", "by_session"),
    [
        ({}, 4403, 4403),
        (OWN, None, None),
        (ANY, None, 4401),
        (LISTED | COOKIES, None, None),
        (LISTED, None, 4401),
        (ALL | COOKIES, None, 4401),
    ],
)
async def test_a_page_without_full_trust_does_not_act_by_the_session(
    bob, settings, changed, by_token, by_session
):
    """Control: without the removal of session and user the last three opened by the session."""
    for name, value in changed.items():
        setattr(settings, name, value)
    cookie = await sync_to_async(session_cookie)(bob.user)
    origin = (b"origin", APP.encode())
    for headers, code in (([*token(bob), origin], by_token), ([cookie, origin], by_session)):
        async with Socket("rooms/open", headers) as socket:
            if code:
                assert await socket.code() == code
            else:
                assert await socket.communicator.receive_nothing(0.3)
