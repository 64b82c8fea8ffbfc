"""The first page, signing in, and what the demo adds to the page of a room."""

from __future__ import annotations

import re

import pytest
from django.test import Client
from django.utils.translation import deactivate

from example_project.policy import POLICY
from zndraw_joblib.models import Task

pytestmark = [pytest.mark.django_db, pytest.mark.any_database]


@pytest.fixture
def demo_key(settings):
    settings.DEMO_KEY = "the key"
    return settings.DEMO_KEY


@pytest.fixture
def by_header(settings):
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.middleware.locale.LocaleMiddleware"]
    yield
    # The middleware leaves the last request's language to the thread.
    deactivate()


def content(client, path="/"):
    return " ".join(client.get(path).content.decode().split())


def test_the_first_page_introduces_the_site_to_strangers(client):
    page = content(client)
    assert "/sign-in/?next=/rooms/demo/" in page
    for link in ("/admin/", "/api/docs", "/api/redoc", "/api/schema"):
        assert f'href="{link}"' in page


def test_the_first_page_shows_rooms_running_tasks_ends_and_workers(client, bob):
    bob.register("lab")
    running, failed, _pending = (
        bob.submit("lab", "lab:modifiers:Rotate").json()["id"] for _ in range(3)
    )
    for _ in range(2):
        bob.claim()
    bob.report(running, "running", attempt=1, progress=0.5, message="half of <b>it</b>")
    bob.report(failed, "running", attempt=1)
    bob.report(failed, "failed", attempt=1, error="too <i>hot</i>", retry=False)
    client.force_login(bob.user)
    page = content(client)
    assert "1 running, 1 waiting, 1 ended" in page
    assert f'href="/rooms/lab/?task={running}"' in page
    assert "half of &lt;b&gt;it&lt;/b&gt;" in page
    assert '<progress value="0.5"' in page
    assert "too &lt;i&gt;hot&lt;/i&gt;" in page
    assert "1 task, last heard just now" in page
    assert "lab, just now: too" in page


def test_the_first_page_leaves_out_rooms_that_the_user_may_not_read(
    client, bob, carol, settings_of
):
    settings_of(room_access="tests.factories.by_room")
    bob.register("bobs")
    bob.submit("bobs", "bobs:modifiers:Rotate")
    client.force_login(carol.user)
    assert "bobs" not in content(client)
    client.force_login(bob.user)
    assert "bobs" in content(client)


def test_the_first_page_reads_a_bounded_number_of_rows(client, bob, django_assert_max_num_queries):
    bob.register("lab")
    for _ in range(20):
        bob.submit("lab", "lab:modifiers:Rotate")
    client.force_login(bob.user)
    # The session, the user, the administrator's right (twice), and three of the page.
    with django_assert_max_num_queries(7):
        page = content(client)
    assert "20 waiting" in page


def test_a_room_page_needs_access_to_the_room(bob, carol, root, client, settings_of):
    settings_of(room_access="tests.factories.by_room")
    assert client.get("/rooms/bobs/").status_code == 302
    answers = []
    for person in (bob, carol, root):
        client.force_login(person.user)
        answers.append(client.get("/rooms/bobs/").status_code)
    assert answers == [200, 404, 200]


def test_the_room_page_has_the_sites_frame_and_the_viewer_above_the_jobs(client, bob):
    client.force_login(bob.user)
    page = content(client, "/rooms/demo/")
    frame, viewer, jobs, tasks = (
        page.index(part)
        for part in ('class="site"', 'id="viewer"', 'id="joblib-jobs"', 'id="joblib-tasks"')
    )
    assert frame < viewer < jobs < tasks


@pytest.mark.parametrize("path", ["/", "/sign-in/", "/rooms/demo/", "/admin/", "/nowhere"])
def test_each_page_has_a_strict_policy_and_no_inline_code(client, root, path):
    client.force_login(root.user)
    answer = client.get(path, follow=True)
    assert answer["Content-Security-Policy"] == POLICY
    page = answer.content.decode()
    for script in re.findall(r"<script[^>]*>", page):
        assert "src=" in script or "application/json" in script
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=", page)


def test_the_pages_of_the_api_documentation_take_everything_from_this_site(client):
    for path in ("/api/docs", "/api/redoc"):
        answer = client.get(path)
        assert "Content-Security-Policy" not in answer
        page = answer.content.decode()
        assert "/static/drf_spectacular_sidecar/" in page
        assert "https://" not in page
    css = client.get("/static/admin/css/base.css")
    assert css.status_code == 200
    css.close()


def test_somebody_signs_in_with_name_and_password_and_out_again(client, bob):
    bob.user.set_password("correct horse")
    bob.user.save()
    form = {"username": "bob", "password": "wrong", "next": "/rooms/demo/"}
    refused = client.post("/sign-in/", form)
    assert refused.status_code == 200
    assert 'role="alert"' in refused.content.decode()
    entered = client.post("/sign-in/", form | {"password": "correct horse"})
    assert entered["Location"] == "/rooms/demo/"
    assert client.get("/sign-in/")["Location"] == "/"
    client.post("/sign-out/")
    assert client.get("/rooms/demo/").status_code == 302


def test_the_link_of_the_demo_signs_in_its_user(client, people, demo_key):
    people("demo", is_superuser=True, is_staff=True)
    assert client.get("/demo/another key/").status_code == 404
    assert client.get("/rooms/demo/").status_code == 302
    assert client.get(f"/demo/{demo_key}/")["Location"].startswith("/rooms/demo/?job=")
    assert client.get("/rooms/demo/").status_code == 200


@pytest.mark.parametrize("key", ["x", "%20", "None"])
def test_a_site_that_is_no_demo_has_no_such_link(client, people, key, settings):
    people("demo", is_superuser=True, is_staff=True)
    assert settings.DEMO_KEY == ""
    assert client.get(f"/demo/{key}/").status_code == 404
    assert client.get("/rooms/demo/").status_code == 302


def test_only_the_administrator_of_a_demo_gets_the_command_of_a_worker(
    client, bob, root, demo_key, settings
):
    assert client.post("/demo/worker/").status_code == 404
    client.force_login(bob.user)
    assert client.post("/demo/worker/").status_code == 404
    assert "copy-command" not in content(client, "/rooms/demo/")
    client.force_login(root.user)
    page = content(client, "/rooms/demo/")
    assert "copy-command" in page
    assert root.token not in page
    command = client.post("/demo/worker/").json()["command"]
    assert f"JOBLIB_TOKEN={root.token}" in command
    assert command.endswith("-m example_project.demo.worker")
    assert client.get("/demo/worker/").status_code == 405
    settings.DEMO_KEY = ""
    assert client.post("/demo/worker/").status_code == 404


def test_the_command_of_a_worker_needs_the_token_against_forgery(root, demo_key):
    client = Client(enforce_csrf_checks=True)
    client.force_login(root.user)
    assert client.post("/demo/worker/").status_code == 403


def test_a_result_reaches_no_page_as_markup(client, bob):
    bob.register("lab")
    task = bob.submit("lab", "lab:modifiers:Rotate").json()["id"]
    bob.claim()
    bob.report(task, "running", attempt=1, message="<script>alert(1)</script>")
    client.force_login(bob.user)
    assert Task.objects.get(pk=task).message == "<script>alert(1)</script>"
    assert "<script>alert" not in content(client) + content(client, "/rooms/lab/")


@pytest.mark.parametrize("path", ["/", "/sign-in/", "/rooms/demo/"])
def test_each_text_of_the_pages_is_translated(client, root, demo_key, by_header, path):
    """A page in German has no text in common with the page in English."""
    if path != "/sign-in/":
        client.force_login(root.user)
    texts = []
    for language in ("en", "de"):
        page = client.get(path, headers={"Accept-Language": language}).content.decode()
        assert f'<html lang="{language}">' in page
        page = re.sub(r"<script.*?</script>|<option.*?</option>", "", page, flags=re.DOTALL)
        words = re.findall(r">([^<>]+)<", page) + re.findall(r'="([^"]* [^"]*)"', page)
        texts.append({" ".join(word.split()) for word in words if re.search("[a-z]{3} ", word)})
    allowed = {"width=device-width, initial-scale=1", "light dark", "panel sign-in", "make demo"}
    assert texts[0] & texts[1] - allowed == set()
