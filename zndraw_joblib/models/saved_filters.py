"""Filters of the admin's lists that staff have saved."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from zndraw_joblib.models.tasks import MAX_IDENTITY_LENGTH

MAX_FILTER_NAME_LENGTH = 60
MAX_QUERY_LENGTH = 2000


class SavedFilter(models.Model):
    """The query of a list in the admin, under a name that a user chose."""

    # The user's key as text, because users may be in another database than jobs and tasks.
    owner = models.CharField(_("owner"), max_length=MAX_IDENTITY_LENGTH)
    list_name = models.CharField(_("list"), max_length=32)
    name = models.CharField(_("name"), max_length=MAX_FILTER_NAME_LENGTH)
    query = models.CharField(_("query"), max_length=MAX_QUERY_LENGTH)

    objects: ClassVar[models.Manager[SavedFilter]] = models.Manager()

    class Meta:
        verbose_name = _("saved filter")
        verbose_name_plural = _("saved filters")
        ordering = ("name",)
        # None, because the owner alone can use a filter, and each user of a list can save some.
        default_permissions = ()
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["owner", "list_name", "name"], name="joblib_saved_filter_unique"
            )
        ]

    def __str__(self) -> str:
        return self.name
