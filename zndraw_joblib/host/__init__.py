"""The functions that the site's own code calls, without HTTP.

`zndraw_joblib` exports them: `submit`, `asubmit`, `wait_for`, `await_for` and `declare_job`.
"""

from __future__ import annotations

from zndraw_joblib.host.declaring import declare_job
from zndraw_joblib.host.submitting import asubmit, submit
from zndraw_joblib.host.waiting import await_for, wait_for

__all__ = ["asubmit", "await_for", "declare_job", "submit", "wait_for"]
