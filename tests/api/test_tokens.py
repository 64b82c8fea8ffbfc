"""`CachedTokenAuthentication`: its queries, and how soon a revoked token is refused."""

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


def status(person, **headers):
    return person.client.get("/v1/me", headers=headers).status_code


@pytest.fixture
def queries(bob):
    """A function that counts the queries of authentication, by a view without queries."""
    from django.db import connection

    def count(**headers):
        with CaptureQueriesContext(connection) as captured:
            assert status(bob, **headers) == 200
        return len(captured)

    return count


def test_the_second_request_needs_no_query(bob, queries):
    assert [queries(), queries(), queries()] == [1, 0, 0]


def test_without_cache_seconds_each_request_queries(bob, queries, settings_of):
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


def test_a_token_that_another_process_revoked_is_refused_when_its_entry_expires(bob, monkeypatch):
    assert status(bob) == 200
    # No signal is sent in this process, as if another process had deleted the token.
    Token.objects.filter(user=bob.user).update(user_id=bob.user.pk)
    Token.objects.filter(user=bob.user)._raw_delete("default")
    assert status(bob) == 200
    later = time.monotonic() + 5
    monkeypatch.setattr(authentication, "monotonic", lambda: later)
    problem(bob.client.get("/v1/me"), "not-authenticated", 401)


def test_refused_tokens_are_not_cached(bob):
    key = "0" * 40
    bob.client.credentials(HTTP_AUTHORIZATION=f"Token {key}")
    problem(bob.client.get("/v1/me"), "not-authenticated", 401)
    Token.objects.filter(user=bob.user).delete()
    # Sends no signal, which would clear the cache.
    Token.objects.bulk_create([Token(key=key, user=bob.user)])
    assert status(bob) == 200


@pytest.mark.parametrize("header", ["token {}", "Token  {}", " Token {} "])
def test_another_spelling_of_the_header_is_accepted_and_not_cached(bob, queries, header):
    bob.client.credentials(HTTP_AUTHORIZATION=header.format(bob.token))
    assert [queries(), queries()] == [1, 1]


def test_changes_to_the_user_do_not_leak_into_later_requests(bob):
    request = APIRequestFactory().get("/", HTTP_AUTHORIZATION=f"Token {bob.token}")
    for _ in range(3):
        user, token = CachedTokenAuthentication().authenticate(request)
        assert token.user is user
        assert user.username == "bob"
        assert not hasattr(user, "seen")
        user.username, user.seen = "mallory", True


def test_the_cache_is_bounded(bob, carol, queries, monkeypatch):
    monkeypatch.setattr(authentication, "_cache", LRUCache(1))
    assert [queries(), queries()] == [1, 0]
    assert status(carol) == 200
    assert [queries(), queries()] == [1, 0]


def test_forget_drops_a_token_from_the_cache(bob, queries):
    assert [queries(), queries()] == [1, 0]
    forget(bob.token)
    assert queries() == 1


def test_permissions_are_not_cached(bob):
    from django.contrib.auth.models import Permission

    problem(bob.register("@global"), "forbidden", 403)
    bob.user.user_permissions.add(Permission.objects.get(codename="administer"))
    assert bob.register("@global").status_code == 201


def test_the_example_project_caches_tokens(bob):
    from zndraw_joblib.api.base import JobLibView

    assert JobLibView.authentication_classes[0] is CachedTokenAuthentication


def test_a_token_of_one_tenant_is_looked_up_again_for_another(bob, queries, settings_of):
    """Else a token that only one tenant has would be accepted at all others."""
    path = "tests.waiting.test_tenants"
    settings_of(
        tenant=f"{path}.tenant_of", in_tenant=f"{path}.in_tenant", tenants=f"{path}.all_tenants"
    )
    assert [queries(x_tenant="a"), queries(x_tenant="a"), queries(x_tenant="b")] == [1, 0, 1]
