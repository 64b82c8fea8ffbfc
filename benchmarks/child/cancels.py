"""Cancels of running tasks by the SDK: ``cancels N URL TOKEN``.

Prints the seconds from just before each cancel until the code of the task sees `task.cancelled`.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any, ClassVar

from pydantic import BaseModel

from zndraw_joblib.client import Api, JobManager

ROOM = "cancels"
#: Seconds of a task before the first cancel, and between two: the work of a usual task.
AGE, PAUSE = 3.0, 0.3

seen: dict[str, float] = {}


class Busy(BaseModel):
    """Computes until it is cancelled."""

    category: ClassVar[str] = "analysis"

    def run(self, task: Any) -> None:
        """Look for a cancel after each millisecond."""
        while not task.cancelled:
            time.sleep(0.001)
        seen[task.id] = time.perf_counter()


def main() -> None:
    count, url, token = int(sys.argv[1]), *sys.argv[2:]
    with Api(url, token) as api:
        manager = JobManager(api)
        manager.register(room=ROOM)(Busy)
        serving = threading.Thread(target=manager.serve, kwargs={"concurrency": count}, daemon=True)
        serving.start()
        handles = [manager.send(Busy(), room=ROOM, job_room=ROOM) for _ in range(count)]
        while any(handle.status() != "running" for handle in handles):
            time.sleep(0.1)
        time.sleep(AGE)
        spans = []
        for handle in handles:
            begun = time.perf_counter()
            handle.cancel()
            while handle.id not in seen:
                time.sleep(0.001)
            spans.append(seen[handle.id] - begun)
            time.sleep(PAUSE)
    print(json.dumps({"spans": spans}), flush=True)


if __name__ == "__main__":
    main()
