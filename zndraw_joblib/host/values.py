"""Values of the site's own code, checked as strictly as those of a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest
from pydantic import BaseModel

from zndraw_joblib.access import Caller
from zndraw_joblib.api.parsing import invalid, parse_json
from zndraw_joblib.client.batches import encode
from zndraw_joblib.client.payloads import payload_json, schema_of
from zndraw_joblib.models import MAX_IDENTITY_LENGTH
from zndraw_joblib.services.workers import has_controls
from zndraw_joblib.text import Message


def identity_of(person: Any) -> str:
    """The identity that a text, or a user of the site, stands for; ``""`` for None.

    The hook `identity` gives the identity of a user. It gets a request with the user alone.

    Raises
    ------
    ValidationError
        The text is longer than an identity may be, or has control characters.
    TypeError
        It is neither a text nor a user.
    ValueError
        The user has no primary key.
    """
    if person is None:
        return ""
    if not isinstance(person, str):
        if not hasattr(person, "pk"):
            raise TypeError(
                f"created_by is the text of an identity or a user, and not {type(person).__name__}"
            )
        if person.pk is None:
            raise ValueError("created_by is a user without a primary key")
        request = HttpRequest()
        request.user = person
        return Caller(request).identity
    if len(person) > MAX_IDENTITY_LENGTH or has_controls(person):
        raise invalid(
            Message(
                "An identity has at most {limit} characters and no control characters.",
                limit=MAX_IDENTITY_LENGTH,
            ),
            "/created_by",
        )
    return person


def payload_of(given: Mapping[str, Any] | BaseModel | None) -> Any:
    """A payload as JSON that was parsed again, so that later changes of `given` do not count.

    Raises
    ------
    ValidationError
        The payload has no form in JSON, or is none that a request may have.
    RoundTripError
        An instance would not arrive at its worker as it is.
    """
    if isinstance(given, BaseModel):
        return parse_json(payload_json(given))
    # Within an object, because the limit of the depth is that of a request's body.
    return _parsed("payload", {} if given is None else given)


def schema_from(given: Mapping[str, Any] | type[BaseModel] | Any) -> dict[str, Any]:
    """The JSON Schema that is given, or that of a pydantic class.

    Raises
    ------
    ValidationError
        The schema has no form in JSON.
    TypeError
        The class has no JSON Schema, or its payloads are not JSON objects.
    """
    if isinstance(given, Mapping):
        return _parsed("schema", given)  # type: ignore[no-any-return]
    return schema_of(given)


def _parsed(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        value = dict(value)
    try:
        body = encode({name: value})
    except (TypeError, ValueError, RecursionError) as error:
        detail = Message("{name} has no form in JSON: {error}", name=name, error=str(error))
        raise invalid(detail, f"/{name}") from error
    return parse_json(body)[name]
