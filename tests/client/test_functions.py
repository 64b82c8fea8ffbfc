"""Plain functions as jobs, and what a registration asks for besides the schema."""

from __future__ import annotations

import asyncio
import enum
import functools
import multiprocessing
import threading
from collections.abc import Callable
from datetime import date
from typing import Annotated, Any, get_type_hints

import httpx
import pytest
from pydantic import BaseModel, Field

from tests.client.kinds import Camel
from tests.client.stand_in import Rotate, bodies, refusal, serve, task
from zndraw_joblib.client import Api, ClaimedTask, InvalidCategoryError, JobManager
from zndraw_joblib.client.functions import model_of
from zndraw_joblib.client.payloads import payload_json
from zndraw_joblib.lifecycle import RetryPolicy


class Category(enum.Enum):
    ANALYSIS = "analysis"


def rotate(angle: float = 90.0) -> float:
    """Turn the atoms."""
    return angle % 360


def registered(server):
    """The bodies of the registrations."""
    return [call[2] for call in server.sent("PUT", "/rooms")]


def test_a_function_is_registered_and_stays_as_it_is(server, manager):
    def turn(angle: float = 90.0) -> float:
        """Turn the atoms."""
        return angle % 360

    decorated = manager.job(room="r", category="analysis", retry=2, durable=True)(turn)
    assert decorated is turn
    assert turn(400) == 40
    assert registered(server) == [
        {
            "category": "analysis",
            "name": "turn",
            "worker_id": "w1",
            "retry": {"max_retries": 2},
            "durable": True,
            "schema": {
                "title": "turn",
                "description": "Turn the atoms.",
                "type": "object",
                "properties": {"angle": {"default": 90.0, "title": "Angle", "type": "number"}},
            },
        }
    ]
    assert manager["r:analysis:turn"] is model_of(turn)


def test_job_is_a_decorator_without_arguments_too(server, manager):
    @manager.job
    def plain() -> None:
        pass

    assert list(manager) == ["@global:modifiers:plain"]
    manager.unregister(plain)
    assert list(manager) == []


async def later(number: int, task) -> int:
    await asyncio.sleep(0)
    task.log("working")
    return number + 1


def annotated(*, number: int, the_task: ClaimedTask) -> int:
    the_task.log("working")
    return number + 1


def optional(number: int, the_task: ClaimedTask | None = None) -> int:
    assert the_task is not None
    the_task.log("working")
    return number + 1


def wrapped(function):
    @functools.wraps(function)
    def wrapper(*arguments, **options):
        return function(*arguments, **options)

    return wrapper


@pytest.mark.parametrize("function", [later, annotated, optional, wrapped(later)])
@pytest.mark.parametrize("prefetch", [0, 2])
def test_the_value_of_a_function_is_the_result_and_the_task_is_no_parameter(
    server, manager, function, prefetch
):
    server.queue.append(
        task("a", job_name=f"@global:modifiers:{function.__name__}", payload={"number": 1})
    )
    serve_function(server, manager, function, prefetch=prefetch)
    assert server.tasks == {"a": "completed"}, bodies(server, "a")
    assert bodies(server, "a")[-1]["result"] == 2
    assert server.logs == {"a": "working\n"}
    assert list(registered(server)[0]["schema"]["properties"]) == ["number"]


def serve_function(server, manager, function, **options):
    manager.job(function)
    serve(server, manager, 1, cls=Rotate, **options)


CAMEL = Camel(nSteps=1)


def everything(
    plain,
    untyped=3,
    model: Camel = CAMEL,
    when: date | None = None,
    sloppy: int = None,  # noqa: RUF013
    bound: Annotated[float, Field(ge=0, description="a bound")] = 1.0,
    tags: list[str] = [],  # noqa: B006
    copy: bool = False,
    json: str = "",
    schema: int = 0,
    category: str = "c",
    run: int = 1,
    function: int = 2,
    model_config: int = 3,
    model_name: str = "m",
    _private: int = 4,
    self: int = 5,
    cls: int = 6,
) -> dict[str, Any]:
    return dict(locals())


def test_a_parameter_may_have_any_name_and_type(server, manager):
    manager.job(everything, category=Category.ANALYSIS)
    cls = model_of(everything)
    values = {
        **{"plain": [1], "model": {"nSteps": 5}, "when": "2026-01-02", "copy": True, "json": "j"},
        **{"category": "k", "run": 11, "model_config": 13, "_private": 14, "self": 15, "cls": 16},
    }
    assert set(registered(server)[0]["schema"]["properties"]) == (
        set(get_type_hints(everything)) | {"plain", "untyped"}
    ) - {"return"}
    assert registered(server)[0]["category"] == "analysis"
    instance = cls.model_validate(values)
    again = cls.model_validate_json(payload_json(instance))
    assert again == instance
    result = again.run(None)  # type: ignore[attr-defined]
    expected = {
        **{"untyped": 3, "sloppy": None, "bound": 1.0, "tags": [], "schema": 0, "function": 2},
        **{"model_name": "m"},
        **values,
        "model": Camel(nSteps=5),
        "when": date(2026, 1, 2),
    }
    assert result == expected


def test_the_class_of_a_function_has_its_return_annotation():
    cls = model_of(rotate)
    assert get_type_hints(cls.run)["return"] is float  # type: ignore[attr-defined]
    assert model_of(rotate) is cls
    assert (cls.__module__, cls.__qualname__) == (__name__, "rotate")
    assert get_type_hints(model_of(lambda: None).run) == {}  # type: ignore[attr-defined]


def test_an_annotation_may_name_a_local_class(server, manager):
    class Point(BaseModel):
        x: int

    @manager.job
    def move(point: Point, by: int = 1) -> Point:
        return Point(x=point.x + by)

    server.queue.append(task("a", job_name="@global:modifiers:move", payload={"point": {"x": 2}}))
    serve(server, manager, 1)
    assert bodies(server, "a")[-1]["result"] == {"x": 3}


def test_a_wrapper_does_not_have_the_class_of_the_wrapped_function():
    cls = model_of(rotate)
    assert model_of(wrapped(rotate)) is not cls


def test_a_name_and_a_category_stay_until_others_are_given():
    def work() -> None:
        pass

    cls = model_of(work, category="analysis", name="Other")
    assert (cls.__name__, cls.category) == ("Other", "analysis")  # type: ignore[attr-defined]
    assert model_of(work) is cls
    again = model_of(work, name="Third")
    assert (again.__name__, again.category) == ("Third", "analysis")  # type: ignore[attr-defined]


def positional(angle, /):
    pass


def generates(angle: float):
    yield angle


async def generates_later(angle: float):
    yield angle


def unknown(angle: Unknown):  # type: ignore[name-defined]  # noqa: F821
    pass


def twice(task: ClaimedTask, other: ClaimedTask):
    pass


def without_schema(thread: threading.Thread):
    pass


def not_json(call: Callable[[], None]):
    pass


UNSUITABLE = [
    (lambda *angles: None, r"takes \*angles"),
    (lambda **angles: None, r"takes \*\*angles"),
    (positional, "takes angle by its position only"),
    (generates, "is a generator function"),
    (generates_later, "is a generator function"),
    (unknown, "annotations of unknown cannot be read: name 'Unknown' is not defined"),
    (twice, "takes the task twice"),
    (without_schema, "the parameters of without_schema have no JSON Schema: .*Thread"),
    (not_json, "not_json has no JSON Schema"),
    (functools.partial(rotate), "is not a function"),
    (Rotate, "is not a function"),
    (print, "is not a function"),
]


@pytest.mark.parametrize(("function", "text"), UNSUITABLE)
def test_a_function_that_cannot_be_a_job_is_refused(server, manager, function, text):
    with pytest.raises(TypeError, match=text):
        manager.job(function)
    assert not registered(server)


def test_a_name_that_no_job_may_have_is_refused(server, manager):
    with pytest.raises(ValueError, match="'a:b' must not contain ':'"):
        manager.job(rotate, name="a:b")
    assert not registered(server)


def test_a_function_that_was_defined_again_takes_the_place_of_its_earlier_version(server, manager):
    def define(step):
        @manager.job
        def edited(number: int) -> int:
            return number + step

    define(1)
    define(2)
    server.queue.append(task("a", job_name="@global:modifiers:edited", payload={"number": 1}))
    serve(server, manager, 1)
    assert bodies(server, "a")[-1]["result"] == 3


POLICY = RetryPolicy(max_retries=3, backoff_seconds=1, backoff_factor=3, max_backoff_seconds=9)
FIELDS = {
    **{"max_retries": 3, "backoff_seconds": 1, "backoff_factor": 3},
    "max_backoff_seconds": 9,
}


@pytest.mark.parametrize(
    ("retry", "sent"), [(POLICY, FIELDS), (dict(FIELDS), FIELDS), (0, {"max_retries": 0})]
)
def test_a_class_is_registered_with_its_retries(server, manager, retry, sent):
    manager.register(Rotate, room="r", retry=retry, durable=False)
    assert registered(server)[0]["retry"] == sent
    assert registered(server)[0]["durable"] is False


@pytest.mark.parametrize("retry", [True, "3", 1.5, [3]])
def test_retry_of_another_type_is_refused(server, manager, retry):
    with pytest.raises(TypeError, match="retry must be a number of retries"):
        manager.register(Rotate, retry=retry)
    assert not server.calls


def test_a_registration_without_options_sends_none(server, manager):
    manager.register(Rotate)
    assert set(registered(server)[0]) == {"category", "name", "schema", "worker_id"}


def test_a_worker_that_is_made_again_registers_with_the_same_options(server, manager):
    """Control: the options are missing when `Registration` does not keep them."""
    manager.register(room="r", retry=2, durable=True)(Rotate)
    manager.register(Rotate, room="r", retry=3)
    server.fail["PATCH /workers/w1"] = [refusal("worker-not-found", 404)]
    manager.heartbeat()
    assert [(b["worker_id"], b["retry"], b["durable"]) for b in registered(server)] == [
        ("w1", {"max_retries": 2}, True),
        ("w1", {"max_retries": 3}, True),
        ("w2", {"max_retries": 3}, True),
    ]


def test_a_refused_registration_does_not_change_the_options(server, manager):
    manager.register(Rotate, room="r", retry=2)
    server.fail["PUT /rooms/r/jobs"] = [refusal("invalid-category", 400)]
    with pytest.raises(InvalidCategoryError):
        manager.register(Rotate, room="r", retry=5)
    manager.register(Rotate, room="r")
    assert registered(server)[-1]["retry"] == {"max_retries": 2}


def test_a_forked_process_registers_with_the_same_options(server):
    manager = JobManager(Api("http://x/", transport=httpx.MockTransport(server)))
    manager.register(Rotate, retry=2)

    def in_child():
        manager.claim()
        assert registered(server)[-1]["retry"] == {"max_retries": 2}
        assert len(registered(server)) == 2

    child = multiprocessing.get_context("fork").Process(target=in_child)
    child.start()
    child.join(20)
    assert child.exitcode == 0


def test_a_model_with_a_field_of_each_name_is_no_function(manager):
    class Other(BaseModel):
        function: int = 1

    manager.register(Other)
    assert manager["@global:modifiers:Other"] is Other


def returns_unknown(angle: float) -> Unknown:  # type: ignore[name-defined]  # noqa: F821
    return [angle]


def test_a_function_whose_return_annotation_cannot_be_read_gives_plain_json(manager):
    # Like a method `run`, for instance with a name that only a type checker imports.
    manager.job(returns_unknown, room="r")
    model = model_of(returns_unknown)
    assert list(model.model_fields) == ["angle"]
    assert get_type_hints(model.run) == {}  # type: ignore[attr-defined]
