"""Filters that a user of the admin keeps under a name."""

from __future__ import annotations

import re
from html import escape

import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from zndraw_joblib.admin.saved_filters import MAX_FILTERS
from zndraw_joblib.models import SavedFilter

pytestmark = [pytest.mark.django_db, pytest.mark.any_database]

TASKS = "/admin/zndraw_joblib/task/"
HOSTILE = '"><script>alert(1)</script>'


def page(client, url=TASKS):
    answer = client.get(url)
    assert answer.status_code == 200, answer
    return answer.content.decode()


def change(client, url=TASKS, **fields):
    return client.post(f"{url}filters/", fields, follow=True)


def links(html):
    nav = re.search(r'<nav class="joblib-filters".*?</nav>', html, re.DOTALL)
    return re.findall(r'<a href="\?([^"]*)"', nav[0]) if nav else []


@pytest.mark.parametrize("model", ["task", "job", "worker"])
def test_a_saved_filter_is_a_link_above_its_list_alone_until_it_is_deleted(admin, model):
    url = f"/admin/zndraw_joblib/{model}/"
    shown = change(admin, url, name="mine", query="q=abc&o=1").content.decode()
    assert "q=abc&amp;o=1" in links(shown)
    assert ">mine</bdi>" in page(admin, url)
    others = {"task", "job", "worker"} - {model}
    assert all("mine</bdi>" not in page(admin, f"/admin/zndraw_joblib/{n}/") for n in others)
    change(admin, url, delete=SavedFilter.objects.get().pk)
    assert "mine</bdi>" not in page(admin, url)


def test_a_filter_outlives_the_session_and_is_shown_to_its_owner_alone(admin, root, people):
    change(admin, name="mine", query="q=abc")
    admin.logout()
    again = Client()
    again.force_login(root.user)
    assert "mine</bdi>" in page(again)
    other = Client()
    other.force_login(people("second", is_staff=True, is_superuser=True).user)
    assert "mine</bdi>" not in page(other)
    change(other, delete=SavedFilter.objects.get().pk)
    assert SavedFilter.objects.count() == 1


def test_the_form_is_shown_for_a_filter_without_a_name(admin):
    field = 'name="name"'
    assert field not in page(admin)
    assert field not in page(admin, f"{TASKS}?status__exact=pending")
    shown = page(admin, f"{TASKS}?status__exact=pending&room_id=a&p=1")
    assert field in shown
    assert 'name="query" value="status__exact=pending&amp;room_id=a"' in shown
    change(admin, name="mine", query="status__exact=pending&room_id=a&p=1")
    assert field not in page(admin, f"{TASKS}?status__exact=pending&room_id=a")


def test_a_name_that_is_saved_again_has_the_new_filter(admin):
    change(admin, name="mine", query="q=a")
    change(admin, name="mine", query="q=b")
    assert SavedFilter.objects.get().query == "q=b"


def test_names_and_queries_are_escaped(admin):
    change(admin, name=HOSTILE, query=f"q={HOSTILE}")
    shown = page(admin)
    assert HOSTILE not in shown
    assert escape(HOSTILE) in shown


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "", "query": "q=a"},
        {"name": " ", "query": "q=a"},
        {"name": "x" * 61, "query": "q=a"},
        {"name": "a\0b", "query": "q=a"},
        {"name": "a", "query": "q=\0"},
        {"name": "a", "query": "q=" + "a" * 2000},
        {"delete": "abc"},
        {"delete": str(2**70)},
        {},
    ],
)
def test_an_invalid_filter_is_refused_with_a_message(admin, fields):
    answer = change(admin, **fields)
    assert answer.status_code == 200
    assert 'class="error"' in answer.content.decode()
    assert not SavedFilter.objects.exists()


def test_a_query_that_grows_when_it_is_encoded_is_refused(admin):
    change(admin, name="a", query="q=" + "ü" * 1000)
    assert not SavedFilter.objects.exists()


def test_a_user_has_a_limited_number_of_filters_of_a_list(admin):
    for number in range(MAX_FILTERS + 1):
        answer = change(admin, name=f"{number}", query="q=a")
    assert SavedFilter.objects.count() == MAX_FILTERS
    assert "as many as you may" in answer.content.decode()
    change(admin, name="0", query="q=b")
    assert SavedFilter.objects.filter(query="q=b").count() == 1


def test_filters_need_the_permission_to_view_the_list(client, people):
    assert change(client, name="a", query="q=a").redirect_chain
    staff = people("staff", is_staff=True).user
    client.force_login(staff)
    assert change(client, name="a", query="q=a").status_code == 403
    staff.user_permissions.add(
        Permission.objects.get(codename="view_task", content_type__app_label="zndraw_joblib")
    )
    assert change(client, name="a", query="q=a").status_code == 200
    assert client.get(f"{TASKS}filters/").status_code == 405
    assert SavedFilter.objects.get().owner == str(staff.pk)


def test_a_post_without_the_csrf_token_is_refused(root):
    client = Client(enforce_csrf_checks=True)
    client.force_login(root.user)
    assert client.post(f"{TASKS}filters/", {"name": "a", "query": "q=a"}).status_code == 403
