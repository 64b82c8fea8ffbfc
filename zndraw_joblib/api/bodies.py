"""The base of all bodies of requests: pydantic models that validate a request and describe it.

`job_bodies.py` and `task_bodies.py` have the bodies.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Self, get_args
from uuid import UUID

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from zndraw_joblib.api.parsing import invalid_fields
from zndraw_joblib.exceptions import FieldError, json_pointer
from zndraw_joblib.models import MAX_IDENTITY_LENGTH
from zndraw_joblib.text import Message
from zndraw_joblib.translation import library_message

#: Largest value of the database's column.
MAX_ATTEMPT = 2**31 - 1
#: Messages in the words of JSON, because pydantic's own name Python's types.
_MESSAGES = {
    "dict_type": "Must be a JSON object.",
    "model_type": "Must be a JSON object.",
    "list_type": "Must be a JSON array.",
}


class Body(BaseModel):
    """A JSON object with strict types, in which unknown fields are errors."""

    model_config = ConfigDict(strict=True, extra="forbid")

    #: Names of the fields whose text may have any character, because it is not the client's own.
    free_text: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def read(cls, value: Any, *path: int) -> Self:
        """Validate parsed JSON, which is at `path` in the request's body.

        Raises
        ------
        zndraw_joblib.exceptions.ValidationError
            The value is not valid; `errors` has a pointer to each invalid field.
        """
        try:
            return cls.model_validate(value)
        except pydantic.ValidationError as error:
            raise invalid_fields(cls._field_errors(error, path)) from error

    @classmethod
    def _field_errors(
        cls, error: pydantic.ValidationError, path: tuple[int, ...]
    ) -> Iterator[FieldError]:
        for each in error.errors(include_url=False, include_context=False, include_input=False):
            location = each["loc"]
            if each["type"] == "extra_forbidden":
                message = Message(
                    "Unknown field; known are {names}.",
                    names=", ".join(cls._fields_at(location)),
                )
            else:
                message = library_message(_MESSAGES.get(each["type"], each["msg"]))
            yield FieldError(message, json_pointer((*path, *location)))

    @classmethod
    def _fields_at(cls, location: tuple[str | int, ...]) -> list[str]:
        """The names that a request may use in the object around `location`."""
        model: type[BaseModel] = cls
        for name in location[:-1]:
            if isinstance(name, str):
                model = next(_models(model.model_fields[name].annotation))
        return [field.alias or name for name, field in model.model_fields.items()]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in an annotation such as ``list[Grant] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


#: Not strict, because strict pydantic accepts instances of UUID only, which JSON does not have.
TaskId = Annotated[UUID, Field(strict=False, description="Id of the task.")]
Attempt = Annotated[int, Field(ge=0, le=MAX_ATTEMPT)]
WorkerId = Annotated[
    Annotated[str, Field(min_length=1, max_length=MAX_IDENTITY_LENGTH)] | None,
    Field(description="One of your workers; left out or null, your default worker."),
]
#: Most seconds of a delay or a timeout: a year.
MAX_SECONDS = 31_536_000


class EmptyBody(Body):
    """A body without fields."""
