"""How busy the driver itself was, and statistics of what it measured."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from typing import Self


class Meter:
    """Seconds of CPU and of wall time of this process within a ``with``."""

    def __enter__(self) -> Self:
        self._wall, self._cpu = time.perf_counter(), self._used()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._wall
        #: CPU of this process as a share of one core.
        self.share = (self._used() - self._cpu) / self.seconds

    @staticmethod
    def _used() -> float:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime + usage.ru_stime


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share (0 to 1) of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
