"""A job class, and a worker process that serves it: ``python -m tests.client.jobs``."""

from __future__ import annotations

import os
import time
from typing import ClassVar

from pydantic import BaseModel

from zndraw_joblib.client import Api, ClaimedTask, JobManager


class Double(BaseModel):
    category: ClassVar[str] = "analysis"
    number: int
    seconds: float = 0

    def run(self, task: ClaimedTask) -> None:
        time.sleep(self.seconds)
        if self.number < 0:
            raise ValueError("negative")


if __name__ == "__main__":
    with Api(os.environ["JOBLIB_URL"], os.environ["JOBLIB_TOKEN"]) as api:
        manager = JobManager(api)
        manager.register(Double)
        manager.serve(concurrency=2, prefetch=int(os.environ.get("JOBLIB_PREFETCH", "0")))
