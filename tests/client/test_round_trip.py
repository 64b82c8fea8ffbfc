"""A worker gets the instance that was submitted, or the submit is refused."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import BaseModel

from tests.client.instances import REFUSED, SENT, UNSUITABLE
from tests.client.kinds import Aliased, Camel, Loose
from tests.client.stand_in import task
from zndraw_joblib.client import RoundTripError
from zndraw_joblib.client.differences import difference
from zndraw_joblib.schemas.acceptance import schema_errors
from zndraw_joblib.schemas.payloads import PayloadChecker


def kind(value):
    return type(value).__name__ if isinstance(value, BaseModel) else None


@pytest.mark.parametrize("instance", SENT, ids=kind)
def test_a_worker_gets_the_instance_that_was_submitted(server, manager, instance):
    manager.register(type(instance))
    schema = server.sent("PUT")[0][2]["schema"]
    assert schema_errors(schema, max_bytes=65_536, max_depth=32) == []
    manager.submit(instance, room="r")
    payload = server.sent("POST", "/rooms")[0][2]["payload"]
    assert PayloadChecker(schema).errors(payload) == []
    (name,) = manager
    server.queue += [task(task_id, job_name=name, payload=payload) for task_id in "ab"]
    claimed = manager.claim()
    arrived = [manager.instance(claimed)]
    manager.complete(claimed)

    def execute(claimed, instance):
        arrived.append(instance)
        manager.stop()

    manager.serve(execute)
    assert len(arrived) == 2
    for one in arrived:
        assert type(one) is type(instance)
        assert difference(instance, one) is None


def test_the_schema_and_the_payload_have_the_names_that_validation_accepts(server, manager):
    manager.register(Aliased)
    manager.submit(Aliased(nSteps=5000), room="r")
    assert list(server.sent("PUT")[0][2]["schema"]["properties"]) == ["nSteps"]
    assert server.sent("POST", "/rooms")[0][2] == {"payload": {"nSteps": 5000}}


@pytest.mark.parametrize(("instance", "text"), REFUSED, ids=kind)
def test_an_instance_that_would_not_arrive_is_refused(server, manager, instance, text):
    manager.register(type(instance))
    with pytest.raises(RoundTripError, match=text):
        manager.submit(instance, room="r")
    with pytest.raises(RoundTripError, match=f"^{type(instance).__name__} cannot be submitted"):
        manager.submit_many([type(instance).model_construct(**vars(instance))], room="r")
    assert not server.sent("POST", "/rooms")


@pytest.mark.parametrize(("cls", "text"), UNSUITABLE, ids=kind)
def test_a_class_whose_instances_cannot_be_payloads_is_not_registered(server, manager, cls, text):
    with pytest.raises(TypeError, match=text):
        manager.register(cls)
    assert not server.calls
    assert not manager


class Same(BaseModel):
    number: int

    def __eq__(self, other):
        return True


@pytest.mark.parametrize(
    ("sent", "arrived", "expected"),
    [
        (np.array([1, 2]), np.array([1, 2]), None),
        (np.array([1, 2]), np.array([1, 3]), "the value would change"),
        (np.array([1, 2]), np.array([1, 2, 3]), "the value would change"),
        (float("nan"), float("nan"), None),
        ([float("nan")], [float("nan")], None),
        ([1, [2]], [1, [3]], "[1][0] would change"),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, "a.b would change"),
        ({"a": 1}, {}, "the value would change"),
        (Same(number=1), Same(number=2), "number would change"),
        (Camel(), Camel.model_construct(), None),
        (Camel(), Camel.model_construct(n_steps=6), "n_steps would change"),
        (Loose(value=1), Loose(value=2), "value would change"),
        (1, 1.0, None),
        (1, "1", "the value would change"),
    ],
)
def test_differences_are_found_in_parts_and_named(sent, arrived, expected):
    found = difference(sent, arrived)
    assert found is None if expected is None else found.startswith(expected)
