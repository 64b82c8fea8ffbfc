"""Queries of the ORM that need a partial index use it with their values as they are sent.

A captured query has its values as literals, with which SQLite finds an index that the query itself
misses. So each query is explained with its parameters while it runs.
"""

from __future__ import annotations

import re

import pytest
from django.contrib.admin import site
from django.db import connection
from django.test import RequestFactory

from tests.histories import make_job, make_task
from zndraw_joblib.admin import TaskAdmin
from zndraw_joblib.admin.filters import WorkerFilter
from zndraw_joblib.events.states import _states
from zndraw_joblib.models import Task, Worker
from zndraw_joblib.services.held import held_tasks

pytestmark = pytest.mark.django_db


def held_by(worker):
    params = {"held_by": [worker.pk]}
    chosen = WorkerFilter(RequestFactory().get("/"), params, Task, TaskAdmin(Task, site))
    return list(chosen.queryset(RequestFactory().get("/"), Task.objects.order_by()))


QUERIES = {
    "tasks of workers": lambda worker: held_tasks([worker]),
    "filter by worker": held_by,
    "states of workers": lambda worker: _states("default", [worker.pk]),
}


@pytest.mark.parametrize("read", QUERIES.values(), ids=QUERIES)
def test_leased_tasks_are_found_by_an_index_of_leased_tasks(read):
    """With `status__in` SQLite scanned all tasks."""
    worker = Worker.objects.create(id="w", identity="bob")
    make_task(make_job(), "running", worker=worker)
    plans = []

    def explain(execute, sql, params, many, context):
        if "zndraw_joblib_task" in sql and not plans:
            kind = "EXPLAIN " if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN "
            execute(kind + sql, params, many, context)
            plans.append(str(context["cursor"].fetchall()))
        return execute(sql, params, many, context)

    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")
    with connection.execute_wrapper(explain):
        read(worker)
    assert re.search("joblib_task_(worker|lease)", plans[0]), plans
    assert not re.search(r"SCAN (zndraw_joblib_task|U0)\b(?! USING)", plans[0])
