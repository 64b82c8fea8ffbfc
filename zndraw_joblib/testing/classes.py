"""The classes of jobs, as a test names them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.models import Q
from pydantic import BaseModel

from zndraw_joblib.client.functions import model_of
from zndraw_joblib.client.registration import job_name
from zndraw_joblib.names import GLOBAL_ROOM

#: A pydantic class with a method `run`, or a function that `JobManager.job` may decorate.
JobCode = type[BaseModel] | Callable[..., Any]


def class_of(job: JobCode) -> type[BaseModel]:
    """The pydantic class of a job.

    Raises
    ------
    TypeError
        It is neither a pydantic class nor a function that can be a job.
    """
    if isinstance(job, type) and issubclass(job, BaseModel):
        return job
    return model_of(job)


def tasks_of_class(cls: type[BaseModel]) -> Q:
    """The condition of a class's tasks, whichever room its job is in."""
    # The room does not matter, because it is no part of a class.
    name = job_name(cls, GLOBAL_ROOM)
    return Q(job__category=name.category, job__name=name.name)
