"""The NFC and NFD spellings of a name are one name, at every entrance."""

from __future__ import annotations

import asyncio
import unicodedata
from urllib.parse import quote

import pytest
from asgiref.sync import sync_to_async
from rest_framework.permissions import BasePermission

from tests.factories import SCHEMA, problem
from tests.sockets import Socket, token
from zndraw_joblib.models import Job, Task
from zndraw_joblib.names import JobName, nfc
from zndraw_joblib.services.submit import Submission

NFC = unicodedata.normalize("NFC", "Größe")
NFD = unicodedata.normalize("NFD", "Größe")
ASKED: list[str] = []


def recorded_access(request, room_id, action):
    ASKED.append(room_id)
    return True


@pytest.fixture
def one_category(settings_of):
    settings_of(allowed_categories=[NFD], room_access="tests.api.test_spellings.recorded_access")


def put(person, room, name):
    body = {"category": name, "name": name, "schema": SCHEMA}
    return person.send("put", f"/rooms/{quote(room)}/jobs", body)


@pytest.mark.django_db
@pytest.mark.parametrize("other", [NFC, NFD], ids=["NFC", "NFD"])
def test_both_spellings_name_one_room_and_one_job(bob, one_category, other):
    """Control: without `nfc` the second spelling was another room and another job."""
    ASKED.clear()
    assert NFC != NFD
    full = f"{NFC}:{NFC}:{NFC}"
    made = put(bob, NFD, NFD)
    assert made.status_code == 201, made.json()
    assert (made.json()["room_id"], made.json()["full_name"]) == (NFC, full)
    assert put(bob, other, other).status_code == 200
    room, job = quote(other), quote(f"{other}:{NFD}:{other}")
    assert bob.get(f"/rooms/{room}/jobs/{job}").json()["full_name"] == full
    assert [each["full_name"] for each in bob.get(f"/rooms/{room}/jobs").json()] == [full]
    assert len(bob.get(f"/rooms/{room}/workers").json()) == 1
    task = bob.send("post", f"/rooms/{room}/tasks/{job}", {"payload": {}}).json()
    assert (task["room_id"], task["job_name"]) == (NFC, full)
    for path in (f"/rooms/{room}/tasks", f"/rooms/{room}/jobs/{job}/tasks"):
        for status in ("", "?status=pending"):
            assert [each["id"] for each in bob.get(path + status).json()] == [task["id"]]
    many = bob.send("post", f"/rooms/{room}/tasks/{job}", [{"payload": {}}])
    assert NFC in unicodedata.normalize("NFC", many["Location"]) or quote(NFC) in many["Location"]
    assert bob.claim()["id"] == task["id"]
    # The hook compares room ids, so it must not get two spellings of one.
    assert set(ASKED) == {NFC}


@pytest.mark.django_db
def test_a_repeated_submit_in_the_other_spelling_gives_the_same_task(bob, one_category):
    put(bob, NFC, NFC)
    ids = [
        bob.send(
            "post",
            f"/rooms/{quote(room)}/tasks/{quote(f'{room}:{NFC}:{room}')}",
            {"payload": {}},
            headers={"Idempotency-Key": '"one"'},
        ).json()["id"]
        for room in (NFC, NFD)
    ]
    assert ids[0] == ids[1]


@pytest.mark.django_db
def test_both_spellings_share_the_limit_of_pending_tasks(bob, settings_of, one_category):
    settings_of(max_pending_per_room=1)
    put(bob, NFC, NFC)
    job = f"{NFC}:{NFC}:{NFC}"
    assert bob.submit(quote(NFC), quote(job)).status_code == 202
    problem(bob.submit(quote(NFD), quote(job)), "too-many-pending", 429)


@pytest.mark.django_db
def test_rows_that_host_code_makes_and_seeks_are_in_nfc():
    job = Job.objects.create(room_id=NFD, category=NFD, name=NFD, schema="{}")
    assert (job.room_id, job.category, job.name) == (NFC, NFC, NFC)
    assert Job.objects.values_list("room_id", flat=True).get() == NFC
    task = job.enqueue(NFD, {}, "1")
    assert task.room_id == NFC
    assert Task.objects.get(room_id=NFD).pk == Task.objects.get(room_id=NFC).pk == task.id
    assert Job.objects.filter(name__in=[NFD]).exists()
    Task.objects.update(room_id=NFD)
    assert Task.objects.get(room_id=NFC).room_id == NFC


@pytest.mark.django_db(transaction=True)
async def test_a_websocket_of_the_other_spelling_gets_the_ends(bob, one_category):
    await sync_to_async(put)(bob, NFC, NFC)
    job = quote(f"{NFC}:{NFC}:{NFC}")
    task_id = (await sync_to_async(bob.submit)(quote(NFC), job)).json()["id"]
    async with Socket(f"rooms/{NFD}", token(bob)) as socket:
        await asyncio.sleep(0.5)
        await sync_to_async(bob.report)(task_id, "cancelled")
        assert (await socket.json())["id"] == task_id


class RecordedRoom(BasePermission):
    def has_permission(self, request, view):
        ASKED.append(view.kwargs["room_id"])
        return True


@pytest.mark.django_db(transaction=True)
async def test_a_permission_of_the_site_gets_nfc_over_http_and_websocket(bob, settings):
    settings.REST_FRAMEWORK = {
        **settings.REST_FRAMEWORK,
        "DEFAULT_PERMISSION_CLASSES": ["tests.api.test_spellings.RecordedRoom"],
    }
    ASKED.clear()
    await sync_to_async(bob.get)(f"/rooms/{quote(NFD)}/tasks")
    async with Socket(f"rooms/{NFD}", token(bob)) as socket:
        assert await socket.communicator.receive_nothing(0.2)
    assert len(ASKED) > 1
    assert set(ASKED) == {NFC}


@pytest.mark.django_db
def test_a_search_in_the_admin_finds_both_spellings(root, one_category):
    put(root, NFC, NFC)
    root.submit(quote(NFC), quote(f"{NFC}:{NFC}:{NFC}"))
    root.client.force_login(root.user)
    for query in (f"?q={quote(NFD)}", f"?room_id={quote(NFD)}"):
        page = root.client.get(f"/admin/zndraw_joblib/task/{query}")
        assert page.context["cl"].result_count == 1
    for term in (NFD, NFD[:4]):
        page = root.client.get(f"/admin/zndraw_joblib/job/?q={quote(term)}")
        assert page.context["cl"].result_count == 1


def test_names_of_the_sdk_and_of_services_are_in_nfc():
    assert JobName(NFD, NFD, NFD) == JobName.parse(f"{NFD}:{NFC}:{NFD}") == JobName(NFC, NFC, NFC)
    assert Submission(None, NFD, f"{NFD}:{NFD}:{NFD}", []).name == JobName(NFC, NFC, NFC)
    assert Submission(None, NFD, "", []).room_id == NFC


def test_the_length_of_a_name_is_that_of_its_nfc():
    assert JobName.parse(":".join([unicodedata.normalize("NFD", "ö" * 128)] * 3)).name == "ö" * 128
    # U+0958 becomes two characters in NFC.
    with pytest.raises(ValueError, match="256"):
        JobName.parse("\u0958" * 128 + ":a:b")


def test_other_text_keeps_its_spelling():
    """NFC does not join what looks alike but is another character."""
    assert [nfc(text) for text in ("a", "ﬁ", "Å", "①")] == ["a", "ﬁ", "Å", "①"]
