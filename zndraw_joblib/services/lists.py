"""Decides for which submitter a caller may list tasks."""

from __future__ import annotations

from zndraw_joblib.access import Caller
from zndraw_joblib.exceptions import Forbidden
from zndraw_joblib.text import Message

#: Stands for the caller's own identity.
ME = "me"


def creator_to_list(caller: Caller, created_by: str | None) -> str | None:
    """The identity whose tasks to list; None for those of every identity.

    `created_by` is an identity, `ME`, or None, which is everybody's for an administrator and the
    caller's own otherwise.

    Raises
    ------
    Forbidden
        The caller is no administrator, and the identity is another's.
    """
    if created_by == ME or (created_by is None and not caller.is_admin):
        return caller.identity
    if created_by not in {None, caller.identity} and not caller.is_admin:
        raise Forbidden(Message("Only an administrator may list the tasks of others."))
    return created_by
