"""The classes of a manager, by the full names of their jobs."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from tests.client.stand_in import serve, task


def relax(module, ran=None):
    """A class `Relax` of a module."""

    def run(self):
        ran.append(module)

    return type("Relax", (BaseModel,), {"__module__": module, "__annotations__": {}, "run": run})


def test_a_second_class_of_one_name_is_not_registered(server, manager):
    first, second = relax("lab.vasp"), relax("lab.quantum_espresso")
    manager.register(first)
    with pytest.raises(ValueError, match=r"job of lab\.vasp\.Relax already.*quantum_espresso"):
        manager.register(second)
    assert len(server.sent("PUT")) == 1
    assert manager["@global:modifiers:Relax"] is first
    manager.register(room="r")(second)
    assert manager["r:modifiers:Relax"] is second


def test_classes_of_one_name_in_one_module_are_told_apart_by_their_qualified_names(server, manager):
    class Vasp:
        class Relax(BaseModel):
            pass

    class Espresso:
        class Relax(BaseModel):
            pass

    manager.register(Vasp.Relax)
    with pytest.raises(ValueError, match=r"rename .*Espresso\.Relax"):
        manager.register(Espresso.Relax)


def test_the_same_class_again_runs_the_tasks(server, manager):
    """As when a notebook's cell is run twice."""
    ran = []
    manager.register(relax("__main__"))
    again = relax("__main__", ran)
    server.queue.append(task("a", job_name="@global:modifiers:Relax", payload={}))
    serve(server, manager, 1, cls=again)
    assert server.tasks == {"a": "completed"}
    assert ran == ["__main__"]


def test_an_instance_of_the_earlier_class_is_submitted_to_the_same_job(server, manager):
    earlier = relax("__main__")
    manager.register(room="r")(earlier)
    manager.register(room="r")(relax("__main__"))
    manager.submit(earlier(), room="r")
    manager.submit(relax("other")(), room="r")
    assert [c[1] for c in server.sent("POST", "/rooms")] == [
        "/rooms/r/tasks/r:modifiers:Relax",
        "/rooms/r/tasks/@global:modifiers:Relax",
    ]
