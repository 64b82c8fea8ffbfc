"""Times in the bodies of requests: RFC 3339 with an offset."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from django.db import connections, router
from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from zndraw_joblib.models import Task

_RFC_3339 = re.compile(
    # Python reads `24:00` and offsets such as `+05:99`, depending on its version.
    r"\d{4}-\d\d-\d\d[Tt](?!24)\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:[0-5]\d)",
    re.ASCII,
)


def _parse(value: Any) -> Any:
    """The time in UTC; other formats are refused, because pydantic would read numbers as times.

    So are times that the database could not give back, because they are beyond the calendar in its
    time zone.
    """
    if value is None or isinstance(value, datetime):
        return value
    if isinstance(value, str) and _RFC_3339.fullmatch(value):
        try:
            moment = datetime.fromisoformat(value.upper()).astimezone(UTC)
            moment.astimezone(connections[router.db_for_write(Task)].timezone)
            return moment
        except (ValueError, OverflowError):
            pass
    raise PydanticCustomError(
        "time", "Must be a time with an offset (RFC 3339), such as 2030-01-31T12:00:00Z."
    )


#: A time as `_parse` reads it.
Time = Annotated[
    datetime, BeforeValidator(_parse), WithJsonSchema({"type": "string", "format": "date-time"})
]
