"""The labels of a job. Their number is bounded, because each combination is a series for good."""

from __future__ import annotations

import threading
from collections import defaultdict

from zndraw_joblib.names import GLOBAL_ROOM
from zndraw_joblib.settings import get_settings

#: Names of the labels, in the order of their values. Not `job`, which Prometheus gives to each
#: target itself.
LABELS = ("task_job", "scope")
#: The label of jobs beyond `metrics_max_jobs`.
OTHER = "other"

#: The known names of each scope.
_names: defaultdict[str, set[str]] = defaultdict(set)
_lock = threading.Lock()


def labels_of(room_id: str, category: str, name: str) -> tuple[str, str]:
    """The labels of a job: its category and name, and whether it is of ``@global`` or of a room.

    The room is left out, because a site may have any number of them. Each scope has names of its
    own, so that those which users give to the jobs of their rooms leave the global jobs theirs.
    """
    scope = "global" if room_id == GLOBAL_ROOM else "room"
    job = f"{category}:{name}"
    names = _names[scope]
    if job not in names:
        with _lock:
            if len(names) >= get_settings().metrics_max_jobs:
                return OTHER, scope
            names.add(job)
    return job, scope
