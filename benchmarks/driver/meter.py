"""CPU time of the driver itself, and statistics of its measurements."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from typing import Self


class Meter:
    """Measures the wall time and the CPU time of this process within a ``with``, in seconds."""

    def __enter__(self) -> Self:
        self._wall, self._cpu = time.perf_counter(), self._used()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._wall
        #: CPU time of this process over wall time: its share of one core.
        self.cpu_share = (self._used() - self._cpu) / self.seconds

    @staticmethod
    def _used() -> float:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime + usage.ru_stime


def percentile(values: Sequence[float], share: float) -> float:
    """The percentile of `values` at `share` (0 to 1)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
