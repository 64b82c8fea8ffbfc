"""The app's configuration."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class ZnDrawJobLibConfig(AppConfig):
    """Connects what the app does in the background."""

    name = "zndraw_joblib"
    label = "zndraw_joblib"
    verbose_name = _("Job server")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Connect the receivers and register the system checks."""
        # Both need the models, which are there only now.
        from zndraw_joblib import checks, notifications  # noqa: F401, PLC0415

        notifications.connect()
