"""The app's configuration."""

from __future__ import annotations

from channels.layers import get_channel_layer
from django.apps import AppConfig
from django.core.cache import caches
from django.utils.translation import gettext_lazy as _


class ZnDrawJobLibConfig(AppConfig):
    """Connects the receivers of the app's own signals."""

    name = "zndraw_joblib"
    label = "zndraw_joblib"
    verbose_name = _("Job server")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Connect the receivers, register the system checks and load the backends."""
        # Both need the models, which are there only now.
        from zndraw_joblib import checks  # noqa: F401, PLC0415
        from zndraw_joblib.events import receivers  # noqa: PLC0415
        from zndraw_joblib.services import submit as submissions  # noqa: PLC0415

        receivers.connect()
        submissions.connect()
        # Left to the first requests, several threads would import them at once, and packages whose
        # modules import each other, as those of redis do, fail at that.
        get_channel_layer()
        caches.all()
