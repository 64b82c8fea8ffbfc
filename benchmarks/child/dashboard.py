"""Times the passes that keep the statistics, and the dashboard: ``dashboard TIMES``."""

from __future__ import annotations

import json
import sys
import time

import django

django.setup()

from django.contrib.auth import get_user_model  # noqa: E402
from django.test import Client  # noqa: E402

from zndraw_joblib.models import JobInterval, StatisticsState  # noqa: E402
from zndraw_joblib.services.dashboard import SPANS  # noqa: E402
from zndraw_joblib.services.statistics import (  # noqa: E402
    PASS_SECONDS,
    collect,
    record_pass,
)
from zndraw_joblib.storage.intervals import ALL_JOBS, LENGTHS  # noqa: E402

URL = "/admin/zndraw_joblib/jobinterval/"
#: Most passes until all tasks of the first day are counted.
MOST_PASSES = 1_000


def main() -> None:
    times = int(sys.argv[1])
    first = [_pass()]
    while first[-1] >= PASS_SECONDS and len(first) < MOST_PASSES:
        first.append(_pass())
    again = [_pass() for _ in range(times)]
    record_pass({}, again[-1])
    totals = JobInterval.objects.filter(job_id=ALL_JOBS, seconds=LENGTHS[-1])
    sample = StatisticsState.objects.get().sample_seconds
    print(
        json.dumps(
            {
                "first": first,
                "again": again,
                "sample": sample,
                "ended": sum(row.completed + row.failed + row.cancelled for row in totals),
                "submitted": sum(row.submitted for row in totals),
                "rows": JobInterval.objects.count(),
                **_pages(times),
            }
        )
    )


def _pass() -> float:
    begun = time.perf_counter()
    collect()
    return time.perf_counter() - begun


def _pages(times: int) -> dict[str, object]:
    client = Client(headers={"host": "localhost"})
    client.force_login(get_user_model().objects.get(username="admin"))
    spans, size = {}, 0
    for query in (*(f"?span={span}" for span in SPANS), "numbers/?span=week"):
        measured = []
        # The first request is not timed, because it compiles the templates.
        for _ in range(times + 1):
            begun = time.perf_counter()
            response = client.get(URL + query)
            measured.append(time.perf_counter() - begun)
            size = max(size, len(response.content))
            if response.status_code != 200:
                raise SystemExit(f"{query} was answered {response.status_code}")
        spans[query] = measured[1:]
    return {"spans": spans, "bytes": size}


if __name__ == "__main__":
    main()
