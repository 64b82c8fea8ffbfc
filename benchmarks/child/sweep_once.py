"""One sweep: how long it takes and how much memory it takes on."""

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

#: Seconds between two looks at the memory.
LOOK_EVERY = 0.02


class Memory(threading.Thread):
    """Looks at the resident set of this process, in bytes, until told to stop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.sizes = [psutil.Process().memory_info().rss]
        self.over = threading.Event()

    def run(self) -> None:
        """Look, again and again."""
        while not self.over.wait(LOOK_EVERY):
            self.sizes.append(psutil.Process().memory_info().rss)

    def stop(self) -> tuple[int, int, int]:
        """The size at first and the largest in the first and in the second half of the time."""
        self.over.set()
        self.join()
        half = (len(self.sizes) + 1) // 2
        return self.sizes[0], max(self.sizes[:half]), max(self.sizes[half - 1 :])


def main() -> None:
    # What the first query loads is not the sweep's.
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
