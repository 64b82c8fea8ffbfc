"""The SDK as a worker and as a submitter of tasks that do nothing.

``sdk worker URL TOKEN`` serves, ``sdk N URL TOKEN`` submits N tasks and prints the seconds until
the last result.
"""

from __future__ import annotations

import json
import sys
import time
from typing import ClassVar

from pydantic import BaseModel

from zndraw_joblib.client import Api, JobManager

ROOM = "sdk"


class Noop(BaseModel):
    """Returns its number."""

    category: ClassVar[str] = "analysis"
    number: int

    def run(self) -> int:
        """Return the number, as the result."""
        return self.number


def main() -> None:
    what, url, token = sys.argv[1:]
    with Api(url, token) as api:
        manager = JobManager(api)
        if what == "worker":
            manager.register(room=ROOM)(Noop)
            print("registered", flush=True)
            manager.serve(concurrency=4, prefetch=100)
            return
        count = int(what)
        begun, cpu = time.perf_counter(), time.process_time()
        instances = (Noop(number=number) for number in range(count))
        results = list(manager.map(instances, room=ROOM, job_room=ROOM))
        seconds = time.perf_counter() - begun
    assert results == list(range(count))
    print(json.dumps({"seconds": seconds, "cpu": time.process_time() - cpu}))


if __name__ == "__main__":
    main()
