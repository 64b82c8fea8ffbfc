"""Tokens that are remembered, and forgotten in time."""

from __future__ import annotations

import time

import pytest
from cachetools import LRUCache
from django.test.utils import CaptureQueriesContext
from rest_framework.authtoken.models import Token
from rest_framework.test import APIRequestFactory

from tests.factories import problem
from zndraw_joblib.contrib import authentication
from zndraw_joblib.contrib.authentication import CachedTokenAuthentication, forget

pytestmark = pytest.mark.django_db


def status(person):
    return person.client.get("/v1/me").status_code


@pytest.fixture
def queries(bob):
    """How many statements a request of Bob's takes that needs none itself."""
    from django.db import connection

    def count():
        with CaptureQueriesContext(connection) as captured:
            assert status(bob) == 200
        return len(captured)

    return count


def test_the_database_is_asked_once(bob, queries):
    assert [queries(), queries(), queries()] == [1, 0, 0]


def test_seconds_end(bob, queries, settings_of):
    settings_of(token_cache_seconds=0)
    assert [queries(), queries()] == [1, 1]


@pytest.mark.parametrize(
    "revoke",
    [
        lambda person: Token.objects.get(user=person.user).delete(),
        lambda person: person.user.delete(),
    ],
)
def test_a_revoked_token_is_refused_at_once_in_this_process(bob, revoke):
    assert status(bob) == 200
    revoke(bob)
    problem(bob.client.get("/v1/me"), "not-authenticated", 401)


def test_a_user_who_is_no_longer_active_is_refused_at_once(bob):
    assert status(bob) == 200
    bob.user.is_active = False
    bob.user.save()
    problem(bob.client.get("/v1/me"), "not-authenticated", 401)


def test_what_another_process_revoked_is_refused_when_the_seconds_are_over(bob, monkeypatch):
    assert status(bob) == 200
    # Past the signals, as another process would with a cache of its own.
    Token.objects.filter(user=bob.user).update(user_id=bob.user.pk)
    Token.objects.filter(user=bob.user)._raw_delete("default")
    assert status(bob) == 200
    later = time.monotonic() + 5
    monkeypatch.setattr(authentication, "monotonic", lambda: later)
    problem(bob.client.get("/v1/me"), "not-authenticated", 401)


def test_refused_tokens_are_not_remembered(bob):
    made = "0" * 40
    bob.client.credentials(HTTP_AUTHORIZATION=f"Token {made}")
    problem(bob.client.get("/v1/me"), "not-authenticated", 401)
    Token.objects.filter(user=bob.user).delete()
    # Past the signals.
    Token.objects.bulk_create([Token(key=made, user=bob.user)])
    assert status(bob) == 200


@pytest.mark.parametrize("header", ["token {}", "Token  {}", " Token {} "])
def test_a_header_that_is_written_otherwise_is_right_too(bob, queries, header):
    bob.client.credentials(HTTP_AUTHORIZATION=header.format(bob.token))
    assert [queries(), queries()] == [1, 1]


def test_no_request_sees_what_another_did_to_its_user(bob):
    request = APIRequestFactory().get("/", HTTP_AUTHORIZATION=f"Token {bob.token}")
    for _ in range(3):
        user, token = CachedTokenAuthentication().authenticate(request)
        assert token.user is user
        assert user.username == "bob"
        assert not hasattr(user, "seen")
        user.username, user.seen = "mallory", True


def test_no_more_are_remembered_than_a_process_may(bob, carol, queries, monkeypatch):
    monkeypatch.setattr(authentication, "_known", LRUCache(1))
    assert [queries(), queries()] == [1, 0]
    assert status(carol) == 200
    assert [queries(), queries()] == [1, 0]


def test_forgetting_asks_again(bob, queries):
    assert [queries(), queries()] == [1, 0]
    forget(bob.token)
    assert queries() == 1


def test_permissions_are_read_anew(bob):
    from django.contrib.auth.models import Permission

    problem(bob.register("@global"), "forbidden", 403)
    bob.user.user_permissions.add(Permission.objects.get(codename="administer"))
    assert bob.register("@global").status_code == 201


def test_the_example_project_uses_it(bob):
    from zndraw_joblib.api.base import JobLibView

    assert JobLibView.authentication_classes[0] is CachedTokenAuthentication
