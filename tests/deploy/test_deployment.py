"""The deployment of docs/how-to/deploy.md, started from its files: nginx, granian, uvicorn."""

from __future__ import annotations

import http.client
import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.client.jobs import Double
from tests.deploy.programs import service
from tests.deploy.site import listens, nginx, site as whole_site
from tests.factories import ROTATE, SCHEMA, V1
from tests.servers import free_port, process, until
from zndraw_joblib.client import Api, JobManager
from zndraw_joblib.models import Task, Worker

pytestmark = [pytest.mark.deploy, pytest.mark.django_db(transaction=True)]

#: Seconds of a wait; a test that waited to its end would exceed SOON.
LONG = 20
#: Seconds until an event of another process must have arrived; the next re-read is after 5 s.
SOON = 1.5


@pytest.fixture(scope="module")
def site(postgres):
    with whole_site() as running:
        yield running


@pytest.fixture
def front(site):
    site.nginx.skip()
    return site.nginx


def as_person(person, url):
    return httpx.Client(
        base_url=url, headers={"Authorization": f"Token {person.token}"}, timeout=LONG + 10
    )


@pytest.fixture
def bobs(bob, front):
    with as_person(bob, front.url) as client:
        yield client


@pytest.fixture
def submit_path(bob):
    bob.register()
    return f"{V1}/rooms/open/tasks/open:{ROTATE}"


def submit(client, path):
    answer = client.post(path, json={"payload": {}})
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def problem(answer, status, kind="about:blank"):
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    document = answer.json()
    assert document["type"] == kind
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    return document


# -- the server that answers


def test_short_requests_are_served_by_granian(bobs, front):
    path = f"{V1}/rooms/open/jobs"
    body = {"category": "modifiers", "name": "Rotate", "schema": SCHEMA}
    assert bobs.put(path, json=body).status_code == 201
    assert front.served("PUT", path) == ["granian"]
    submitted = f"{V1}/rooms/open/tasks/open:{ROTATE}"
    task_id = submit(bobs, submitted)
    assert front.served("POST", submitted) == ["granian"]
    claimed = bobs.post(f"{V1}/tasks/claim", json={}).json()["task"]
    assert claimed["id"] == task_id
    assert front.served("POST", f"{V1}/tasks/claim") == ["granian"]
    path = f"{V1}/tasks/{task_id}"
    for status in ("running", "completed"):
        report = bobs.patch(path, json={"status": status, "attempt": 1})
        assert report.json()["status"] == status
    assert front.served("PATCH", path) == ["granian"]
    assert bobs.get(path).headers["Vary"] == "Prefer"
    assert front.served("GET", path) == ["granian"]
    heartbeat = f"{V1}/workers/{claimed['worker_id']}"
    assert bobs.patch(heartbeat).status_code == 200
    assert bobs.delete(heartbeat).status_code == 204
    assert front.served("DELETE", heartbeat) == ["granian"]


def test_files_that_are_larger_than_other_bodies_pass(bobs, front, submit_path):
    task = submit(bobs, submit_path)
    bobs.post(f"{V1}/tasks/claim", json={})
    path, content = f"{V1}/tasks/{task}/files/a.bin", bytes(range(256)) * 20_000
    assert bobs.put(path, params={"attempt": 1}, content=content).status_code == 201
    assert front.served("PUT", f"{path}?attempt=1") == ["granian"]
    assert bobs.get(path).content == content
    part = bobs.get(path, headers={"Range": "bytes=5000000-5000009"})
    assert (part.status_code, part.content) == (206, content[5_000_000:5_000_010])
    refused = bobs.put(f"{V1}/workers/x", content=content)
    problem(refused, 413, "/v1/problems/content-too-large")


@pytest.mark.parametrize(
    ("prefer", "server"),
    [
        ("wait=7", "uvicorn"),
        ("WAIT=7", "uvicorn"),
        ("respond-async, Wait = 7", "uvicorn"),
        ('handling=lenient,wait="7"', "uvicorn"),
        ("wait=7; x=1, respond-async", "uvicorn"),
        ("respond-async", "granian"),
        ("await=7", "granian"),
        ("handling=lenient; wait=7", "granian"),
    ],
)
def test_requests_that_prefer_to_wait_are_served_by_uvicorn(
    bob, bobs, front, submit_path, prefer, server
):
    path = f"{V1}/tasks/{submit(bobs, submit_path)}"
    bob.report(path.rpartition("/")[2], "cancelled")
    answer = bobs.get(path, headers={"Prefer": prefer})
    assert answer.json()["status"] == "cancelled"
    applied = "wait=7" if server == "uvicorn" else None
    assert answer.headers.get("Preference-Applied") == applied
    assert front.served("GET", path) == [server]


# -- events between the servers


def test_a_waiter_on_uvicorn_is_woken_by_a_report_on_granian(bobs, front, submit_path):
    task_id = submit(bobs, submit_path)
    path = f"{V1}/tasks/{task_id}"
    bobs.post(f"{V1}/tasks/claim", json={})
    bobs.patch(path, json={"status": "running", "attempt": 1})
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(bobs.get, path, headers={"Prefer": f"wait={LONG}"})
        time.sleep(0.5)
        assert not waiting.done()
        ended = time.monotonic()
        bobs.patch(path, json={"status": "completed", "attempt": 1})
        answer = waiting.result()
        assert time.monotonic() - ended < SOON
    assert answer.json()["status"] == "completed"
    assert answer.headers["Preference-Applied"] == f"wait={LONG}"
    assert front.served("GET", path) == ["uvicorn"]
    assert front.served("PATCH", path) == ["granian"]


def test_a_claim_on_uvicorn_is_woken_by_a_submit_on_granian(bobs, front, submit_path):
    with ThreadPoolExecutor(1) as pool:
        claim = pool.submit(bobs.post, f"{V1}/tasks/claim", json={}, headers={"Prefer": "wait=5"})
        time.sleep(0.5)
        assert not claim.done()
        submitted = time.monotonic()
        task_id = submit(bobs, submit_path)
        answer = claim.result()
        assert time.monotonic() - submitted < SOON
    assert answer.json()["task"]["id"] == task_id
    assert answer.headers["Preference-Applied"] == "wait=5"
    assert front.served("POST", f"{V1}/tasks/claim") == ["uvicorn"]
    assert front.served("POST", submit_path) == ["granian"]


@pytest.mark.parametrize("through", ["nginx", "granian", "uvicorn"])
def test_a_chunked_body_is_read(bob, front, submit_path, through):
    ports = {"granian": front.wsgi, "uvicorn": front.asgi}
    url = f"http://127.0.0.1:{ports[through]}" if through in ports else front.url
    with as_person(bob, url) as client:
        body = json.dumps({"payload": {"angle": 7.5}}).encode()
        answer = client.post(
            submit_path,
            content=iter([body[:10], body[10:]]),
            headers={"Content-Type": "application/json"},
        )
        assert answer.status_code == 202, answer.text
        assert answer.json()["payload"] == {"angle": 7.5}
        large = client.post(
            submit_path,
            content=(b" " * 65536 for _ in range(20)),
            headers={"Content-Type": "application/json"},
        )
        assert large.status_code == 413, large.text


def test_a_task_is_not_granted_to_a_client_that_closed_its_claim_through_nginx(bobs, submit_path):
    with pytest.raises(httpx.ReadTimeout):
        bobs.post(f"{V1}/tasks/claim", json={}, headers={"Prefer": f"wait={LONG}"}, timeout=0.5)
    task_id = submit(bobs, submit_path)
    claimed = until(lambda: bobs.post(f"{V1}/tasks/claim", json={}).json()["task"], 3)
    assert claimed["id"] == task_id


def test_websockets_on_uvicorn_receive_an_end_reported_on_granian(bob, bobs, front, submit_path):
    task_id = submit(bobs, submit_path)
    base = front.url.replace("http", "ws") + "/ws/v1/joblib"
    token = ["token", bob.token]
    with (
        connect(f"{base}/tasks/{task_id}/", subprotocols=token) as task,
        connect(f"{base}/rooms/open/", subprotocols=token) as room,
        connect(f"{base}/tasks/{task_id}/") as anonymous,
    ):
        assert task.subprotocol == "token"
        with pytest.raises(ConnectionClosed) as closed:
            anonymous.recv(timeout=5)
        assert closed.value.rcvd.code == 4401
        time.sleep(0.3)
        ended = time.monotonic()
        bobs.patch(f"{V1}/tasks/{task_id}", json={"status": "cancelled"})
        assert json.loads(task.recv(timeout=10))["status"] == "cancelled"
        assert json.loads(room.recv(timeout=10))["id"] == task_id
        assert time.monotonic() - ended < SOON
    assert front.served("GET", f"/ws/v1/joblib/tasks/{task_id}/") == ["uvicorn"]
    assert front.served("PATCH", f"{V1}/tasks/{task_id}") == ["granian"]


def test_the_sdk_works_through_nginx(bob, root, front):
    extra = {"JOBLIB_URL": front.url, "JOBLIB_TOKEN": root.token}
    with process("-m", "tests.client.jobs", **extra) as worker, Api(front.url, bob.token) as api:
        until(lambda: Worker.objects.filter(jobs__name="Double").exists())
        manager = JobManager(api)
        done = manager.wait(manager.submit(Double(number=4), room="open"), timeout=LONG)
        assert done.status == "completed"
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(10) == 0
    assert not Worker.objects.exists()


# -- requests and headers through the proxy


@pytest.mark.parametrize("server", ["granian", "uvicorn"])
@pytest.mark.parametrize(
    "name",
    [
        "@global:modifiers:Rotate",
        "%40global%3Amodifiers%3ARotate",
        "%40global:modifiers%3aRotate",
    ],
)
def test_paths_pass_nginx_unchanged(root, front, name, server):
    root.register("@global")
    address = urlsplit(front.url)
    headers = {"Authorization": f"Token {root.token}", "Content-Type": "application/json"}
    if server == "uvicorn":
        headers["Prefer"] = "wait=1"
    path = f"{V1}/rooms/open%20%C3%A9/tasks/{name}"
    # Not httpx, because it normalizes the path.
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=10)
    with closing(connection):
        connection.request("POST", path, json.dumps({"payload": {"angle": 1}}), headers)
        answer = connection.getresponse()
        task = json.loads(answer.read())
    assert answer.status == 202, task
    assert task["job_name"] == "@global:modifiers:Rotate"
    assert task["room_id"] == "open \u00e9"
    assert answer.headers["Location"] == f"{V1}/tasks/{task['id']}"
    assert front.served("POST", path) == [server]


@pytest.fixture
def echo():
    """Port of a server that returns the path and the headers of each request."""

    class Echo(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = json.dumps({"path": self.path, **dict(self.headers.items())}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as echo:
        echo.daemon_threads = True
        threading.Thread(target=echo.serve_forever, daemon=True).start()
        yield echo.server_port
        echo.shutdown()


def test_nginx_replaces_forwarding_headers_of_the_client(postgres, echo):
    with nginx(echo, echo) as front:
        headers = {
            "Host": "jobs.example.org:8080",
            "Prefer": "wait=0",
            "Idempotency-Key": '"a"',
            "X-Forwarded-For": "192.0.2.1",
            "X-Forwarded-Proto": "https",
            "X_Forwarded_Proto": "https",
            "Upgrade": "h2c",
            "Connection": "Upgrade",
        }
        seen = httpx.get(f"{front.url}/v1/a%40b//c?d=%20", headers=headers).json()
    assert seen.pop("path") == "/v1/a%40b//c?d=%20"
    for name in ("Host", "Prefer", "Idempotency-Key"):
        assert seen[name] == headers[name]
    assert seen["X-Forwarded-For"] == "127.0.0.1"
    assert seen["X-Forwarded-Proto"] == "http"
    assert not {"Upgrade", "Connection", "X_Forwarded_Proto"} & set(seen)


def test_the_admin_and_static_files_are_served(root, front):
    root.user.set_password("secret")
    root.user.save()
    with httpx.Client(base_url=front.url) as browser:
        login = "/admin/login/?next=/admin/zndraw_joblib/task/"
        assert browser.get(login).status_code == 200
        answer = browser.post(
            login,
            data={
                "username": "root",
                "password": "secret",
                "csrfmiddlewaretoken": browser.cookies["csrftoken"],
            },
            headers={"Origin": front.url},
        )
        assert answer.status_code == 302, answer.text
        page = browser.get(answer.headers["Location"])
        assert page.status_code == 200
        assert "Tasks" in page.text
        assert front.served("GET", "/admin/zndraw_joblib/task/") == ["granian"]
        style = browser.get("/static/admin/css/base.css")
        assert style.status_code == 200
        assert style.headers["Content-Type"].startswith("text/css")
        assert browser.get("/nothing").status_code == 404
        problem(browser.get(f"{V1}/nothing"), 404, "/v1/problems/not-found")
    answer = httpx.get(f"{front.url}/v1/me")
    problem(answer, 401, "/v1/problems/not-authenticated")
    assert answer.headers["WWW-Authenticate"] == "Token"


# -- errors of nginx


def body_of(size):
    return b'{"payload": "' + b"x" * (size - 15) + b'"}'


@pytest.mark.parametrize("prefer", [None, "wait=1"])
def test_a_too_large_body_is_refused_by_the_app_or_beyond_its_limit_by_nginx(
    bobs, submit_path, prefer
):
    kind = "/v1/problems/content-too-large"
    headers = {"Content-Type": "application/json", **({"Prefer": prefer} if prefer else {})}

    def post(content):
        return bobs.post(submit_path, content=content, headers=headers)

    def in_chunks(size):
        yield from (body_of(size)[start : start + 65536] for start in range(0, size, 65536))

    # Within the limit of a body, so the app reads it and refuses its content.
    assert post(body_of(1_000_000)).status_code == 400
    for content in (body_of(1_500_000), in_chunks(1_500_000)):
        # The app's refusal names its limit.
        assert "1048576" in problem(post(content), 413, kind)["detail"]
    for content in (body_of(3_000_000), in_chunks(3_000_000)):
        problem(post(content), 413, kind)
    assert Task.objects.count() == 0


def test_the_refusal_of_a_request_with_a_large_body_reaches_the_client(front, submit_path):
    """Control: a quarter are 502 without `discard_body`, because nginx gets a broken pipe."""
    headers = {"Authorization": "Token x", "Content-Type": "application/json"}
    for _ in range(30):
        answer = httpx.post(front.url + submit_path, content=body_of(1_000_000), headers=headers)
        problem(answer, 401, "/v1/problems/not-authenticated")


def test_too_long_urls_and_headers_are_answered_with_a_problem(bobs):
    problem(bobs.get(f"{V1}/tasks/{'x' * 40_000}"), 414)
    problem(bobs.get(f"{V1}/tasks/x", headers={"X": "x" * 40_000}), 400)


def test_each_server_takes_over_when_the_other_is_down(bob, front, submit_path):
    with nginx(free_port(), front.asgi) as only, as_person(bob, only.url) as client:
        task_id = submit(client, submit_path)
        assert only.served("POST", submit_path) == ["granian", "uvicorn"]
    with nginx(front.wsgi, free_port()) as only, as_person(bob, only.url) as client:
        path = f"{V1}/tasks/{task_id}"
        answer = client.get(path, headers={"Prefer": f"wait={LONG}"})
        # Granian does not wait; the SDK polls because `Preference-Applied` is missing.
        assert answer.json()["status"] == "pending"
        assert "Preference-Applied" not in answer.headers
        assert answer.elapsed.total_seconds() < SOON
        assert only.served("GET", path) == ["uvicorn", "granian"]


def test_without_a_server_nginx_answers_with_problems_and_the_sdk_retries(postgres, bob, root):
    schema = Double.model_json_schema()
    root.register("@global", schema=schema, name="Double", category="analysis")
    port = free_port()
    with nginx(port, port) as front, as_person(bob, front.url) as client:
        path = f"{V1}/rooms/open/tasks/@global:analysis:Double"
        for answer in (
            client.post(path, json={"payload": {"number": 1}}),
            client.get(f"{V1}/tasks/x", headers={"Prefer": f"wait={LONG}"}),
        ):
            problem(answer, 502)
            assert answer.headers["Retry-After"] == "1"
        assert client.get("/admin/").headers["Content-Type"] == "text/html"
        with ThreadPoolExecutor(1) as pool, Api(front.url, bob.token) as api:
            submitting = pool.submit(JobManager(api).submit, Double(number=1), room="open")
            time.sleep(0.2)
            assert not submitting.done()
            with process(*service("joblib-asgi", **{"8002": str(port)})) as uvicorn:
                assert submitting.result() == str(Task.objects.get().pk)
                # A graceful shutdown answers waiting requests with the stored task.
                waiting = pool.submit(
                    client.get, f"{V1}/tasks/{submitting.result()}", headers={"Prefer": "wait=2"}
                )
                time.sleep(0.5)
                uvicorn.send_signal(signal.SIGTERM)
                until(lambda: not listens(port))
                assert waiting.result().status_code == 200
                assert waiting.result().headers["Preference-Applied"] == "wait=2"
                assert uvicorn.wait(5) in {0, -signal.SIGTERM}


# -- restarts


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as listed:
        return set(listed.read().split())


def test_granian_replaces_its_workers_without_losing_a_request(bob, site, submit_path):
    """An old worker may close a connection just as nginx sends a request, which is then a 502.

    nginx does not repeat a POST, so the client does; its idempotency key makes that safe.
    """
    before = children(site.granian.pid)
    stop = threading.Event()

    def submits():
        codes = []
        with as_person(bob, site.nginx.url) as client:
            while not stop.is_set():
                key = {"Idempotency-Key": f'"{uuid4()}"'}
                while True:
                    answer = client.post(submit_path, json={"payload": {}}, headers=key)
                    codes.append(answer.status_code)
                    if answer.status_code != 502:
                        break
                    assert answer.headers["Retry-After"] == "1"
                time.sleep(0.01)
        return codes

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(submits) for _ in range(4)]
        try:
            time.sleep(0.2)
            site.granian.send_signal(signal.SIGHUP)
            until(lambda: len(children(site.granian.pid) - before) >= 2)
            until(lambda: not children(site.granian.pid) & before)
        finally:
            stop.set()
        codes = [code for client in clients for code in client.result()]
    assert set(codes) <= {202, 502}
    # A few at most, because only a request at the moment of the replacement fails.
    assert codes.count(502) <= 8
    assert Task.objects.count() == codes.count(202)


def test_the_sweeper_runs_by_the_command_of_its_unit(postgres):
    with process(*service("joblib-sweeper")) as sweeper:
        until(lambda: "sweep requeued=0" in sweeper.log.read_text())
        sweeper.send_signal(signal.SIGTERM)
        assert sweeper.wait(10) == 0
