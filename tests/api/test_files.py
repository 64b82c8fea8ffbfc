"""Files of tasks: uploads, downloads, names, ranges, and the traces of uploads that fail."""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote
from uuid import UUID

import pytest
from django.core.files.storage import FileSystemStorage, storages
from django.db import connection, connections, transaction
from rest_framework.test import APIClient

from tests.factories import V1, problem
from zndraw_joblib.api.ranges import requested_part
from zndraw_joblib.exceptions import RangeNotSatisfiable
from zndraw_joblib.models import FileToDelete, Task, TaskFile, Worker
from zndraw_joblib.services import files as file_services, uploads
from zndraw_joblib.services.files import delete_files_of, delete_marked_files
from zndraw_joblib.services.prune import prune_now
from zndraw_joblib.services.sweep import PRUNE_SECONDS, sweep
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage.files import file_storage

pytestmark = pytest.mark.django_db(transaction=True)

ROTATE = "open:modifiers:Rotate"


@pytest.fixture
def folder(settings, tmp_path) -> Path:
    """The folder of the storage that has the files."""
    settings.STORAGES = {
        **settings.STORAGES,
        "zndraw_joblib": {
            "BACKEND": "tests.storages.Local",
            "OPTIONS": {"location": str(tmp_path)},
        },
    }
    return tmp_path


@pytest.fixture
def task(alice, bob, folder) -> str:
    """The id of a task whose attempt 1 a worker of bob claimed."""
    worker = bob.worker()
    bob.register(worker_id=worker)
    task_id = alice.submit().json()["id"]
    assert bob.claim(worker)["id"] == task_id
    return task_id


def put(person, task_id, name="a.txt", content=b"hello", attempt=1, kind="text/plain", **headers):
    path = f"{V1}/tasks/{task_id}/files/{quote(name, safe='')}"
    if attempt is not None:
        path += f"?attempt={attempt}"
    return person.client.generic("PUT", path, content, content_type=kind, **headers)


def get(person, task_id, name="a.txt", **headers):
    path = f"{V1}/tasks/{task_id}/files/{quote(name, safe='')}"
    answer = person.client.get(path, headers=headers)
    answer.sent = b"".join(answer)
    return answer


def content(answer):
    return answer.sent


def stored(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def requeue(bob, task_id):
    Task.objects.get(pk=task_id).requeue()
    worker = Worker.objects.get(identity=bob.identity).pk
    assert bob.claim(worker)["id"] == task_id


# -- uploads and downloads


def test_an_uploaded_file_is_listed_and_downloaded(task, alice, bob):
    answer = put(bob, task, kind="chemical/x-xyz; charset=utf-8")
    assert answer.status_code == 201, answer.content
    document = answer.json()
    assert document == {
        "name": "a.txt",
        "size": 5,
        "content_type": "chemical/x-xyz; charset=utf-8",
        "sha256": hashlib.sha256(b"hello").hexdigest(),
        "created_at": document["created_at"],
        "attempt": 1,
    }
    assert alice.get(f"/tasks/{task}/files").json() == [document]
    answer = get(alice, task)
    assert (answer.status_code, content(answer)) == (200, b"hello")
    assert answer["Content-Type"] == "chemical/x-xyz; charset=utf-8"
    assert answer["Content-Length"] == "5"
    assert answer["ETag"] == f'"{document["sha256"]}"'
    assert answer["Accept-Ranges"] == "bytes"


def test_an_upload_without_a_type_is_of_unknown_type(task, bob):
    assert put(bob, task, kind="").json()["content_type"] == "application/octet-stream"


@pytest.mark.parametrize("size", [0, 1, 262_144, 3_000_001])
def test_a_file_of_any_size_comes_back_as_it_was(task, bob, size):
    sent = bytes(range(256)) * (size // 256 + 1)
    assert put(bob, task, content=sent[:size]).json()["size"] == size
    assert content(get(bob, task)) == sent[:size]


def test_a_second_upload_replaces_the_file_and_deletes_the_first_bytes(task, bob, folder):
    put(bob, task)
    answer = put(bob, task, content=b"other", kind="text/csv")
    assert (answer.status_code, answer.json()["content_type"]) == (200, "text/csv")
    assert content(get(bob, task)) == b"other"
    assert [path.read_bytes() for path in stored(folder)] == [b"other"]
    assert not FileToDelete.objects.exists()


def test_a_name_gives_the_file_of_the_latest_attempt_and_lists_have_all(task, bob, folder):
    put(bob, task)
    put(bob, task, "b.txt")
    requeue(bob, task)
    assert put(bob, task, content=b"again", attempt=2).status_code == 201
    assert content(get(bob, task)) == b"again"
    assert content(get(bob, task, "b.txt")) == b"hello"
    listed = bob.get(f"/tasks/{task}/files").json()
    assert [(file["name"], file["attempt"]) for file in listed] == [
        ("a.txt", 1),
        ("a.txt", 2),
        ("b.txt", 1),
    ]
    assert len(stored(folder)) == 3


def test_files_are_in_the_default_storage_where_the_host_has_no_other(
    task, bob, settings, tmp_path
):
    settings.STORAGES = {
        **{name: value for name, value in settings.STORAGES.items() if name != "zndraw_joblib"},
        "default": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": str(tmp_path / "default")},
        },
    }
    assert put(bob, task).status_code == 201
    assert len(stored(tmp_path / "default")) == 1


# -- browsers


@pytest.mark.any_database
@pytest.mark.parametrize("kind", ["text/html", "image/svg+xml", "text/javascript"])
def test_a_file_never_runs_in_a_page_of_the_site(task, alice, bob, kind):
    put(bob, task, "page.html", b"<script>alert(1)</script>", kind=kind)
    for method in ("get", "head"):
        answer = getattr(alice.client, method)(f"{V1}/tasks/{task}/files/page.html")
        assert b"".join(answer) in {b"", b"<script>alert(1)</script>"}
        assert answer["Content-Disposition"].startswith("attachment")
        assert answer["X-Content-Type-Options"] == "nosniff"
        assert answer["Content-Security-Policy"].split("; ")[0] == "sandbox"


@pytest.mark.any_database
@pytest.mark.parametrize("destination", ["script", "worker", "style", "serviceworker", "object"])
def test_a_browser_gets_no_file_as_a_part_of_a_page(task, alice, bob, destination):
    put(bob, task, "x.js", b"alert(1)", kind="text/javascript")
    answer = get(alice, task, "x.js", **{"Sec-Fetch-Dest": destination})
    problem(answer, "forbidden", 403)
    assert "Sec-Fetch-Dest" in get(alice, task, "x.js")["Vary"]


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a b.txt", 'attachment; filename="a b.txt"'),
        ('x";y.txt', 'attachment; filename="x\\";y.txt"'),
        ("naïve €.txt", "attachment; filename*=utf-8''na%C3%AFve%20%E2%82%AC.txt"),
    ],
)
def test_the_name_is_in_the_content_disposition(task, bob, name, header):
    assert put(bob, task, name).json()["name"] == name
    assert get(bob, task, name)["Content-Disposition"] == header


# -- names and other hostile input


@pytest.mark.parametrize(
    "name",
    [
        "CON",
        "nul.txt",
        "a.",
        "a ",
        " ",
        "...",
        ".htaccess",
        "-rf",
        "~",
        "%2e%2e",
        "a:b",
        "C:evil",
        "x" * 255,
        "\U0001f9ea" * 255,
        "\u202etxt.exe",
    ],
)
def test_a_strange_name_is_kept_and_is_no_part_of_the_path(task, bob, folder, name):
    assert put(bob, task, name).json()["name"] == name
    assert content(get(bob, task, name)) == b"hello"
    (path,) = stored(folder)
    assert path.parent.parent == folder / "zndraw_joblib"
    assert path.name.startswith(f"{task}-1-")


@pytest.mark.any_database
@pytest.mark.parametrize("name", [".", "..", "a\\b", "..\\x", "a\0b", "\x1f", "a\nb", "\x85"])
@pytest.mark.parametrize("method", ["put", "get"])
def test_a_name_that_no_file_may_have_is_refused_with_the_reason(task, bob, folder, name, method):
    answer = put(bob, task, name) if method == "put" else get(bob, task, name)
    assert "name" in problem(answer, "validation-error", 400)["detail"]
    assert stored(folder) == []


@pytest.mark.any_database
@pytest.mark.parametrize("name", ["x" * 256, "x" * 300])
def test_a_name_that_is_too_long_is_refused(task, bob, name):
    detail = problem(put(bob, task, name), "validation-error", 400)["detail"]
    assert f"1 to 255 characters, not {len(name)}" in detail


@pytest.mark.any_database
@pytest.mark.parametrize("name", ["a/b", "../../etc/passwd", "/etc/passwd", ""])
def test_a_name_with_a_slash_is_not_found(task, bob, folder, name):
    problem(put(bob, task, name), "not-found", 404)
    assert stored(folder) == []


def test_both_spellings_of_a_name_are_one_file(task, bob, folder):
    assert put(bob, task, "o\u0308.txt").json()["name"] == "\u00f6.txt"
    assert put(bob, task, "\u00f6.txt", b"new").status_code == 200
    assert content(get(bob, task, "o\u0308.txt")) == b"new"
    assert len(stored(folder)) == 1


@pytest.mark.any_database
@pytest.mark.parametrize(
    "kind", ["text", "text/", "a/b\x00", "a/b; \xff", "text/plain; " + "x" * 300, "<b>/x"]
)
def test_a_malformed_content_type_is_refused(task, bob, kind):
    problem(put(bob, task, kind=kind), "validation-error", 400)


@pytest.mark.any_database
@pytest.mark.parametrize("attempt", [None, "", "x", "-1", "1.0", "\u0661", "9" * 10, "1" * 5000])
def test_an_attempt_is_required_and_a_number(task, bob, attempt):
    document = problem(put(bob, task, attempt=attempt), "validation-error", 400)
    assert document["errors"][0]["pointer"] == "/attempt"


def test_a_task_or_file_that_does_not_exist_is_not_found(task, bob):
    problem(get(bob, task), "file-not-found", 404)
    for other in ("00000000-0000-0000-0000-000000000000", "x"):
        problem(put(bob, other), "task-not-found", 404)
        problem(get(bob, other), "task-not-found", 404)
        problem(bob.get(f"/tasks/{other}/files"), "task-not-found", 404)


# -- limits


def test_a_file_that_is_too_large_is_refused_and_not_stored(task, bob, folder, settings_of):
    settings_of(max_file_bytes=5)
    problem(put(bob, task, content=b"123456"), "file-too-large", 413)
    assert stored(folder) == []
    assert put(bob, task, content=b"12345").status_code == 201


def test_a_file_may_be_larger_than_other_bodies(task, bob, settings_of):
    settings_of(max_body_bytes=10)
    assert put(bob, task, content=b"x" * 1000).status_code == 201


def test_one_file_too_many_is_refused_and_a_replacement_is_not(task, bob, folder, settings_of):
    settings_of(max_files_per_task=2)
    for name in ("a", "b"):
        assert put(bob, task, name).status_code == 201
    problem(put(bob, task, "c"), "too-many-files", 409)
    assert put(bob, task, "a", b"new").status_code == 200
    assert len(stored(folder)) == 2
    # A further attempt may upload the same names again.
    requeue(bob, task)
    assert put(bob, task, "a", attempt=2).status_code == 201
    problem(put(bob, task, "c", attempt=2), "too-many-files", 409)


# -- the fence


def test_an_upload_of_an_earlier_attempt_is_refused(task, bob, folder):
    requeue(bob, task)
    problem(put(bob, task, attempt=1), "lease-lost", 409)
    problem(put(bob, task, attempt=3), "lease-lost", 409)
    assert stored(folder) == []


@pytest.mark.parametrize("status", ["pending", "completed", "failed", "cancelled"])
def test_a_task_that_is_not_under_way_takes_no_files(task, bob, folder, status):
    if status == "pending":
        Task.objects.get(pk=task).requeue()
    else:
        bob.report(task, "running")
        bob.report(task, status)
    problem(put(bob, task), "invalid-task-transition", 409)
    assert stored(folder) == []


def test_a_running_task_takes_files_and_they_stay_after_its_end(task, alice, bob):
    bob.report(task, "running")
    assert put(bob, task).status_code == 201
    bob.report(task, "completed")
    assert content(get(alice, task)) == b"hello"


def test_an_admin_may_upload_for_the_worker(task, root):
    assert put(root, task).status_code == 201


def test_an_upload_renews_the_lease_counts_as_a_heartbeat_and_is_a_change(task, bob):
    def state():
        row = Task.objects.get(pk=task)
        return row.lease_expires_at, row.worker.last_heartbeat, row.revision

    Task.objects.update(lease_expires_at="2020-01-01T00:00Z")
    Worker.objects.update(last_heartbeat="2020-01-01T00:00Z")
    _, _, revision = state()
    put(bob, task)
    lease, heartbeat, changed = state()
    assert lease.year > 2020
    assert heartbeat.year > 2020
    assert changed == revision + 1
    get(bob, task)
    assert state()[2] == changed


# -- what an upload that fails leaves behind


class Body(io.RawIOBase):
    """A body that calls `midway` after its first chunk."""

    def __init__(self, midway):
        super().__init__()
        self.midway = midway
        self.parts = [b"x" * 100, b"y" * 100]

    def read(self, size=-1):
        if len(self.parts) == 1:
            self.midway()
        return self.parts.pop(0) if self.parts else b""


def send_body(person, task_id, midway, **more):
    return person.client.generic(
        "PUT",
        f"{V1}/tasks/{task_id}/files/a.txt?attempt=1",
        **{"wsgi.input": Body(midway), "CONTENT_LENGTH": "200", "CONTENT_TYPE": "a/b", **more},
    )


def test_a_body_that_ends_early_is_refused_and_leaves_nothing(task, bob, folder):
    answer = send_body(bob, task, lambda: None, CONTENT_LENGTH="201")
    assert "after 200 bytes" in problem(answer, "validation-error", 400)["detail"]
    assert stored(folder) == []
    assert not TaskFile.objects.exists()
    assert not FileToDelete.objects.exists()


def test_a_body_whose_connection_is_reset_is_refused_and_leaves_nothing(task, bob, folder):
    def reset():
        raise ConnectionResetError

    problem(send_body(bob, task, reset), "validation-error", 400)
    assert stored(folder) == []
    assert not TaskFile.objects.exists()


def test_a_chunked_body_under_wsgi_is_refused_because_its_end_is_not_certain(task, bob, folder):
    """granian's stream of a body that was cut off ends as that of a whole one."""
    more = {"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked"}
    answer = send_body(bob, task, lambda: None, **more, **{"wsgi.input_terminated": True})
    problem(answer, "length-required", 411)
    assert stored(folder) == []


def test_an_upload_whose_attempt_is_lost_meanwhile_is_refused(task, bob, folder):
    answer = send_body(bob, task, lambda: requeue(bob, task))
    problem(answer, "lease-lost", 409)
    assert stored(folder) == []
    assert not TaskFile.objects.exists()


def test_an_upload_whose_attempt_is_lost_while_it_is_stored_is_refused(
    task, bob, folder, monkeypatch
):
    """Control: without the renewal in the last transaction the file was kept."""
    save = FileSystemStorage.save

    def save_slowly(self, *args, **kwargs):
        path = save(self, *args, **kwargs)
        requeue(bob, task)
        assert len(stored(folder)) == 1
        return path

    monkeypatch.setattr(FileSystemStorage, "save", save_slowly)
    problem(put(bob, task), "lease-lost", 409)
    assert stored(folder) == []
    assert not FileToDelete.objects.exists()


def test_a_long_upload_renews_the_lease_while_it_goes_on(task, bob, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(uploads, "monotonic", lambda: clock[0])
    leases = []

    def later():
        Task.objects.update(lease_expires_at="2020-01-01T00:00Z")
        clock[0] += get_settings().worker_timeout_seconds / 2

    renew = uploads._Lease.renew

    def record(self, **kwargs):
        renew(self, **kwargs)
        leases.append(Task.objects.get(pk=task).lease_expires_at.year)

    monkeypatch.setattr(uploads._Lease, "renew", record)
    assert send_body(bob, task, later).status_code == 201
    # At the beginning, in the middle, after the last byte, and with the row of the file.
    assert len(leases) == 4
    assert min(leases) > 2020


def test_the_upload_that_ends_last_wins_and_one_stored_file_is_left(task, bob, folder):
    answer = send_body(bob, task, lambda: put(bob, task, content=b"first"))
    assert answer.status_code == 200
    assert TaskFile.objects.get().size == 200
    assert [path.stat().st_size for path in stored(folder)] == [200]


def test_of_two_uploads_of_one_name_at_once_one_row_and_one_stored_file_are_left(
    task, bob, folder, monkeypatch
):
    save, both_saved = FileSystemStorage.save, threading.Barrier(2)

    def save_together(self, *args, **kwargs):
        path = save(self, *args, **kwargs)
        both_saved.wait(10)
        return path

    monkeypatch.setattr(FileSystemStorage, "save", save_together)

    def send(size):
        client = APIClient(headers={"authorization": f"Token {bob.token}"})
        try:
            return put(replace(bob, client=client), task, content=b"x" * size).status_code
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(send, (1000, 2000))) == [200, 201]
    size = TaskFile.objects.get().size
    assert [path.stat().st_size for path in stored(folder)] == [size]
    assert not FileToDelete.objects.exists()


def test_a_storage_that_cannot_be_made_does_not_end_the_sweeper(task, bob, folder, settings):
    put(bob, task)
    delete_files_of([task])
    settings.STORAGES = {**settings.STORAGES, "zndraw_joblib": {"BACKEND": "no.such.Storage"}}
    assert sweep().files == 0
    problem(put(bob, task), "storage-unavailable", 503)


def test_a_storage_that_fails_is_a_503_and_leaves_nothing(task, bob, folder, storage_fails):
    storage_fails("save")
    answer = put(bob, task)
    problem(answer, "storage-unavailable", 503)
    assert answer["Retry-After"] == "1"
    assert stored(folder) == []
    assert not TaskFile.objects.exists()


@pytest.fixture
def storage_fails(monkeypatch):
    """A function that makes verbs of the storage fail halfway until `undo` is called."""

    def fail(self, name, *args, **kwargs):
        raise RuntimeError("the storage is away")

    def save_half(self, name, content, **kwargs):
        path = Path(self.path(name))
        path.parent.mkdir(parents=True)
        path.write_bytes(content.read(2))
        raise RuntimeError("the storage is away")

    def make(*verbs):
        for verb in verbs:
            half = save_half if verb == "save" else fail
            monkeypatch.setattr("tests.storages.Local." + verb, half, raising=False)
        return monkeypatch

    return make


def test_a_storage_that_fails_to_open_a_file_is_a_503(task, bob, storage_fails):
    put(bob, task)
    storage_fails("open")
    problem(get(bob, task), "storage-unavailable", 503)


def test_a_file_that_the_storage_has_lost_is_not_found(task, bob, folder):
    put(bob, task)
    stored(folder)[0].unlink()
    problem(get(bob, task), "file-not-found", 404)


def test_a_failed_deletion_does_not_fail_the_upload_and_the_sweeper_repeats_it(
    task, bob, folder, storage_fails
):
    put(bob, task)
    undo = storage_fails("delete").undo
    assert put(bob, task, content=b"new").status_code == 200
    assert len(stored(folder)) == 2
    assert sweep().files == 0
    undo()
    # Not at once again, because the storage may be away for some time.
    assert sweep().files == 0
    FileToDelete.objects.update(due_at="2020-01-01T00:00Z")
    assert sweep().files == 1
    assert [path.read_bytes() for path in stored(folder)] == [b"new"]
    assert not FileToDelete.objects.exists()


def test_the_bytes_of_a_process_that_died_midway_are_deleted_later(task, bob, folder, monkeypatch):
    save = FileSystemStorage.save

    def die(self, *args, **kwargs):
        save(self, *args, **kwargs)
        # The code after this runs in no process that is killed.
        monkeypatch.setattr(uploads, "delete_stored", lambda *args: 0)
        raise SystemExit

    monkeypatch.setattr(FileSystemStorage, "save", die)
    with pytest.raises(SystemExit):
        put(bob, task)
    monkeypatch.undo()
    assert len(stored(folder)) == 1
    FileToDelete.objects.update(due_at="2020-01-01T00:00Z")
    assert sweep().files == 1
    assert stored(folder) == []


def test_files_of_deleted_tasks_are_deleted_with_their_bytes(task, bob, folder):
    put(bob, task)
    put(bob, task, "b")
    assert delete_files_of([task]) == 2
    assert not TaskFile.objects.exists()
    assert len(stored(folder)) == 2
    assert delete_marked_files() == 2
    assert stored(folder) == []


def test_a_storage_that_is_away_is_asked_once_a_sweep(task, bob, monkeypatch):
    for number in range(10):
        put(bob, task, str(number))
    delete_files_of([task])
    asked = []

    def fail(self, name):
        asked.append(name)
        raise RuntimeError("the storage is away")

    monkeypatch.setattr("tests.storages.Local.delete", fail)
    assert delete_marked_files() == 0
    assert len(asked) == 1
    assert FileToDelete.objects.count() == 10


# -- ranges and conditions


def test_a_file_that_the_client_has_is_not_sent(task, bob):
    put(bob, task)
    etag = get(bob, task)["ETag"]
    for given in (etag, f'W/{etag}, "x"', "*"):
        answer = get(bob, task, **{"If-None-Match": given})
        assert (answer.status_code, answer["ETag"], answer.content) == (304, etag, b"")
    assert get(bob, task, **{"If-None-Match": '"x"'}).status_code == 200
    problem(get(bob, task, **{"If-Match": '"x"'}), "precondition-failed", 412)
    assert get(bob, task, **{"If-Match": etag}).status_code == 200


def test_a_head_request_has_the_headers_and_no_content(task, bob):
    put(bob, task)
    answer = bob.client.head(f"{V1}/tasks/{task}/files/a.txt", headers={"Range": "bytes=0-1"})
    assert (answer.status_code, answer["Content-Length"], answer.content) == (200, "5", b"")
    assert answer["ETag"] == get(bob, task)["ETag"]


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("header", "part", "positions"),
    [
        ("bytes=0-0", b"h", "0-0"),
        ("bytes=1-3", b"ell", "1-3"),
        ("bytes=2-", b"llo", "2-4"),
        ("bytes=-2", b"lo", "3-4"),
        ("bytes=-99", b"hello", "0-4"),
        ("bytes=3-99", b"lo", "3-4"),
        ("BYTES=0-0", b"h", "0-0"),
        ("bytes= 1-1 , ,", b"e", "1-1"),
        ("bytes=0000000000000000000000000001-1", b"e", "1-1"),
        (f"bytes=4-{'9' * 5000}", b"o", "4-4"),
    ],
)
def test_a_range_is_sent_as_206(task, bob, header, part, positions):
    put(bob, task)
    answer = get(bob, task, Range=header)
    assert (answer.status_code, content(answer)) == (206, part)
    assert answer["Content-Range"] == f"bytes {positions}/5"
    assert answer["Content-Length"] == str(len(part))


@pytest.mark.any_database
@pytest.mark.parametrize(
    "header",
    ["", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=3-1", "bytes=0-1,3-4", "lines=0-1",
     "bytes=1", "bytes=--1", "bytes=0x1-2", "bytes=\u0661-2", "bytes=1 - 2"],
)  # fmt: skip
def test_a_malformed_range_and_one_of_several_are_ignored(task, bob, header):
    put(bob, task)
    answer = get(bob, task, Range=header.encode().decode("latin-1"))
    assert (answer.status_code, content(answer)) == (200, b"hello")
    assert "Content-Range" not in answer


@pytest.mark.any_database
@pytest.mark.parametrize("header", ["bytes=5-", "bytes=5-9", "bytes=-0", f"bytes={'9' * 5000}-"])
def test_a_range_beyond_the_end_is_refused(task, bob, header):
    put(bob, task)
    answer = get(bob, task, Range=header)
    problem(answer, "range-not-satisfiable", 416)
    assert answer["Content-Range"] == "bytes */5"


def test_a_range_of_an_empty_file():
    assert requested_part("bytes=-5", None, '"x"', 0) is None
    with pytest.raises(RangeNotSatisfiable):
        requested_part("bytes=0-", None, '"x"', 0)


def test_a_range_of_another_file_is_not_sent(task, bob):
    put(bob, task)
    etag = get(bob, task)["ETag"]
    for given, status in ((etag, 206), (f"W/{etag}", 200), ('"x"', 200), ("a date", 200)):
        answer = get(bob, task, **{"Range": "bytes=1-1", "If-Range": given})
        assert answer.status_code == status


def test_a_storage_that_cannot_seek_sends_ranges_too(task, bob, monkeypatch):
    put(bob, task, content=b"x" * 300_000 + b"end")
    monkeypatch.setattr("tests.storages.Local.can_seek", False)
    answer = get(bob, task, Range="bytes=-3")
    assert (answer.status_code, content(answer)) == (206, b"end")


def test_no_database_connection_is_used_while_a_file_is_sent(task, bob):
    put(bob, task, content=b"x" * 1_000_000)
    answer = bob.client.get(f"{V1}/tasks/{task}/files/a.txt")
    connection.close()
    assert len(b"".join(answer)) == 1_000_000
    assert connection.connection is None


def test_the_storage_is_that_of_the_settings_in_force(folder):
    assert file_storage() is storages["zndraw_joblib"]


# -- conditions of an upload, and bodies that are not a whole file


def test_an_upload_that_may_not_replace_a_file_is_refused_where_there_is_one(task, bob, folder):
    new = {"HTTP_IF_NONE_MATCH": "*"}
    assert put(bob, task, **new).status_code == 201
    problem(put(bob, task, content=b"other", **new), "precondition-failed", 412)
    assert content(get(bob, task)) == b"hello"
    assert len(stored(folder)) == 1
    # Another attempt has files of its own.
    requeue(bob, task)
    assert put(bob, task, attempt=2, **new).status_code == 201


def test_an_upload_replaces_only_the_file_that_if_match_names(task, bob):
    problem(put(bob, task, HTTP_IF_MATCH="*"), "precondition-failed", 412)
    put(bob, task)
    etag = get(bob, task)["ETag"]
    for given in ('"x"', f"W/{etag}", etag.strip('"'), ""):
        problem(put(bob, task, content=b"b", HTTP_IF_MATCH=given), "precondition-failed", 412)
    assert put(bob, task, content=b"b", HTTP_IF_MATCH=f'"x", {etag}').status_code == 200
    problem(put(bob, task, content=b"c", HTTP_IF_MATCH=etag), "precondition-failed", 412)


def test_an_upload_replaces_no_file_that_was_modified_since(task, bob):
    old = {"HTTP_IF_UNMODIFIED_SINCE": "Mon, 01 Jan 2001 00:00:00 GMT"}
    assert put(bob, task, **old).status_code == 201
    problem(put(bob, task, **old), "precondition-failed", 412)
    now = {"HTTP_IF_UNMODIFIED_SINCE": get(bob, task)["Last-Modified"]}
    assert put(bob, task, **now).status_code == 200


def test_of_two_uploads_that_may_not_replace_a_file_one_is_refused(task, bob, folder):
    new = {"HTTP_IF_NONE_MATCH": "*"}
    answer = send_body(bob, task, lambda: put(bob, task, content=b"first", **new), **new)
    problem(answer, "precondition-failed", 412)
    assert [path.read_bytes() for path in stored(folder)] == [b"first"]
    assert not FileToDelete.objects.exists()


def test_a_part_of_a_file_is_refused(task, bob, folder):
    """`curl -C` sends the rest of a file; it was stored as the whole."""
    problem(put(bob, task, HTTP_CONTENT_RANGE="bytes 5-9/10"), "validation-error", 400)
    assert stored(folder) == []


def test_a_compressed_body_is_refused(task, bob, folder):
    """It was stored, and came back without the header that says so."""
    answer = put(bob, task, HTTP_CONTENT_ENCODING="gzip")
    problem(answer, "unsupported-media-type", 415)
    assert answer["Accept-Encoding"] == "identity"
    assert stored(folder) == []
    assert put(bob, task, HTTP_CONTENT_ENCODING="Identity").status_code == 201


# -- temporary files


def sizes_of_open_files():
    sizes = set()
    for fd in os.listdir("/proc/self/fd"):
        # The listing has its own descriptor, which is closed by now.
        with suppress(OSError):
            sizes.add(os.fstat(int(fd)).st_size)
    return sizes


@pytest.mark.any_database
@pytest.mark.parametrize("memory", [0, 10**9])
def test_an_upload_is_in_a_file_and_not_in_memory_whatever_the_site_sets(
    task, bob, settings, monkeypatch, memory
):
    """`SpooledTemporaryFile` keeps everything in memory where its limit is 0."""
    settings.FILE_UPLOAD_MAX_MEMORY_SIZE = memory
    save = FileSystemStorage.save

    def save_from_file(self, name, given, **kwargs):
        assert 1_000_000 in sizes_of_open_files()
        return save(self, name, given, **kwargs)

    monkeypatch.setattr(FileSystemStorage, "save", save_from_file)
    assert put(bob, task, content=b"x" * 1_000_000).status_code == 201


def test_a_full_disk_for_temporary_files_is_a_503(task, bob, folder, monkeypatch):
    class Full(io.BytesIO):
        def write(self, part):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            # A buffered file tries again to write, and is closed although this fails.
            if not self.closed:
                super().close()
                self.write(b"")

    monkeypatch.setattr(uploads, "TemporaryFile", lambda dir: Full())
    problem(put(bob, task), "storage-unavailable", 503)
    assert stored(folder) == []


def test_a_missing_folder_for_temporary_files_is_a_503(task, bob, settings, tmp_path):
    settings.FILE_UPLOAD_TEMP_DIR = str(tmp_path / "missing")
    problem(put(bob, task), "storage-unavailable", 503)


# -- deletions


def test_bytes_that_the_storage_no_longer_has_are_as_good_as_deleted(task, bob, monkeypatch):
    """Storages other than a folder may raise; the path was tried again for ever."""
    put(bob, task)
    delete_files_of([task])

    def fail(self, name):
        raise FileNotFoundError(name)

    monkeypatch.setattr("tests.storages.Local.delete", fail)
    assert delete_marked_files() == 1
    assert not FileToDelete.objects.exists()


def test_deletions_end_in_time_for_the_next_sweep(task, bob, folder, monkeypatch):
    """Control: a slow storage kept the sweeper from tasks whose lease was over."""
    for number in range(4):
        put(bob, task, str(number))
    delete_files_of([task])
    clock = itertools.count(step=PRUNE_SECONDS / 2)
    monkeypatch.setattr(file_services, "monotonic", lambda: next(clock))
    assert sweep().files == 2
    FileToDelete.objects.update(due_at="2020-01-01T00:00Z")
    assert delete_marked_files() == 2
    assert stored(folder) == []


def test_bytes_are_deleted_after_the_commit_of_the_transaction_that_prunes(task, bob, folder):
    """A site's `ATOMIC_REQUESTS` puts the admin's action into a transaction."""
    put(bob, task)
    Task.objects.get(pk=task).cancel()
    with transaction.atomic():
        prune_now([UUID(task)])
        transaction.set_rollback(True)
    assert content(get(bob, task)) == b"hello"
    with transaction.atomic():
        prune_now([UUID(task)])
        assert len(stored(folder)) == 1
    assert stored(folder) == []


# -- storages that are unlike a folder


def test_a_storage_may_choose_another_path(task, bob, folder, monkeypatch):
    save = FileSystemStorage.save
    monkeypatch.setattr(
        FileSystemStorage, "save", lambda self, name, *args, **kw: save(self, name + "-x", *args)
    )
    for content_ in (b"first", b"second"):
        put(bob, task, content=content_)
    assert content(get(bob, task)) == b"second"
    assert [path.name[-2:] for path in stored(folder)] == ["-x"]
    assert not FileToDelete.objects.exists()


@pytest.mark.any_database
@pytest.mark.parametrize("error", [KeyError("x"), ValueError("\x00"), TimeoutError(), EOFError()])
def test_any_error_of_a_storage_is_a_503(task, bob, monkeypatch, error):
    def fail(self, *args, **kwargs):
        raise error

    put(bob, task)
    monkeypatch.setattr("tests.storages.Local._open", fail)
    problem(get(bob, task), "storage-unavailable", 503)
    monkeypatch.setattr("tests.storages.Local._save", fail)
    problem(put(bob, task), "storage-unavailable", 503)
    assert not FileToDelete.objects.exists()
