"""``python -m example_project.demo.worker``: a worker for the demo's jobs.

From the environment: JOBLIB_URL and JOBLIB_TOKEN.
"""

from __future__ import annotations

import logging
import os

from example_project.demo.jobs import JOBS, Documents, executor
from zndraw_joblib.client import Api, JobManager


def main() -> None:
    """Register the jobs and serve them until SIGINT or SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with (
        Api(os.environ["JOBLIB_URL"], token=os.environ["JOBLIB_TOKEN"]) as api,
        JobManager(api) as manager,
    ):
        for job in JOBS:
            manager.register(job)
        manager.serve(executor(Documents(api)), concurrency=2)


if __name__ == "__main__":
    main()
