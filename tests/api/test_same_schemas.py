"""Registrations of schemas that are written otherwise, or mean something else."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from tests.factories import SCHEMA, problem
from zndraw_joblib.models import Job, Worker, WorkerJobLink
from zndraw_joblib.settings import get_settings

REWRITTEN = {
    "additionalProperties": False,
    "title": "Rotate",
    "properties": {"angle": {"title": "Angle", "type": ["number"], "examples": [1]}},
    "type": "object",
}
OTHER = {"type": "object"}
JOB = "/rooms/open/jobs/open:modifiers:Rotate"


def test_a_schema_that_is_written_otherwise_is_the_same(bob, carol):
    bob.register()
    answer = carol.register(schema=REWRITTEN)
    assert answer.status_code == 200
    # The stored one is shown while any live worker offers the job.
    assert answer.json()["schema"] == SCHEMA
    assert answer.json()["worker_count"] == 2
    assert Job.objects.get().revision == 0
    problem(carol.submit(angle="x"), "invalid-payload", 422)
    assert carol.submit(angle=1).status_code == 202


def test_a_schema_that_is_written_otherwise_is_shown_when_no_live_worker_is_left(bob, carol):
    bob.register()
    Worker.objects.update(last_heartbeat="2020-01-01T00:00:00Z")
    answer = carol.register(schema=REWRITTEN)
    assert answer.status_code == 200
    assert answer.json()["schema"] == REWRITTEN
    assert answer.json()["worker_count"] == 2
    assert Job.objects.get().revision == 0


def test_a_conflict_names_the_worker_that_was_seen_last(bob, carol):
    first, second = bob.worker(), bob.worker()
    for worker in (first, second):
        bob.register(worker_id=worker)
    seen = timezone.now() - timedelta(seconds=5)
    Worker.objects.filter(pk=first).update(last_heartbeat=seen)
    Worker.objects.filter(pk=second).update(last_heartbeat=seen - timedelta(seconds=5))
    detail = problem(carol.register(schema=OTHER), "schema-conflict", 409)["detail"]
    assert f"worker {first}," in detail
    assert "and by 1 more" in detail
    time = next(word for word in detail.replace(",", " ").split() if word.endswith("Z"))
    assert abs(datetime.fromisoformat(time) - seen) <= timedelta(seconds=1)
    # Only live workers count.
    lease = timedelta(seconds=get_settings().worker_timeout_seconds)
    Worker.objects.filter(pk=first).update(last_heartbeat=seen - lease)
    detail = problem(carol.register(schema=OTHER), "schema-conflict", 409)["detail"]
    assert f"worker {second}," in detail
    assert "more" not in detail
    assert first not in detail


#: A module whose classes depend on the order of sets; prints the schemas of its jobs.
SOURCE = """
import json
from enum import Enum
from typing import Literal, Optional, Union
from pydantic import BaseModel, Field

NAMES = {"alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"}

class Part(BaseModel):
    tags: set[str] = NAMES

class Choice(BaseModel):
    name: Literal[tuple(NAMES)]
    size: Literal[tuple(NAMES)] = Field("beta", examples=list(NAMES), description=str(NAMES))

class Colour(BaseModel):
    colour: Enum("Name", {name.upper(): name for name in NAMES})

class Sets(BaseModel):
    plain: set[str] = NAMES
    frozen: Optional[frozenset[str]] = frozenset(NAMES)
    nested: dict[str, set[str]] = {name: NAMES for name in NAMES}
    part: Part = Part()
    parts: list[Part] = [Part(), Part(tags={"one", "two", "three"})]
    made: set[str] = Field(default_factory=lambda: NAMES)

class Unions(BaseModel):
    value: Union[tuple({int, str, float, bool, None, bytes, Part})] = None

print(json.dumps({cls.__name__: cls.model_json_schema() for cls in (Choice, Colour, Sets, Unions)}))
"""


@pytest.fixture(scope="module")
def by_hash_seed():
    """The schemas of `SOURCE` from two processes, whose sets have different orders."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SOURCE],
            env={"PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    return [json.loads(process.communicate(timeout=60)[0]) for process in processes]


@pytest.mark.parametrize("name", ["Choice", "Colour", "Sets", "Unions"])
def test_the_same_source_registers_from_processes_with_other_orders_of_sets(
    bob, carol, by_hash_seed, name
):
    """Control: each is `schema-conflict` where arrays are compared in their order."""
    first, second = (schemas[name] for schemas in by_hash_seed)
    if name != "Unions":  # The order of types comes from their addresses.
        assert first != second
    assert bob.register(name=name, schema=first).status_code == 201
    assert carol.register(name=name, schema=second).status_code == 200
    assert WorkerJobLink.objects.count() == 2
