"""Measures one sweep: its duration and the growth of the process's memory."""

from __future__ import annotations

import json
import threading
import time

import django
import psutil

django.setup()

from django.db import connection  # noqa: E402

from zndraw_joblib.events.publisher import flush  # noqa: E402
from zndraw_joblib.models import Task  # noqa: E402
from zndraw_joblib.services.sweep import sweep  # noqa: E402

#: Seconds between two samples of the memory.
SAMPLE_EVERY = 0.02


class Memory(threading.Thread):
    """Samples the resident set size of this process, in bytes, until `stop` is called."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.sizes = [psutil.Process().memory_info().rss]
        self.over = threading.Event()

    def run(self) -> None:
        """Append a sample to `sizes` every `SAMPLE_EVERY` seconds."""
        while not self.over.wait(SAMPLE_EVERY):
            self.sizes.append(psutil.Process().memory_info().rss)

    def stop(self) -> tuple[int, int, int]:
        """The first size, and the largest sizes of the first and of the second half of the time."""
        self.over.set()
        self.join()
        half = (len(self.sizes) + 1) // 2
        return self.sizes[0], max(self.sizes[:half]), max(self.sizes[half - 1 :])


def main() -> None:
    # A query before the measurement, because it imports modules that the sweep does not load.
    Task.objects.first()
    connection.cursor().close()
    memory = Memory()
    memory.start()
    begun = time.perf_counter()
    report = sweep()
    swept = time.perf_counter() - begun
    before, first_half, second_half = memory.stop()
    flush(60)
    print(
        json.dumps(
            {
                "seconds": swept,
                "flushed": time.perf_counter() - begun,
                "growth": max(first_half, second_half) - before,
                "slope": second_half / first_half,
                "report": str(report),
                "changed": report.requeued + report.retried + report.failed,
                "workers": report.workers,
            }
        )
    )


if __name__ == "__main__":
    main()
