"""A sweeper on demand: for each task id on its standard input it ends the task's lease and sweeps.

It prints a line when it is ready and one after each sweep.
"""

from __future__ import annotations

import sys

import django

django.setup()

from datetime import timedelta  # noqa: E402

from zndraw_joblib.models import Task  # noqa: E402
from zndraw_joblib.services.sweep import sweep  # noqa: E402
from zndraw_joblib.storage.clock import Now  # noqa: E402


def main() -> None:
    # A sweep before the measurement, because the first one opens the database connection.
    print(sweep(), flush=True)
    for line in sys.stdin:
        ended = Now() - timedelta(seconds=1)
        Task.objects.filter(pk=line.strip()).update(lease_expires_at=ended)
        print(sweep(), flush=True)


if __name__ == "__main__":
    main()
