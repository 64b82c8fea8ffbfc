"""Plain functions as jobs: a function's parameters become the fields of a pydantic model."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from enum import Enum
from types import SimpleNamespace
from typing import Annotated, Any, get_args, get_type_hints

from pydantic import BaseModel, Field, PydanticUserError, create_model

from zndraw_joblib.client.tasks import ClaimedTask
from zndraw_joblib.names import name_error

logger = logging.getLogger(__name__)

#: Attribute of a function that keeps its class.
_ATTRIBUTE = "__joblib_model__"
#: Name of the parameter that gets the task.
_TASK = "task"


def model_of(
    function: Callable[..., Any], *, category: str | Enum | None = None, name: str | None = None
) -> type[BaseModel]:
    """The class of a function: its parameters are the fields, and `run` calls the function.

    It is made once and kept with the function; a category or a name that differs makes it anew. A
    parameter that is named ``task``, or annotated with `ClaimedTask`, is no field and gets the
    task. The return annotation is that of `run`.

    Parameters
    ----------
    function
        A function or coroutine function.
    category
        Category of the job; None is that of an earlier call, else the default.
    name
        Name of the job; None is that of an earlier call, else the function's.

    Raises
    ------
    TypeError
        It is no function, a generator function, or has parameters that cannot be sent by name; or
        its annotations cannot be read.
    ValueError
        The name is not valid for a job.
    """
    if not inspect.isfunction(function):
        raise TypeError(f"{function!r} is not a function")
    known: type[BaseModel] | None = getattr(function, _ATTRIBUTE, None)
    # A decorator that copies attributes (`functools.wraps`) copies the class of another function.
    if known is not None and vars(known)["function"].__func__ is not function:
        known = None
    if known is not None:
        category = getattr(known, "category", None) if category is None else category
        name = name or known.__name__
        if (category, name) == (getattr(known, "category", None), known.__name__):
            return known
    model = _make_model(function, name or function.__name__)
    if category is not None:
        model.category = category  # type: ignore[attr-defined]
    setattr(function, _ATTRIBUTE, model)
    return model


def _make_model(function: Callable[..., Any], name: str) -> type[BaseModel]:
    label = function.__qualname__
    if refusal := name_error(name):
        raise ValueError(f"the name of the job {name!r} {refusal}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{label} is a generator function; a job must not yield")
    names = _locals_around(function)
    try:
        annotations = dict(function.__annotations__)
        returned = {"return": annotations.pop("return")} if "return" in annotations else {}
        hints = _hints(function, annotations, names)
    except Exception as error:
        raise TypeError(
            f"the annotations of {label} cannot be read: {error}. Their names must be known where "
            "the function is defined."
        ) from error
    fields: dict[str, Any] = {}
    sources: dict[str, str] = {}
    task_parameter: str | None = None
    for parameter in inspect.signature(function).parameters.values():
        hint = hints.get(parameter.name, Any)
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            raise TypeError(
                f"{label} takes {parameter}, but the payload of a job has named values only"
            )
        if parameter.kind == parameter.POSITIONAL_ONLY:
            raise TypeError(
                f"{label} takes {parameter.name} by its position only, but the payload of a job "
                "has named values"
            )
        if parameter.name == _TASK or ClaimedTask in (hint, *get_args(hint)):
            if task_parameter is not None:
                raise TypeError(f"{label} takes the task twice")
            task_parameter = parameter.name
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        if default is None:
            # Also where the annotation does not say so, because the default is sent like a value.
            hint = hint | None if hint is not Any else hint
        field = _field_name(parameter.name)
        if field != parameter.name:
            hint = Annotated[hint, Field(alias=parameter.name)]
        fields[field] = (hint, default)
        sources[parameter.name] = field

    def run(self: BaseModel, task: ClaimedTask) -> Any:
        arguments = {each: getattr(self, field) for each, field in sources.items()}
        if task_parameter is not None:
            arguments[task_parameter] = task
        return function(**arguments)

    run.__annotations__ = {}
    try:
        run.__annotations__ = _hints(function, returned, names)
    except Exception as error:
        # Results are then plain JSON, as those of a method `run` with such an annotation are.
        logger.warning("results of %s stay JSON, because of their type: %r", label, error)
    try:
        model = create_model(
            name, __module__=function.__module__, __doc__=inspect.getdoc(function), **fields
        )
    except (PydanticUserError, TypeError) as error:
        raise TypeError(f"the parameters of {label} have no JSON Schema: {error}") from error
    model.__qualname__ = label
    model.run = run  # type: ignore[attr-defined]
    model.function = staticmethod(function)  # type: ignore[attr-defined]
    return model


def _hints(
    function: Callable[..., Any], annotations: dict[str, Any], names: dict[str, Any]
) -> dict[str, Any]:
    """Annotations of a function, those in the form of text as the values that they name."""
    holder: Any = SimpleNamespace(__annotations__=annotations)
    return get_type_hints(holder, inspect.unwrap(function).__globals__, names, include_extras=True)


def _locals_around(function: Callable[..., Any]) -> dict[str, Any]:
    """The local variables of the running function in which another one was defined.

    Annotations that are kept as text (``from __future__ import annotations``) may name them.
    """
    code = inspect.unwrap(function).__code__
    frame = inspect.currentframe()
    while frame is not None:
        if code in frame.f_code.co_consts:
            return frame.f_locals
        frame = frame.f_back
    return {}


def _field_name(parameter: str) -> str:
    """The name of a parameter's field, which must not hide an attribute of the model."""
    reserved = {"category", "run", "function"}
    is_hidden = parameter.startswith("_") or hasattr(BaseModel, parameter)
    return f"argument_{parameter}" if is_hidden or parameter in reserved else parameter
