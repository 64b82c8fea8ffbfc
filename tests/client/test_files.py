"""Files of tasks by the SDK: against a server process, and with connections that are cut."""

from __future__ import annotations

import hashlib
import io
import itertools
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import httpx
import pytest

from tests.servers import server
from zndraw_joblib.client import (
    Api,
    ApiError,
    FileTooLargeError,
    LeaseLostError,
    TaskFileNotFoundError,
    UnexpectedAnswerError,
    retry,
)
from zndraw_joblib.client.files import CHUNK_BYTES, _in_folder, download, files, upload
from zndraw_joblib.models import TaskFile

CONTENT = bytes(itertools.islice(itertools.cycle(range(251)), 1_000_000))


class Cutting(httpx.HTTPTransport):
    """Cuts off the first `uploads` and `downloads`, each in the middle."""

    def __init__(self, uploads=0, downloads=0):
        super().__init__()
        self.uploads, self.downloads, self.requests = uploads, downloads, []

    def handle_request(self, request):
        self.requests.append(request)
        if request.method == "PUT" and self.uploads:
            self.uploads -= 1
            request.stream = Cut(request.stream)
            return super().handle_request(request)
        answer = super().handle_request(request)
        if request.method == "GET" and self.downloads:
            self.downloads -= 1
            return httpx.Response(answer.status_code, headers=answer.headers,
                                  stream=Cut(answer.stream))  # fmt: skip
        return answer


class Cut(httpx.SyncByteStream):
    """A stream that fails after about 300,000 bytes."""

    def __init__(self, stream):
        self.stream = stream

    def __iter__(self):
        size = 0
        for part in self.stream:
            yield part
            size += len(part)
            if size > 300_000:
                raise httpx.ReadError("the connection was cut")

    def close(self):
        if hasattr(self.stream, "close"):
            self.stream.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(retry, "backoff", lambda attempt: 0.01)


class TestWithServer:
    pytestmark = pytest.mark.django_db(transaction=True)

    @pytest.fixture(params=["uvicorn", "granian"])
    def url(self, request):
        with server(request.param, ZNDRAW_JOBLIB_MAX_FILE_BYTES="3000000") as address:
            yield address

    @pytest.fixture
    def task(self, alice, bob):
        worker = bob.worker()
        bob.register(worker_id=worker)
        task_id = alice.submit().json()["id"]
        bob.claim(worker)
        return task_id

    def test_files_come_back_and_cut_transfers_are_repeated(self, url, task, bob, tmp_path):
        """One test, because it starts a server."""
        transport = Cutting(uploads=2)
        with Api(url, bob.token, transport=transport) as api:
            path = tmp_path / "naïve.bin"
            path.write_bytes(CONTENT)
            document = upload(api, task, 1, path)
            assert document["name"] == "naïve.bin"
            assert document["sha256"] == hashlib.sha256(CONTENT).hexdigest()
            assert len(transport.requests) == 3
            assert files(api, task) == [document]

            transport.requests.clear()
            transport.downloads = 2
            to = download(api, task, "naïve.bin", tmp_path / "to")
            assert to.read_bytes() == CONTENT
            ranges = [request.headers.get("Range") for request in transport.requests]
            assert ranges[0] is None
            begins = [int(each.removeprefix("bytes=").rstrip("-")) for each in ranges[1:]]
            assert len(begins) == 2
            assert 0 < begins[0] < begins[1] < len(CONTENT)

            (tmp_path / "folder").mkdir()
            assert download(api, task, "naïve.bin", tmp_path / "folder").name == "naïve.bin"
            sources: dict[str, Any] = {
                "bytes": b"some",
                "array": bytearray(b"some"),
                "file": io.BytesIO(b"some"),
                "one way": OneWay(b"some"),
            }
            for name, source in sources.items():
                assert upload(api, task, 1, source, name)["size"] == 4
                assert download(api, task, name) == b"some"
            assert upload(api, task, 1, b"", "empty.txt")["content_type"] == "text/plain"
            assert download(api, task, "empty.txt") == b""

            with pytest.raises(TaskFileNotFoundError):
                download(api, task, "other", tmp_path / "other")
            with pytest.raises(FileTooLargeError):
                upload(api, task, 1, b"x" * 3_000_001, "large")
            with pytest.raises(LeaseLostError):
                upload(api, task, 2, CONTENT, "late")
        left = sorted(path.name for path in tmp_path.iterdir())
        assert left == ["folder", "naïve.bin", "to"]
        assert TaskFile.objects.count() == 6


class OneWay(io.BytesIO):
    def seekable(self):
        return False

    def seek(self, *args):
        raise io.UnsupportedOperation("seek")


class Server:
    """Answers downloads of `content`, of which a request gets at most `most` bytes."""

    def __init__(self, content, most=CHUNK_BYTES, **headers):
        self.content, self.most, self.requests, self.headers = content, most, [], headers

    def __call__(self, request):
        self.requests.append(request)
        etag = f'"{hashlib.sha256(self.content).hexdigest()}"'
        headers = {"ETag": etag, **self.headers}
        start, status = 0, 200
        if request.headers.get("If-Range") == etag:
            start, status = int(request.headers["Range"][6:-1]), 206
            headers["Content-Range"] = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
        part = self.content[start : start + self.most]
        return httpx.Response(status, headers=headers, stream=Short(part, self, start))


class Short(httpx.SyncByteStream):
    """A body that is cut off where it does not reach the end."""

    def __init__(self, part, server, start):
        self.part, self.server, self.end = part, server, start + len(part)

    def __iter__(self):
        content = self.server.content
        yield self.part
        if self.end < len(content):
            raise httpx.RemoteProtocolError("the body was cut off")


def api_of(answer):
    return Api("http://x/", "t", transport=httpx.MockTransport(answer))


def test_a_download_goes_on_as_long_as_it_makes_progress():
    server_ = Server(CONTENT, most=50_000)
    assert download(api_of(server_), "t1", "a") == CONTENT
    assert len(server_.requests) == 20


def test_a_download_of_a_file_that_was_replaced_begins_again(tmp_path):
    old, new = Server(CONTENT, most=50_000), Server(CONTENT[::-1])
    answers = itertools.chain([old, old], itertools.repeat(new))
    to = download(api_of(lambda request: next(answers)(request)), "t1", "a", tmp_path / "a")
    assert to.read_bytes() == new.content
    assert new.requests[0].headers["Range"] == "bytes=100000-"


def test_a_page_of_another_program_is_not_taken_for_the_file(tmp_path):
    def portal(request):
        return httpx.Response(200, html="<html>Please sign in</html>")

    with pytest.raises(UnexpectedAnswerError):
        download(api_of(portal), "t1", "a", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_content_that_was_damaged_on_the_way_is_an_error(tmp_path):
    wrong = Server(CONTENT, most=len(CONTENT), ETag=f'"{"0" * 64}"')
    (tmp_path / "a").write_bytes(b"before")
    with pytest.raises(httpx.RemoteProtocolError):
        download(api_of(wrong), "t1", "a", tmp_path / "a")
    assert len(wrong.requests) == retry.ATTEMPTS
    assert (tmp_path / "a").read_bytes() == b"before"


def test_an_upload_that_the_server_has_with_another_content_is_repeated():
    bodies = []

    def answer(request):
        bodies.append(request.read())
        sha256 = hashlib.sha256(bodies[-1]).hexdigest() if len(bodies) > 1 else "0"
        return httpx.Response(201, json={"sha256": sha256})

    upload(api_of(answer), "t1", 1, io.BytesIO(b"content"), "a")
    assert bodies == [b"content", b"content"]


def test_a_file_is_uploaded_from_its_position_on_and_stays_open():
    bodies = []

    def answer(request):
        bodies.append(request.read())
        return httpx.Response(201, json={"sha256": hashlib.sha256(bodies[-1]).hexdigest()})

    file = io.BytesIO(b"content")
    file.seek(3)
    upload(api_of(answer), "t1", 1, file, "a")
    assert bodies == [b"tent"]
    assert not file.closed


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a\0", "x" * 256, "\ud800"])
def test_a_name_that_no_file_may_have_is_refused_before_a_request(name):
    def fail(request):
        raise AssertionError

    for call in (lambda: upload(api_of(fail), "t1", 1, b"", name),
                 lambda: download(api_of(fail), "t1", name)):  # fmt: skip
        with pytest.raises(ValueError, match="the name of a file must"):
            call()


@pytest.mark.parametrize("source", [None, 3, io.StringIO("text")])
def test_something_that_is_not_binary_is_refused(source):
    def answer(request):
        request.read()
        raise AssertionError

    with pytest.raises(TypeError):
        upload(api_of(answer), "t1", 1, source, "a")


def test_a_source_without_a_name_needs_one():
    with pytest.raises(ValueError, match="give the name"):
        upload(api_of(None), "t1", 1, b"x")


def test_a_refused_download_is_not_repeated():
    requests = []

    def answer(request):
        requests.append(request)
        return httpx.Response(403, json={"type": "/v1/problems/forbidden", "title": "Forbidden"})

    with pytest.raises(ApiError):
        download(api_of(answer), "t1", "a")
    assert len(requests) == 1


@pytest.mark.parametrize("content", [b"", b"content"])
def test_a_download_that_is_cut_off_after_its_last_byte_is_complete(content):
    """A proxy may send it in chunks, without the last one; the range after it was refused."""
    requests = []

    class Unended(httpx.SyncByteStream):
        def __iter__(self):
            yield content
            raise httpx.RemoteProtocolError("no last chunk")

    def answer(request):
        requests.append(request)
        if "Range" in request.headers:
            return httpx.Response(416, json={"type": "/v1/problems/range-not-satisfiable"})
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        return httpx.Response(200, headers={"ETag": etag}, stream=Unended())

    assert download(api_of(answer), "t1", "a") == content
    assert len(requests) == 1


@pytest.mark.parametrize("name", ["C:evil", "a:b", "report.txt:stream"])
def test_a_name_does_not_leave_the_folder_on_windows(name):
    with pytest.raises(ValueError, match="on Windows"):
        _in_folder(PureWindowsPath("D:/files"), name)
    assert _in_folder(PurePosixPath("/files"), name) == PurePosixPath("/files", name)
