"""Tenants of the host: the schema or database in which a request finds its rows.

Under HTTP the host's middleware chooses the tenant. Threads without middleware (reads for waiters,
WebSockets) choose it by the hooks.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from zndraw_joblib.settings import get_settings


def tenant_of(request: Any) -> str | None:
    """The tenant of a request, by the host's hook; None on a host without tenants."""
    settings = get_settings()
    return None if settings.tenant is None else settings.hook("tenant")(request)


def in_tenant(tenant: str | None) -> AbstractContextManager[Any]:
    """A context in which the queries of this thread go to the tenant's rows."""
    if tenant is None:
        return nullcontext()
    return get_settings().hook("in_tenant")(tenant)  # type: ignore[no-any-return]


def all_tenants() -> Iterable[str | None]:
    """The tenants of the host; None alone on a host without tenants."""
    settings = get_settings()
    return (None,) if settings.tenants is None else settings.hook("tenants")()
