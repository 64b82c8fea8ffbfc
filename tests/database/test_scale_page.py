"""The statements of `docs/how-to/scale.md` that divide the table of tasks, in a transaction."""

from __future__ import annotations

import re

import pytest
from django.db import connection

from tests.servers import ROOT
from zndraw_joblib.models import FileToDelete, Task, TaskAttempt, TaskFile, TaskLogChunk

pytestmark = pytest.mark.django_db

PAGE = (ROOT / "docs/how-to/scale.md").read_text()
SECTION = PAGE.partition("## Divide the table of tasks by time")[2].partition("\n## ")[0]


def statements():
    """The blocks of SQL of the section, without those that a transaction cannot contain."""
    blocks = re.findall(r"```sql\n(.*?)```", SECTION, re.DOTALL)
    return [
        re.sub(r"^(BEGIN|COMMIT);$| CONCURRENTLY", "", block, flags=re.MULTILINE)
        for block in blocks
    ]


def run(*blocks):
    with connection.cursor() as cursor:
        # Checked now, because no table can be changed while checks are due at the commit.
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for block in blocks:
            cursor.execute(block)
        return cursor.fetchone() if cursor.description else None


def life_of_a_task(alice, bob, worker):
    """The id of a task that failed twice, with a log and a file."""
    task_id = alice.submit().json()["id"]
    for attempt in (1, 2):
        assert bob.claim(worker)["id"] == task_id
        bob.report(task_id, "running", attempt=attempt)
        log = {"attempt": attempt, "text": "text"}
        assert bob.send("post", f"/tasks/{task_id}/log", log).status_code == 204
        TaskFile.objects.create(
            task_id=task_id, attempt=attempt, name="a", size=1, path=f"{task_id}{attempt}"
        )
        answer = bob.report(task_id, "failed", attempt=attempt, error="no", retry_after=0)
        assert answer.status_code == 200
    return task_id


@pytest.mark.skipif("connection.vendor != 'postgresql'")
def test_the_table_of_tasks_is_divided_and_an_old_part_is_dropped(alice, bob):
    worker = bob.worker()
    bob.register(worker_id=worker, retry={"max_retries": 1})
    old = life_of_a_task(alice, bob, worker)
    again = alice.send("post", f"/tasks/{old}/retry").json()["id"]
    *divide, count, clear, drop = statements()
    run(*divide)

    # The present tasks are in the first partition, and everything works as before.
    assert alice.get(f"/tasks/{old}").json()["status"] == "failed"
    assert [task["attempt"] for task in alice.get(f"/tasks/{old}/attempts").json()] == [
        1,
        2,
    ]
    assert bob.claim(worker)["id"] == again
    bob.report(again, "running", attempt=1)
    assert bob.report(again, "completed", attempt=1, result=1).status_code == 200
    new = life_of_a_task(alice, bob, worker)
    assert run("SELECT relkind FROM pg_class WHERE relname = 'zndraw_joblib_task'") == ("p",)
    assert Task.objects.get(pk=new).due_at is not None

    assert run(count)[0] == 0
    run(clear, drop)
    assert not Task.objects.exists()
    assert not TaskAttempt.objects.exists()
    assert not TaskLogChunk.objects.exists()
    assert not TaskFile.objects.exists()
    assert FileToDelete.objects.count() == 4
