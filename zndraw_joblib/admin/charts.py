"""The charts of the dashboard, and the same values as tables."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.utils.translation import gettext_lazy

from zndraw_joblib.admin.formats import duration
from zndraw_joblib.services.dashboard import Dashboard
from zndraw_joblib.storage.histograms import Histogram, quantile
from zndraw_joblib.storage.intervals import Counts

#: A series of a chart: its name in the style sheet, its label, and its value in an interval.
Series = tuple[str, Any, Callable[[Counts], float | int | None]]


def _quantile(name: str, fraction: float) -> Callable[[Counts], float | None]:
    def value(counts: Counts) -> float | None:
        return quantile(getattr(counts, name), fraction)

    return value


#: The charts: key, heading, whether the values are seconds, and the series.
CHARTS: tuple[tuple[str, Any, bool, tuple[Series, ...]], ...] = (
    (
        "ends",
        gettext_lazy("Submitted and ended tasks"),
        False,
        (
            ("submitted", gettext_lazy("submitted"), lambda counts: counts.submitted),
            ("completed", gettext_lazy("completed"), lambda counts: counts.completed),
            ("failed", gettext_lazy("failed"), lambda counts: counts.failed),
            ("cancelled", gettext_lazy("cancelled"), lambda counts: counts.cancelled),
        ),
    ),
    (
        "backlog",
        gettext_lazy("Backlog and running tasks"),
        False,
        (
            ("pending", gettext_lazy("pending"), lambda counts: counts.pending),
            ("running", gettext_lazy("claimed or running"), lambda counts: counts.running),
        ),
    ),
    (
        "delays",
        gettext_lazy("Queue delay"),
        True,
        (
            ("p50", gettext_lazy("median"), _quantile("delays", 0.5)),
            ("p95", gettext_lazy("95th percentile"), _quantile("delays", 0.95)),
        ),
    ),
    (
        "run_times",
        gettext_lazy("Run time"),
        True,
        (
            ("p50", gettext_lazy("median"), _quantile("run_times", 0.5)),
            ("p95", gettext_lazy("95th percentile"), _quantile("run_times", 0.95)),
        ),
    ),
)


def _seconds(value: float | None) -> str:
    return "-" if value is None else duration(timedelta(seconds=value))


def both_quantiles(histogram: Histogram) -> str:
    """The median and the 95th percentile of a histogram."""
    if not histogram:
        return "-"
    return f"{_seconds(quantile(histogram, 0.5))} / {_seconds(quantile(histogram, 0.95))}"


def chart_document(dashboard: Dashboard) -> dict[str, Any]:
    """The values of the charts for the page's JavaScript; times in seconds since 1970."""
    return {
        "times": [begins_at.timestamp() for begins_at, _counts in dashboard.points],
        "charts": [
            {
                "key": key,
                "seconds": is_duration,
                "series": [
                    {
                        "name": name,
                        "label": str(label),
                        "values": _values(dashboard, value),
                    }
                    for name, label, value in series
                ],
            }
            for key, _heading, is_duration, series in CHARTS
        ],
    }


def chart_table(
    dashboard: Dashboard, key: str, heading: Any, is_duration: bool, series: tuple[Series, ...]
) -> dict[str, Any]:
    """The values of a chart as a table."""
    shown: Callable[[Any], Any] = _seconds if is_duration else lambda n: "-" if n is None else n
    columns = [map(shown, _values(dashboard, value)) for _name, _label, value in series]
    times = [begins_at for begins_at, _counts in dashboard.points]
    return {
        "key": key,
        "heading": heading,
        "labels": [label for _name, label, _value in series],
        "rows": list(zip(times, zip(*columns, strict=True), strict=True)),
    }


def _values(
    dashboard: Dashboard, value: Callable[[Counts], float | int | None]
) -> list[float | int | None]:
    """The values of a series; None for intervals that were not counted."""
    return [
        value(counts) if dashboard.is_counted(begins_at) else None
        for begins_at, counts in dashboard.points
    ]
