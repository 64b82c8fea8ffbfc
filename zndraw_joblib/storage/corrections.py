"""Corrects times of tasks that lie in the future, because the database's clock went back."""

from __future__ import annotations

from datetime import timedelta

from zndraw_joblib.storage import locking, statements
from zndraw_joblib.storage.clock import TOLERANCE


def cap_leases(using: str, lease: timedelta) -> int:
    """Make leases that end later than `lease` from now end then, up to `BATCH` of them.

    Returns how many. Such leases were granted before the clock went back, or by a longer setting.
    They are shortened and not ended, because most of their workers are alive.
    """
    capped = statements.run(
        using,
        "cap_leases",
        lease_seconds=lease.total_seconds(),
        longest_seconds=(lease + TOLERANCE).total_seconds(),
        limit=locking.BATCH,
    )
    return len(capped.rows)


def cap_submits(using: str) -> int:
    """Make pending tasks that were created later than now count as submitted now.

    Returns how many, up to `BATCH` of each job. No claim would take them before the clock has
    caught up.
    """
    capped = statements.run(
        using,
        "cap_submits",
        tolerance_seconds=TOLERANCE.total_seconds(),
        limit=locking.BATCH,
    )
    return len(capped.rows)
