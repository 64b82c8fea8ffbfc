"""Generates OpenAPI operations for drf-spectacular from Python types.

Types become JSON Schemas by pydantic when the document is generated, with the settings in force.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

import pydantic
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ComponentRegistry, ResolvedComponent, is_jsonschema_compliant
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from zndraw_joblib import exceptions as problems
from zndraw_joblib.api.answers import ProblemDocument
from zndraw_joblib.api.limits import with_settings
from zndraw_joblib.api.problems import MEDIA_TYPE
from zndraw_joblib.exceptions import ProblemException

Problem = type[ProblemException]
Handler = TypeVar("Handler")

#: Problems of every endpoint.
GENERAL_PROBLEMS: tuple[Problem, ...] = (
    problems.NotAuthenticated,
    problems.NotFound,
    problems.MethodNotAllowed,
    problems.ValidationError,
    problems.Throttled,
    problems.ServerError,
    problems.ServiceUnavailable,
    problems.DatabaseNotMigrated,
)
#: Problems of every endpoint with a body.
BODY_PROBLEMS: tuple[Problem, ...] = (
    problems.ContentTooLarge,
    problems.LengthRequired,
    problems.UnsupportedMediaType,
)


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter of a request. Its description may name settings in braces."""

    name: str
    location: Literal["path", "query", "header"]
    description: str
    type: Any = str
    is_required: bool = False
    #: Whether a query may have it several times; `type` is then that of a list.
    is_repeatable: bool = False


@dataclass(frozen=True, kw_only=True)
class Header:
    """A header of the answers with one of these status codes."""

    name: str
    description: str
    codes: Sequence[int]
    type: Any = str


#: Headers of the errors of every endpoint.
_GENERAL_HEADERS = (
    Header(name="WWW-Authenticate", description="How to authenticate.", codes=[401]),
    Header(name="Allow", description="The methods that the address supports.", codes=[405]),
    Header(
        name="Retry-After",
        description="Seconds to wait before trying again.",
        codes=[429, 503],
        type=int,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """The description of an endpoint; as a decorator it attaches itself to the view's method.

    `answers` has the type of the body by the status code of each success, None for no body. A
    mapping instead of a type has a type for each media type. `takes_file` is true of an endpoint
    whose body is a file.
    """

    id: str
    answers: Mapping[int, Any]
    problems: Sequence[Problem] = ()
    parameters: Sequence[Parameter] = ()
    headers: Sequence[Header] = ()
    body: Any = None
    takes_file: bool = False

    def __call__(self, handler: Handler) -> Handler:
        """Attach the operation to the method, where `JobLibSchema` finds it."""
        handler.operation = self  # type: ignore[attr-defined]
        return handler

    @cached_property
    def query_names(self) -> tuple[str, ...]:
        """The query parameters that the endpoint knows."""
        return tuple(each.name for each in self.parameters if each.location == "query")

    @cached_property
    def repeatable_names(self) -> tuple[str, ...]:
        """The query parameters that may be given several times."""
        return tuple(each.name for each in self.parameters if each.is_repeatable)

    def describe(self, registry: ComponentRegistry) -> dict[str, Any]:
        """Parameters, request body and responses in the terms of OpenAPI."""
        document: dict[str, Any] = {}
        if self.parameters:
            document["parameters"] = [
                {
                    "in": parameter.location,
                    "name": parameter.name,
                    "required": parameter.is_required or parameter.location == "path",
                    "description": with_settings(parameter.description),
                    "schema": _schema(parameter.type, "validation", registry),
                }
                for parameter in self.parameters
            ]
        if self.body is not None:
            schema = _schema(self.body, "validation", registry)
            document["requestBody"] = {
                "content": {"application/json": {"schema": schema}},
                "description": with_settings(
                    "At most {max_body_bytes} bytes, nested at most {max_json_depth} deep."
                ),
                # The server reads an empty body as `{}`.
                "required": not _is_valid(self.body, {}),
            }
        if self.takes_file:
            schema = _schema(bytes, "validation", registry)
            document["requestBody"] = {
                "content": {"*/*": {"schema": schema}},
                "description": with_settings("At most {max_file_bytes} bytes of any type."),
            }
        return {**document, "responses": self._responses(registry)}

    def _responses(self, registry: ComponentRegistry) -> dict[str, Any]:
        headers = [
            *self.headers,
            *_GENERAL_HEADERS,
            Header(
                name="Vary",
                description="Request headers that the answer depends on.",
                codes=list(self.answers),
            ),
        ]
        responses: dict[str, Any] = {}
        for code, answer in self.answers.items():
            types = answer if isinstance(answer, Mapping) else {"application/json": answer}
            responses[str(code)] = {"description": ""}
            if answer is not None:
                responses[str(code)]["content"] = {
                    media_type: {"schema": _schema(type_, "serialization", registry)}
                    for media_type, type_ in types.items()
                }
        problem_schema = _schema(ProblemDocument, "serialization", registry)
        for code, possible in _by_status(self._possible_problems()).items():
            responses[str(code)] = {
                "description": "\n".join(
                    f"- `{problem.slug()}`: {problem.description()}" for problem in possible
                ),
                "content": {MEDIA_TYPE: {"schema": problem_schema}},
            }
        for header in headers:
            for code in header.codes:
                responses[str(code)].setdefault("headers", {})[header.name] = {
                    "description": header.description,
                    "schema": _schema(header.type, "serialization", registry),
                }
        return responses

    def _possible_problems(self) -> list[Problem]:
        possible = [*self.problems, *GENERAL_PROBLEMS]
        if self.body is not None:
            possible += BODY_PROBLEMS
        return possible


def _by_status(types: Sequence[Problem]) -> dict[int, list[Problem]]:
    grouped: dict[int, list[Problem]] = {}
    for problem in types:
        grouped.setdefault(problem.status, []).append(problem)
    return dict(sorted(grouped.items()))


def _is_valid(type_: Any, value: Any) -> bool:
    try:
        TypeAdapter(type_).validate_python(value)
    except pydantic.ValidationError:
        return False
    return True


class _JsonSchema(GenerateJsonSchema):
    """JSON Schema in the dialect of the OpenAPI version that the host chose."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Leaves out titles, because they repeat the names."""
        return False

    def nullable_schema(self, schema: Any) -> Any:
        """Uses `nullable` for OpenAPI 3.0, which has no type `null`."""
        if is_jsonschema_compliant():  # type: ignore[no-untyped-call]
            return super().nullable_schema(schema)
        inner = self.generate_inner(schema["schema"])
        # Within `allOf`, because 3.0 ignores everything beside a `$ref`.
        return ({"allOf": [inner]} if "$ref" in inner else inner) | {"nullable": True}


def _schema(type_: Any, mode: JsonSchemaMode, registry: ComponentRegistry) -> dict[str, Any]:
    """The schema of a type; the models in it become components of the document."""
    schemas, definitions = TypeAdapter.json_schemas(
        [("only", mode, TypeAdapter(type_))],
        ref_template="#/components/schemas/{model}",
        schema_generator=_JsonSchema,
    )
    for name, schema in definitions.get("$defs", {}).items():
        schema.pop("title", None)
        registry.register_on_missing(
            ResolvedComponent(name, ResolvedComponent.SCHEMA, schema, name)  # type: ignore[no-untyped-call]
        )
    return dict(schemas["only", mode])


def operation_of(view: Any, method: str | None) -> Operation | None:
    """The operation of a view's method; None for a method that the view does not support."""
    name = getattr(view, "action", None) or (method or "").lower()
    return getattr(getattr(view, name, None), "operation", None)


class JobLibSchema(AutoSchema):
    """Describes this app's views by their operations; a host's own schema class is not used."""

    def get_operation(
        self,
        path: str,
        path_regex: str,
        path_prefix: str,
        method: str,
        registry: ComponentRegistry,
    ) -> Any:
        """The operation, as `Operation.describe` has it."""
        operation = super().get_operation(path, path_regex, path_prefix, method, registry) or {}
        # Removed, because they would precede the request's body in the document.
        operation.pop("responses", None)
        described = self._operation.describe(registry)
        known = [parameter["name"] for parameter in described.get("parameters", ())]
        # A host's prefix may have variables too.
        added = [
            parameter
            for parameter in operation.get("parameters", ())
            if parameter["in"] == "path" and parameter["name"] not in known
        ]
        if added:
            described["parameters"] = [*added, *described.get("parameters", ())]
        return {**operation, **described}

    def get_operation_id(self) -> str:
        """The id that the operation was given."""
        return self._operation.id

    def get_tags(self) -> list[str]:
        """The same heading for all operations."""
        return ["joblib"]

    def get_request_serializer(self) -> Any:
        """None, because the operation describes the body."""
        return None

    def get_response_serializers(self) -> Any:
        """None, because the operation describes the answers."""
        return None

    def get_filter_backends(self) -> list[Any]:
        """An empty list, because the operation names the parameters."""
        return []

    @property
    def _operation(self) -> Operation:
        operation = operation_of(self.view, self.method)
        assert operation is not None, f"{self.view}: no Operation decorates {self.method}"
        return operation
