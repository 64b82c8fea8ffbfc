"""Plain functions as jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel


def model_of(function: Callable[..., Any]) -> type[BaseModel]:
    """The pydantic class of a decorated function.

    Raises
    ------
    TypeError
        The function is no job.
    """
    model = getattr(function, "__joblib_model__", None)
    if model is None:
        raise TypeError(f"{function!r} is no job")
    return model  # type: ignore[no-any-return]
