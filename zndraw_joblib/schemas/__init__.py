"""JSON Schema: accepts a job's schema and checks payloads against it, by `jsonschema_rs`.

Schemas and payloads come from strangers, so the work of a check is bounded before it begins:
`subschemas` reads a schema, `patterns` its regular expressions and `levels` a payload; `bound`
computes the most work from these; `acceptance` and `payloads` refuse what is above the limits.
"""

from __future__ import annotations

from zndraw_joblib.schemas.acceptance import schema_errors
from zndraw_joblib.schemas.meaning import same_meaning
from zndraw_joblib.schemas.payloads import Budget, PayloadChecker

__all__ = ["Budget", "PayloadChecker", "same_meaning", "schema_errors"]
