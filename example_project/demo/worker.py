"""``python -m example_project.demo.worker``: a worker for the demo's jobs.

From the environment: JOBLIB_URL and JOBLIB_TOKEN.
"""

from __future__ import annotations

import logging

from example_project.demo.jobs import JOBS, server
from zndraw_joblib.client import JobManager


def main() -> None:
    """Register the jobs and serve them until SIGINT or SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with server() as api, JobManager(api) as manager:
        for job in JOBS:
            manager.register(job)
        manager.serve(concurrency=2)


if __name__ == "__main__":
    main()
