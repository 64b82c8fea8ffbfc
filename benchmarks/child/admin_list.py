"""Times the admin's list of tasks through Django's test client: ``admin_list TIMES QUERY...``."""

from __future__ import annotations

import json
import sys
import time

import django

django.setup()

from django.contrib.auth import get_user_model  # noqa: E402
from django.test import Client  # noqa: E402


def main() -> None:
    client = Client(headers={"host": "localhost"})
    client.force_login(get_user_model().objects.get(username="admin"))
    times, queries = int(sys.argv[1]), sys.argv[2:]
    size, spans = 0, {}
    for query in queries:
        measured = []
        # The first request is not timed, because it compiles the templates.
        for _ in range(times + 1):
            begun = time.perf_counter()
            response = client.get(f"/admin/zndraw_joblib/task/{query}")
            measured.append(time.perf_counter() - begun)
            size = max(size, len(response.content))
            if response.status_code != 200:
                raise SystemExit(f"{query} was answered {response.status_code}")
        spans[query] = measured[1:]
    print(json.dumps({"spans": spans, "bytes": size}))


if __name__ == "__main__":
    main()
