"""Managers whose verbs change rows."""

from __future__ import annotations

from typing import Any

from django.db import models, router


class WriteManager(models.Manager[Any]):
    """A manager with verbs over a whole table.

    They stand on the manager and not on its queryset, because they would ignore a filter.
    """

    @property
    def write_db(self) -> str:
        """The alias that the verbs use: that of `db_manager`, else the router's for writes."""
        return self._db or router.db_for_write(self.model)
