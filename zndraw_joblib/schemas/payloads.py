"""Checks payloads against a job's schema, unless the bound on the work is above the limit."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import chain
from typing import Any

import jsonschema_rs

from zndraw_joblib.exceptions import MAX_ERRORS, FieldError, json_pointer
from zndraw_joblib.schemas.acceptance import MAX_MESSAGE, SchemaRefused, compile_schema
from zndraw_joblib.schemas.bound import MAX_STEPS, MAX_WORK, Bound, Cost
from zndraw_joblib.schemas.levels import (
    MAX_SHORT,
    greatest_level,
    has_exponent,
    most_levels,
    read_levels,
)
from zndraw_joblib.text import Message
from zndraw_joblib.translation import library_message

#: Most characters of all errors of one answer.
MAX_CHARACTERS = 200_000
#: Work that each further payload of a batch adds to `MAX_WORK`, 1 ms.
SHARE = MAX_WORK // 250

logger = logging.getLogger(__name__)

_NOT_ALLOWED = Message("is not allowed")
_TOO_MUCH_WORK = Message("The payload takes too much work to check against this schema.")


class Budget:
    """Work that the payloads of one batch share, because each alone could take `MAX_WORK`."""

    def __init__(self, payloads: int = 1) -> None:
        self.left = MAX_WORK + (payloads - 1) * SHARE

    def take(self, work: int) -> bool:
        """Subtract work, and return whether that much was left."""
        self.left -= work
        return self.left >= 0


class PayloadChecker:
    """Checks payloads against one schema; threads may share it.

    The schema is compiled at the first payload.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema
        #: Whether all payloads take at most `SHARE`, by their bytes of JSON and number of levels.
        self._are_cheap: dict[tuple[int, int], bool] = {}

    @cached_property
    def _compiled(self) -> tuple[jsonschema_rs.Validator, Bound, bool]:
        return compile_schema(self._schema)

    def errors(
        self,
        payload: Any,
        budget: Budget | None = None,
        job_id: object = None,
        *,
        text: bytes | None = None,
    ) -> list[FieldError]:
        """The errors of a payload, with pointers into it; empty for a valid one.

        `budget` is shared by the payloads of a batch; `job_id` is for the log. `text` is the
        payload as JSON, where the caller has it.
        """
        budget = budget or Budget()
        try:
            if text is not None and self._is_cheap(text):
                budget.take(SHARE)
                if self._compiled[0].is_valid(payload):
                    return []
            return self._errors(payload, budget)
        except SchemaRefused as refusal:
            logger.warning("The schema of job %s is not accepted: %s", job_id, refusal)
            return [
                FieldError(
                    Message("The payload cannot be checked, because the schema is not accepted.")
                )
            ]
        except Exception as error:
            return self._unchecked(error, job_id)
        except BaseException as error:
            # The engine's panics derive from `BaseException`, and no module exports their class.
            if type(error).__name__ != "PanicException":
                raise
            return self._unchecked(error, job_id)

    def _unchecked(self, error: BaseException, job_id: object) -> list[FieldError]:
        logger.error("A payload of job %s cannot be checked.", job_id, exc_info=error)
        return [FieldError(Message("The payload cannot be checked against this schema."))]

    def _is_cheap(self, text: bytes) -> bool:
        """Whether any payload of this length and depth takes at most `SHARE`.

        It spares most payloads a computation that takes ten times as long as their check.
        """
        if len(text) > MAX_SHORT or has_exponent(text):
            return False
        # Rounded up, so that few answers are kept.
        size, levels = len(text) // 16 * 16 + 16, most_levels(text)
        if (size, levels) not in self._are_cheap:
            _, bound, unique = self._compiled
            cost = None if unique else bound.cost([greatest_level(size)] * levels)
            self._are_cheap[size, levels] = (
                cost is not None and cost.verdict <= SHARE and cost.steps <= MAX_STEPS
            )
        return self._are_cheap[size, levels]

    def _errors(self, payload: Any, budget: Budget) -> list[FieldError]:
        validator, bound, unique = self._compiled
        cost = bound.cost(read_levels(payload, unique=unique))
        if cost is None or cost.steps > MAX_STEPS or not budget.take(cost.verdict):
            return [FieldError(_TOO_MUCH_WORK)]
        if validator.is_valid(payload):
            return []
        return _list_errors(validator, payload, budget, cost)


def _list_errors(
    validator: jsonschema_rs.Validator, payload: Any, budget: Budget, cost: Cost
) -> list[FieldError]:
    """List all errors of an invalid payload, or one, or only a remark, as the budget allows."""
    if budget.left >= cost.errors:
        budget.take(cost.errors)
        errors = validator.iter_errors(payload)
        return _within_limits(chain.from_iterable(map(_field_errors, errors)))
    if budget.left >= cost.first_error:
        budget.take(cost.first_error)
        try:
            validator.validate(payload)
        except jsonschema_rs.ValidationError as error:
            remark = FieldError(
                Message("Only the first error is listed, because the payload is large.")
            )
            return [*_within_limits(_field_errors(error)), remark]
    return [
        FieldError(Message("The payload does not match the schema; it is too large to say where."))
    ]


def _field_errors(error: jsonschema_rs.ValidationError) -> Iterator[FieldError]:
    pointer = json_pointer(error.instance_path)
    kinds = jsonschema_rs.ValidationErrorKind
    if isinstance(error.kind, kinds.AdditionalProperties | kinds.UnevaluatedProperties):
        for name in error.kind.unexpected:
            yield FieldError(_NOT_ALLOWED, pointer + json_pointer([name]))
        return
    detail = _NOT_ALLOWED if isinstance(error.kind, kinds.FalseSchema) else _message(error)
    yield FieldError(detail, pointer)


def _message(error: jsonschema_rs.ValidationError) -> Message:
    text = error.message
    if len(text) > MAX_MESSAGE:
        text = text[:MAX_MESSAGE] + "…"
    return library_message(text)


def _within_limits(errors: Iterable[FieldError]) -> list[FieldError]:
    """The errors that fit into one answer, in the order of their pointers."""
    listed: list[FieldError] = []
    left = MAX_CHARACTERS
    for error in errors:
        if listed and (len(listed) == MAX_ERRORS - 1 or left < len(error.pointer)):
            more = FieldError(
                Message("There are more than these {number} errors.", number=len(listed))
            )
            return [*sorted(listed, key=_pointer), more]
        listed.append(error)
        left -= len(error.pointer) + len(error.detail)
    return sorted(listed, key=_pointer)


def _pointer(error: FieldError) -> str:
    return error.pointer
