"""The configuration of the Django app."""

from __future__ import annotations

from django.apps import AppConfig


class MetricsConfig(AppConfig):
    """Counts the events of this process from its start on."""

    name = "zndraw_joblib.contrib.metrics"
    label = "zndraw_joblib_metrics"

    def ready(self) -> None:
        """Connect the receivers."""
        # Imported here, because they need the models, which Django has loaded by now.
        from zndraw_joblib.contrib.metrics import counts  # noqa: PLC0415

        counts.connect()
