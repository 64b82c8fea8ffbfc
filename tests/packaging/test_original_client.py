"""Runs the released client of the FastAPI original against this server."""

from __future__ import annotations

import subprocess

import pytest

from tests.servers import server
from zndraw_joblib.models import Task, Worker

CODE = """
import sys, threading
from enum import Enum
from typing import ClassVar
import httpx
from zndraw_joblib.client import JobManager, Extension, Category

class Api:
    def __init__(self, url, token):
        self.base_url, self.token, self.http = url, token, httpx.Client()
    def get_headers(self):
        return {"Authorization": f"Token {self.token}"}
    def raise_for_status(self, response):
        response.raise_for_status()

class Rotate(Extension):
    category: ClassVar[Category] = Category.MODIFIER
    angle: float = 0.0
    def run(self, *args, **kwargs):
        pass

manager = JobManager(Api(*sys.argv[1:]))
created = manager.create_worker()
manager.register(Rotate, room="open")
assert manager.worker_id == created
ids = [manager.submit(Rotate(angle=a), "open", job_room="open") for a in (1, 2)]
stop = threading.Event()
claimed = []
for task in manager.listen(polling_interval=0.1, stop_event=stop):
    claimed.append(task.task_id)
    manager.start(task)
    manager.heartbeat()
    if len(claimed) == 1:
        manager.complete(task)
    else:
        manager.fail(task, "on purpose")
        stop.set()
        break
assert claimed == [str(i) for i in ids], (claimed, ids)
manager.disconnect()
"""


@pytest.mark.network
@pytest.mark.django_db(transaction=True)
def test_the_released_client_of_the_original_works_with_this_server(
    bob, tmp_path, python_of_the_original
):
    command = [python_of_the_original, "-c", CODE]
    with server() as url:
        subprocess.run([*command, url, bob.token], cwd=tmp_path, check=True, env={}, timeout=60)
    assert [task.status for task in Task.objects.order_by("created_at")] == ["completed", "failed"]
    assert Task.objects.get(status="failed").error == "on purpose"
    assert not Worker.objects.exists()
