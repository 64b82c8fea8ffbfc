"""Workers of a site that limits the requests of each user."""

from __future__ import annotations

import threading
from collections import Counter

import httpx
import pytest
from django.core.cache import cache
from django.core.handlers.wsgi import WSGIHandler
from rest_framework.throttling import SimpleRateThrottle, UserRateThrottle

from tests.client.jobs import Double
from tests.servers import until
from zndraw_joblib.api.base import JobLibView
from zndraw_joblib.client import Api, ClaimedTask, JobManager
from zndraw_joblib.models import Task, Worker

pytestmark = pytest.mark.django_db(transaction=True)


class Counting(httpx.WSGITransport):
    """Answers requests in the process, and counts the statuses of each kind."""

    def __init__(self):
        super().__init__(WSGIHandler())
        self.statuses = Counter()

    def handle_request(self, request):
        kind = request.url.path.split("/")[3]
        response = super().handle_request(request)
        self.statuses[kind, request.method, response.status_code] += 1
        return response


@pytest.fixture
def rate_of_five(monkeypatch):
    """A site whose users have five requests a day; the submitter is not one of them."""
    cache.clear()
    monkeypatch.setattr(SimpleRateThrottle, "THROTTLE_RATES", {"user": "5/day"})
    monkeypatch.setattr(JobLibView, "throttle_classes", [UserRateThrottle])
    yield
    cache.clear()


def test_tasks_of_a_throttled_user_complete(root, alice, rate_of_five):
    """Control: the tasks stay running when heartbeats and reports are throttled."""
    transport = Counting()
    with Api("http://localhost", root.token, transport=transport) as api:
        manager = JobManager(api, heartbeat_interval=0.05)
        manager.register(Double)
        for number in range(3):
            answer = alice.submit("open", "@global:analysis:Double", number=number)
            assert answer.status_code == 202, answer.content
        beats = 10

        def execute(task: ClaimedTask) -> None:
            until(lambda: transport.statuses["workers", "PATCH", 200] > beats)

        thread = threading.Thread(
            target=manager.serve, args=(execute,), kwargs={"concurrency": 3}, daemon=True
        )
        thread.start()
        try:
            until(lambda: Task.objects.filter(status="completed").count() == 3)
            # The claims that follow are refused, and the worker waits.
            until(lambda: transport.statuses["tasks", "POST", 429])
            assert thread.is_alive()
        finally:
            manager.stop()
            thread.join(10)
    assert not thread.is_alive()
    assert not Worker.objects.exists()
