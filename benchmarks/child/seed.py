"""Creates users with tokens, jobs, and one task for `benchmarks.fill`: ``seed USERS JOBS``."""

from __future__ import annotations

import json
import sys

import django

django.setup()

from django.contrib.auth import get_user_model  # noqa: E402
from rest_framework.authtoken.models import Token  # noqa: E402

from zndraw_joblib.models import Job  # noqa: E402


def main() -> None:
    users, jobs = int(sys.argv[1]), int(sys.argv[2])
    tokens = []
    for number in range(users):
        # Ordinary users, because most requests of a real site come from such users.
        user = get_user_model().objects.create(username=f"bench{number}")
        tokens.append(Token.objects.create(user=user).key)
    get_user_model().objects.create_superuser("admin")
    created = [
        Job.objects.create(room_id="bench", category="analysis", name=f"Job{number:03}", schema={})
        for number in range(jobs)
    ]
    created[0].enqueue("bench", {}, "template", 0)
    print(json.dumps({"tokens": tokens}))


if __name__ == "__main__":
    main()
