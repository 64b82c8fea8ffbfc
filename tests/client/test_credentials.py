"""Credentials that expire: the stand-in accepts one token at a time."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.client.stand_in import Rotate, bodies, granted, refusal, task, until
from zndraw_joblib.client import (
    Api,
    CredentialsError,
    JobManager,
    NotAuthenticatedError,
    credentials,
    retry,
)


class Guard:
    """Answers 401 to requests without the valid token; `refused` has the number for each value."""

    def __init__(self, server, scheme="Bearer"):
        self.server, self.scheme, self.valid = server, scheme, "1"
        self.refused, self.seen = Counter(), set()

    def __call__(self, request):
        given = request.headers.get("Authorization")
        self.seen.add(given)
        if given != f"{self.scheme} {self.valid}":
            self.refused[given] += 1
            return refusal("not-authenticated", 401)
        return self.server(request)


@pytest.fixture
def guard(server):
    return Guard(server)


@pytest.fixture
def manage(guard, monkeypatch):
    """Makes managers behind the guard; pauses after failures are a hundredth as long."""
    real = retry.backoff
    monkeypatch.setattr(retry, "backoff", lambda attempt: real(attempt) / 100)

    def make(*args, **options):
        api = Api("http://x", *args, transport=httpx.MockTransport(guard), **options)
        return JobManager(api, heartbeat_interval=0.02)

    return make


@pytest.fixture
def running(server):
    """A function that runs `serve` of a manager in a thread, which is stopped at the end."""
    started = []

    def begin(manager, execute):
        manager.register(Rotate)
        outcome: list = []

        def run():
            try:
                manager.serve(execute)
            except Exception as error:
                outcome.append(error)

        thread = threading.Thread(target=run, daemon=True)
        started.append((manager, thread))
        thread.start()
        return thread, outcome

    yield begin
    for manager, thread in started:
        manager.stop()
        server.release()
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("token", "scheme", "sent"),
    [
        ("1", "Bearer", "Bearer 1"),
        (" 1\n", "Bearer", "Bearer 1"),
        (lambda: "1\n", "Bearer", "Bearer 1"),
        ("Bearer 1", "Token", "Bearer 1"),
        (lambda: "Bearer 1", "Token", "Bearer 1"),
    ],
)
def test_a_token_is_sent_with_its_scheme(manage, guard, token, scheme, sent):
    manage(token, scheme=scheme).create_worker()
    assert guard.seen == {sent}


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (ValueError, {"token": "naïve"}),
        (ValueError, {"token": "a\nb"}),
        (ValueError, {"token": "1", "auth": httpx.BasicAuth("a", "b")}),
        (TypeError, {"token": b"1"}),
        (TypeError, {"auth": lambda: "1"}),
        (TypeError, {"auth": ("a", "b")}),
    ],
)
def test_credentials_that_cannot_be_sent_are_refused_at_once(error, options):
    with pytest.raises(error):
        Api("http://x", **options)


class Expiring(httpx.Auth):
    """An Auth of the user's own: renews its token after a 401."""

    def __init__(self, guard):
        self.guard, self.token, self.broken = guard, "0", False

    def auth_flow(self, request):
        request.headers["Authorization"] = f"Bearer {self.token}"
        response = yield request
        if response.status_code == 401:
            if self.broken:
                raise KeyError("no token server")
            self.token = self.guard.valid
            request.headers["Authorization"] = f"Bearer {self.token}"
            yield request


@pytest.mark.parametrize("kind", ["function", "auth"])
def test_a_token_that_expires_while_a_task_runs_is_renewed(manage, guard, server, running, kind):
    options = {"token": lambda: guard.valid, "scheme": "Bearer"}
    if kind == "auth":
        options = {"auth": Expiring(guard)}
    server.queue += [task("a"), task("b")]

    def expire(claimed):
        guard.valid = str(int(guard.valid) + 1)

    running(manage(**options), expire)
    until(lambda: server.tasks == {"a": "completed", "b": "completed"})
    assert [len(bodies(server, one)) for one in "ab"] == [1, 1]


def test_threads_refused_with_one_token_ask_for_another_once(manage, guard):
    """Control: the function is called up to eight times when each thread calls it."""
    calls = []

    def renew():
        calls.append(threading.current_thread().name)
        time.sleep(0.1)
        return guard.valid

    manager = manage(renew, scheme="Bearer")
    manager.create_worker()
    guard.valid = "2"
    together = threading.Barrier(8)

    def read(number):
        together.wait(5)
        return manager.task(f"t{number}").id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(read, range(8)))) == 8
    assert calls == ["joblib-token"] * 2


def test_a_request_that_is_refused_with_a_renewed_token_too_fails(manage, guard):
    calls = []

    def renew():
        calls.append(1)
        return f"wrong {len(calls)}"

    with pytest.raises(NotAuthenticatedError):
        manage(renew).task("t1")
    assert guard.refused == {"wrong 1": 1, "wrong 2": 1}
    guard.refused.clear()
    with pytest.raises(NotAuthenticatedError):
        manage(lambda: "wrong 0").task("t1")
    # The same token is not sent again.
    assert guard.refused == {"wrong 0": 1}


@pytest.mark.parametrize("kind", ["raises", "returns nothing", "blocks", "auth raises"])
def test_a_failing_source_of_tokens_counts_as_an_outage(
    manage, guard, server, running, kind, caplog
):
    fails, released = threading.Event(), threading.Event()

    def renew():
        if fails.is_set() and kind == "raises":
            raise RuntimeError("no token server")
        if fails.is_set() and kind == "blocks":
            released.wait(10)
        return None if fails.is_set() and kind == "returns nothing" else guard.valid

    auth = Expiring(guard)
    source = {"auth": auth} if kind == "auth raises" else {"token": renew, "scheme": "Bearer"}
    server.queue.append(task("a"))

    def expire(claimed):
        fails.set()
        auth.broken = True
        guard.valid = "2"

    manager = manage(**source, timeout=0.05)
    thread, outcome = running(manager, expire)
    text = "has not returned" if kind == "blocks" else "failed: "
    until(lambda: "could not deliver reports" in caplog.text and text in caplog.text)
    thread.join(0.1)
    assert thread.is_alive()
    with pytest.raises(CredentialsError):
        manager.task("a")
    fails.clear()
    released.set()
    auth.broken = False
    until(lambda: server.tasks == {"a": "completed"})
    assert not outcome


def test_a_function_that_hangs_is_left_behind(manage, guard, monkeypatch):
    monkeypatch.setattr(credentials, "LEFT_BEHIND_SECONDS", 0.1)
    released, calls = threading.Event(), []

    def renew():
        calls.append(1)
        if len(calls) == 1:
            released.wait(10)
        return "1"

    assert manage(renew, scheme="Bearer", timeout=0.15).task("t1").id == "t1"
    released.set()
    assert len(calls) == 2


def test_a_result_is_kept_for_a_lease_while_a_fixed_token_is_refused(
    manage, guard, server, running
):
    """Control: the result is lost when a report that is refused with 401 is dropped."""
    server.queue += [task("a"), task("b")]

    def revoke(claimed):
        if claimed.id == "a":
            guard.valid = "restored later"

    thread, outcome = running(manage("1", scheme="Bearer"), revoke)
    until(lambda: guard.refused["Bearer 1"] > 10)
    guard.valid = "1"
    until(lambda: server.tasks == {"a": "completed", "b": "completed"})
    assert thread.is_alive()
    assert not outcome


def test_claims_go_on_for_a_lease_while_a_fixed_token_is_refused(manage, server, running):
    server.queue += [task("a"), task("b")]

    def refuse_claims(claimed):
        if claimed.id == "a":
            server.fail["POST /tasks/claim"] = [refusal("not-authenticated", 401)] * 5

    _, outcome = running(manage("1", scheme="Bearer"), refuse_claims)
    until(lambda: server.tasks == {"a": "completed", "b": "completed"})
    assert not outcome
    assert not server.fail["POST /tasks/claim"]


def test_a_worker_whose_token_is_refused_for_a_lease_ends_with_the_error(
    manage, guard, server, running, caplog
):
    server.lease = 0.3
    server.queue.append(task("a"))

    def revoke(claimed):
        guard.valid = "never restored"

    thread, outcome = running(manage("1", scheme="Bearer"), revoke)
    thread.join(10)
    assert not thread.is_alive()
    assert [type(error) for error in outcome] == [NotAuthenticatedError]
    assert server.tasks == {"a": "running"}
    assert "could not report on task a" in caplog.text


def test_a_token_that_is_refused_at_the_first_claim_ends_the_worker_at_once(manage, guard, server):
    manager = manage("1", scheme="Bearer")
    manager.register(Rotate)
    guard.valid = "2"
    with pytest.raises(NotAuthenticatedError):
        manager.serve()
    assert guard.refused["Bearer 1"] < 5


def test_a_worker_that_could_not_be_replaced_for_want_of_credentials_is_replaced_later(
    manage, guard, server
):
    """Control: w2 has no job when `replace_worker` keeps its id after a 401."""
    manager = manage("1", scheme="Bearer")
    manager.register(Rotate)
    server.fail["PATCH /workers/w1"] = [refusal("worker-not-found", 404) for _ in range(2)]
    server.fail["PUT /rooms/@global/jobs"] = [refusal("not-authenticated", 401)]
    with pytest.raises(NotAuthenticatedError):
        manager.heartbeat()
    manager.heartbeat()
    assert [call[2]["worker_id"] for call in server.sent("PUT")] == ["w1", "w2", "w3"]


class Site:
    """An access to a server of the user's own, whose headers come from elsewhere."""

    base_url = "http://x/"

    def __init__(self, guard):
        self.http = httpx.Client(transport=httpx.MockTransport(guard))
        self.tokens = [KeyError("no file"), "1"]

    def get_headers(self):
        token = self.tokens.pop(0)
        if isinstance(token, Exception):
            raise token
        return {"Authorization": f"Bearer {token}"}


def test_headers_of_an_api_manager_are_read_before_each_attempt(manage, guard):
    assert JobManager(Site(guard)).complete(granted("a")[0]).status == "completed"


@pytest.mark.parametrize(
    "base_url", ["http://x/api", "http://x/api/", "http://x/t/acme/", "https://x:8443/a%20b//"]
)
def test_requests_go_below_the_path_of_the_base_url(server, base_url):
    seen = []

    def answer(request):
        head, slash, tail = request.url.raw_path.decode().partition("/v1/joblib")
        seen.append((request.url.host, head))
        request.url = request.url.copy_with(raw_path=(slash + tail).encode())
        return server(request)

    manager = JobManager(Api(base_url, transport=httpx.MockTransport(answer)))
    manager.register(Rotate)
    server.queue.append(task("a"))
    claimed = manager.claim(wait=1)
    assert claimed is not None
    manager.complete(claimed)
    assert manager.wait("a", timeout=5).status == "completed"
    manager.submit(Rotate(), room="r")
    path = httpx.URL(base_url).raw_path.decode().rstrip("/")
    assert set(seen) == {("x", path)}


@pytest.mark.parametrize("base_url", ["example.org", "/api", "ftp://x", "http://", ""])
def test_a_base_url_that_is_no_address_of_http_is_refused(base_url):
    with pytest.raises(ValueError, match="base_url must be like"):
        Api(base_url)


@pytest.mark.parametrize("base_url", ["http://x/api?tenant=a", "http://x/api#top", "http://x/?"])
def test_a_base_url_with_a_query_is_refused_because_the_path_would_be_part_of_it(base_url):
    with pytest.raises(ValueError, match="neither a query nor a fragment"):
        Api(base_url)


@pytest.mark.parametrize(
    "options", [{"token": "1"}, {"token": lambda: "1"}, {"auth": httpx.BasicAuth("a", "b")}]
)
def test_credentials_in_the_base_url_do_not_take_the_place_of_others(server, options):
    with pytest.raises(ValueError, match="either in base_url"):
        Api("http://user:password@x/api", **options)
    api = Api("http://user:password@x/", transport=httpx.MockTransport(server))
    JobManager(api).create_worker()


@pytest.mark.parametrize(("token", "kind"), [(None, "NoneType"), (b"1", "bytes")])
def test_a_function_whose_token_is_no_text_is_named_with_its_type(manage, token, kind):
    with pytest.raises(CredentialsError, match=f"must be a str, not {kind}"):
        manage(lambda: token).create_worker()
