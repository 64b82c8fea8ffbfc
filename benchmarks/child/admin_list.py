"""Times the admin's list of tasks through Django's test client: ``admin_list TIMES``."""

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
    spans, size = [], 0
    # The first request is not timed, because it compiles the templates.
    for number in range(int(sys.argv[1]) + 1):
        begun = time.perf_counter()
        response = client.get("/admin/zndraw_joblib/task/")
        size = len(response.content)
        if number or int(sys.argv[1]) == 0:
            spans.append(time.perf_counter() - begun)
        if response.status_code != 200:
            raise SystemExit(f"the admin answered {response.status_code}")
    print(json.dumps({"spans": spans, "bytes": size}))


if __name__ == "__main__":
    main()
