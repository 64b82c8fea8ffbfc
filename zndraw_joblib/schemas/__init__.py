"""JSON Schema: accepting a job's schema, and checking payloads against it."""

from __future__ import annotations

from zndraw_joblib.schemas.acceptance import schema_errors
from zndraw_joblib.schemas.payloads import Budget, PayloadChecker

__all__ = ["Budget", "PayloadChecker", "schema_errors"]
