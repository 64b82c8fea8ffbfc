"""Histograms of durations in fixed logarithmic buckets, so that those of any times can be added.

A histogram is a mapping from the number of a bucket, as text because JSON has no other keys, to the
number of durations in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, exp, log

#: The bound of the first bucket in seconds; shorter durations are in it too.
SHORTEST = 0.001
#: Each bucket is wider than the one before by this factor. Its geometric middle, which stands for
#: all durations in it, differs from them by 8 % at most.
FACTOR = 1.16
_LOG_FACTOR = log(FACTOR)

Histogram = dict[str, int]


def add_duration(histogram: Histogram, seconds: float) -> None:
    """Count one duration; a negative one, after the clock went back, counts as the shortest."""
    bucket = ceil(log(seconds / SHORTEST) / _LOG_FACTOR) if seconds > SHORTEST else 0
    histogram[str(bucket)] = histogram.get(str(bucket), 0) + 1


def add_histogram(histogram: Histogram, other: Mapping[str, int]) -> None:
    """Add the counts of another histogram."""
    for bucket, number in other.items():
        histogram[bucket] = histogram.get(bucket, 0) + number


def quantile(histogram: Mapping[str, int], fraction: float) -> float | None:
    """The duration in seconds below which this fraction of the durations lies; None without any."""
    rank = ceil(fraction * sum(histogram.values()))
    for bucket in sorted(histogram, key=int):
        rank -= histogram[bucket]
        if rank <= 0:
            return SHORTEST * exp(_LOG_FACTOR * (int(bucket) - 0.5)) if int(bucket) else SHORTEST
    return None
