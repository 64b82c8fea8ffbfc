"""The configuration of the Django app."""

from __future__ import annotations

from channels.layers import get_channel_layer
from django.apps import AppConfig
from django.core.cache import caches
from django.utils.translation import gettext_lazy as _


class ZnDrawJobLibConfig(AppConfig):
    """Connects receivers and system checks when Django starts."""

    name = "zndraw_joblib"
    label = "zndraw_joblib"
    verbose_name = _("Job server")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Connect the receivers, register the system checks and load the backends."""
        # Imported here, because these modules need the models, which Django has loaded by now.
        from zndraw_joblib import checks, file_checks, rest_checks  # noqa: F401, PLC0415
        from zndraw_joblib.events import receivers, task_log  # noqa: PLC0415
        from zndraw_joblib.services import submit as submissions  # noqa: PLC0415
        from zndraw_joblib.storage import connections  # noqa: PLC0415

        connections.connect()
        receivers.connect()
        task_log.connect()
        submissions.connect()
        # Loads the backends before there are threads, because redis has circular imports and
        # fails when the first requests import it from several threads at once.
        get_channel_layer()
        caches.all()
