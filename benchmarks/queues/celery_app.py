"""Celery with Redis as broker and result backend, in an environment of its own.

``celery -A celery_app worker`` serves, ``python celery_app.py N`` submits N tasks and prints the
seconds until the last result. REDIS_URL is the broker.
"""

from __future__ import annotations

import json
import os
import sys
import time

from celery import Celery

URL = os.environ["REDIS_URL"]

app = Celery("celery_app", broker=URL, backend=URL)
# As many tasks ahead as the SDK's worker claims: 25 for each of 4 processes.
app.conf.worker_prefetch_multiplier = 25


@app.task
def noop(number: int) -> int:
    return number


def main() -> None:
    count = int(sys.argv[1])
    begun, cpu = time.perf_counter(), time.process_time()
    handles = [noop.delay(number) for number in range(count)]
    results = [handle.get() for handle in handles]
    seconds = time.perf_counter() - begun
    assert results == list(range(count))
    print(json.dumps({"seconds": seconds, "cpu": time.process_time() - cpu}))


if __name__ == "__main__":
    main()
