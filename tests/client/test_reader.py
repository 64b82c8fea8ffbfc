"""Lists of tasks by the SDK, and jobs that it retires, against the stand-in."""

from __future__ import annotations

from urllib.parse import parse_qsl

import httpx
import pytest

from tests.client.stand_in import Lost, Rotate, refusal, task
from zndraw_joblib.client import ForbiddenError, JobNotFoundError, retry

ROTATE = "@global:modifiers:Rotate"
RETIRE = f"DELETE /rooms/@global/jobs/{ROTATE}"


@pytest.fixture
def short_outages(monkeypatch):
    monkeypatch.setattr(retry, "backoff", lambda attempt: 0.01)


def page(ids, following=None):
    link = {"Link": f'<http://behind.example/v1/joblib/tasks?{following}>; rel="next"'}
    documents = [task(task_id) for task_id in ids]
    return httpx.Response(200, json=documents, headers=link if following else {})


def test_tasks_are_listed_page_by_page_by_the_links_of_the_server(server, manager, short_outages):
    """Also over an empty page, which has a link where its tasks do not satisfy the filters."""
    server.fail = {
        "GET /tasks?": [httpx.ConnectError("down"), page("ab", "cursor=1")],
        "GET /tasks?cursor=1": [page("", "cursor=2&x=%26")],
        "GET /tasks?cursor=2&x=%26": [page("c")],
    }
    tasks = manager.tasks()
    assert server.calls == []
    assert [next(tasks).id, next(tasks).id] == ["a", "b"]
    assert len(server.calls) == 2
    assert [one.id for one in tasks] == ["c"]
    # To the server that the manager knows, whatever the server takes its address for.
    assert len(server.calls) == 4


def test_the_filters_of_a_list_are_sent(server, manager):
    query = "created_by=a%26b&status=failed&job=%C3%BC%3Am%3AX&room=%C3%BC&include=result"
    server.fail[f"GET /tasks?{query}"] = [page("a")]
    filters = {"created_by": "a&b", "status": "failed", "job": "ü:m:X", "room": "ü"}
    assert len(list(manager.tasks(**filters, include_result=True))) == 1
    assert dict(parse_qsl(query)) == {**filters, "include": "result"}
    with pytest.raises(ValueError, match="nonsense"):
        manager.tasks(status="nonsense")


def test_a_list_that_is_refused_raises(server, manager):
    server.fail["GET /tasks?created_by=bob"] = [refusal("forbidden", 403)]
    with pytest.raises(ForbiddenError):
        list(manager.tasks(created_by="bob"))


def test_a_retired_job_is_not_registered_again_by_the_worker_that_offered_it(server, manager):
    manager.register(Rotate)
    manager.retire_job(ROTATE)
    assert server.sent("DELETE") == [(*RETIRE.split(), None)]
    assert list(manager) == []
    server.fail["PATCH /workers/w1"] = [refusal("worker-not-found", 404)]
    manager.heartbeat()
    assert len(server.sent("PUT")) == 1


def test_a_job_that_is_missing_raises_but_not_after_a_lost_answer(server, manager, short_outages):
    server.fail[RETIRE] = [refusal("job-not-found", 404)]
    with pytest.raises(JobNotFoundError):
        manager.retire_job(ROTATE)
    server.fail[RETIRE] = [Lost(), refusal("job-not-found", 404)]
    manager.retire_job(ROTATE)
    assert len(server.sent("DELETE")) == 3


def test_a_text_that_is_no_full_name_is_refused_before_any_request(server, manager):
    with pytest.raises(ValueError, match="three parts"):
        manager.retire_job("Rotate")
    assert server.calls == []
