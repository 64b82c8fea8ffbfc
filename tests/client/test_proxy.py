"""A proxy in front of the server answers in its place: the SDK takes the server for unreachable."""

from __future__ import annotations

import gzip
import itertools
import time

import httpx
import pytest

from tests.client.stand_in import NOW, Rotate, bodies, granted, task, until, use
from zndraw_joblib.client import ApiError, UnexpectedAnswerError, retry

HTML = "<html><body>Please sign in: secret-page</body></html>"


def answers():
    """Answers of proxies and captive portals, by name; each call makes a new one."""
    json = {"Content-Type": "application/json"}
    return {
        "200 with HTML": lambda: httpx.Response(200, html=HTML),
        "200 with nothing": lambda: httpx.Response(200),
        "204": lambda: httpx.Response(204),
        "200 with other JSON": lambda: httpx.Response(200, json={"status": "ok"}),
        "200 with a list of text": lambda: httpx.Response(200, json=["a"]),
        "200 with null": lambda: httpx.Response(200, json=None),
        "cut JSON": lambda: httpx.Response(200, content=b'{"id": "t', headers=json),
        "deep JSON": lambda: httpx.Response(200, content=b"[" * 100_000, headers=json),
        "another charset": lambda: httpx.Response(200, content=b'{"id": "\xff\xfe"}', headers=json),
        "damaged gzip": lambda: httpx.Response(
            200, stream=Raw(gzip.compress(b"{}" * 99)[:-9] + b"x" * 99), headers=ZIPPED
        ),
        "301": lambda: redirect(301),
        "302": lambda: redirect(302),
        "307": lambda: redirect(307),
        "304": lambda: httpx.Response(304),
        "401": lambda: httpx.Response(401, html=HTML, headers={"WWW-Authenticate": "Basic"}),
        "403": lambda: httpx.Response(403, html=HTML),
        "404": lambda: httpx.Response(404, html=HTML),
        "404 in JSON": lambda: httpx.Response(404, json={"type": "error", "detail": "Not Found"}),
        "404 with a list": lambda: httpx.Response(404, json=[]),
        "404 with deep JSON": lambda: httpx.Response(404, content=b"[" * 100_000, headers=json),
        "413": lambda: httpx.Response(413, html=HTML),
        "429": lambda: httpx.Response(429, html=HTML, headers={"Retry-After": "0"}),
        "500": lambda: httpx.Response(500, html=HTML),
        "502": lambda: httpx.Response(502, html=HTML),
        "520": lambda: httpx.Response(520, html=HTML),
    }


ZIPPED = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
NAMES = list(answers())
#: Answers after which a request that must not be repeated is not, because the server may have
#: carried it out.
UNCERTAIN = {"500", "502", "520", "damaged gzip"}


class Raw(httpx.SyncByteStream):
    """A body that is decoded when it is read, and not when the response is made."""

    def __init__(self, content):
        self.content = content

    def __iter__(self):
        yield self.content


def redirect(status):
    return httpx.Response(status, headers={"Location": "http://elsewhere/login"})


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    real = retry.backoff
    monkeypatch.setattr(retry, "backoff", lambda attempt: real(attempt) / 500)


class Proxy:
    """Answers every request itself while `answer` is set; `hosts` are the hosts of the requests."""

    def __init__(self, server, manager):
        self.server, self.answer, self.hits, self.hosts = server, None, 0, set()
        manager.api.http = httpx.Client(transport=httpx.MockTransport(self), follow_redirects=True)

    def __call__(self, request):
        self.hosts.add(request.url.host)
        if self.answer is None:
            return self.server(request)
        self.hits += 1
        return self.answer()

    def answers(self, name, hits=None):
        """Answer by `name`, `hits` times or until `answer` is None."""
        make = answers()[name]
        if hits is None:
            self.answer = make
            return
        left = itertools.count(1)

        def answer():
            if next(left) == hits:
                self.answer = None
            return make()

        self.answer = answer


@pytest.fixture
def proxy(server, manager):
    return Proxy(server, manager)


@pytest.mark.parametrize("name", NAMES)
def test_a_worker_survives_answers_of_a_proxy_and_delivers_its_result(
    server, manager, proxy, running, name, caplog
):
    """Control: the worker ends, or a is lost, when `is_outage` needs a 5xx."""
    caplog.set_level("INFO", "zndraw_joblib")
    hits = 4 if name == "413" else 40
    server.queue.append(task("a"))
    thread = running(lambda claimed: proxy.answers(name) if claimed.id == "a" else None)
    until(lambda: proxy.hits >= hits)
    proxy.answer = None
    until(lambda: server.tasks == {"a": "completed"})
    warnings = [r.message.partition(";")[0] for r in caplog.records if r.levelname == "WARNING"]
    assert 1 <= len(warnings) == len(set(warnings))
    # Now the claims of the idle worker.
    proxy.hits = 0
    proxy.answers(name)
    server.release()
    until(lambda: proxy.hits >= hits)
    proxy.answer = None
    server.queue.append(task("b"))
    until(lambda: server.tasks == {"a": "completed", "b": "completed"})
    assert thread.is_alive()
    assert server.workers == 1
    assert proxy.hosts == {"x"}
    assert "secret" not in caplog.text


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "call", ["register", "submit", "submit_many", "task", "heartbeat", "complete"]
)
def test_each_request_is_repeated_after_an_answer_of_a_proxy(server, manager, proxy, name, call):
    manager.create_worker()
    (held,) = granted("a")
    calls = {
        "register": lambda: manager.register(Rotate),
        "submit": lambda: manager.submit(Rotate(), room="r"),
        "submit_many": lambda: manager.submit_many([Rotate(), Rotate()], room="r"),
        "task": lambda: manager.task("a"),
        "heartbeat": manager.heartbeat,
        "complete": lambda: manager.complete(held),
    }
    proxy.answers(name, hits=5)
    assert calls[call]()
    assert proxy.hits == 5
    assert len(set(server.keys)) <= 1


@pytest.mark.parametrize("name", sorted(set(NAMES) - UNCERTAIN))
def test_requests_that_must_not_be_repeated_are_repeated_after_the_page_of_a_proxy(
    server, manager, proxy, name
):
    proxy.answers(name, hits=5)
    assert manager.create_worker() == "w1"
    server.queue.append(task("a"))
    proxy.answers(name, hits=5)
    assert manager.claim().id == "a"


@pytest.mark.parametrize("name", sorted(UNCERTAIN))
def test_requests_that_must_not_be_repeated_are_not_when_the_server_may_have_carried_them_out(
    manager, proxy, name
):
    proxy.answers(name, hits=2)
    with pytest.raises((ApiError, httpx.RemoteProtocolError)):
        manager.create_worker()
    assert proxy.hits == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_wait_continues_after_answers_of_a_proxy(server, manager, proxy, name):
    server.tasks["a"] = "completed"
    proxy.answers(name, hits=5)
    assert manager.wait("a", timeout=20).status == "completed"


def test_the_error_after_all_attempts_says_what_answered(manager, proxy):
    proxy.answers("302")
    with pytest.raises(UnexpectedAnswerError, match=r"302 Found: not an answer of the server"):
        manager.task("a")
    assert proxy.hits == retry.ATTEMPTS
    proxy.answers("200 with HTML")
    with pytest.raises(UnexpectedAnswerError) as caught:
        manager.submit(Rotate(), room="r")
    assert "text/html" in str(caught.value)
    assert caught.value.problem == {}
    assert "secret" not in str(caught.value)


def test_a_result_that_is_too_large_for_a_proxy_ends_as_a_failed_task(
    server, manager, proxy, running
):
    """Control: the report of a is repeated for ever when `_TOO_LARGE` is empty."""
    server.queue += [task("a"), task("b")]

    def transport(request):
        return httpx.Response(413, html=HTML) if len(request.content) > 1000 else server(request)

    use(manager, transport)

    def execute(claimed):
        if claimed.id == "a":
            raise ValueError("x" * 2000)

    running(execute)
    until(lambda: server.tasks == {"a": "failed", "b": "completed"})
    assert bodies(server, "a")[-1]["error"].startswith("The result of this task was refused: 413")


def test_the_retry_after_of_a_proxy_is_obeyed(server, manager, proxy):
    proxy.answer = lambda: httpx.Response(429, html=HTML, headers={"Retry-After": "1"})
    started = time.monotonic()

    def end():
        proxy.answer = None
        return httpx.Response(429, html=HTML, headers={"Retry-After": "1"})

    proxy.answer = end
    assert manager.task("a").created_at.isoformat().startswith(NOW[:10])
    assert 0.9 < time.monotonic() - started < 5
