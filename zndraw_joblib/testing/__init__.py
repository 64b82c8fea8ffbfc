"""Helpers for the tests of a site: run submitted tasks in the test's own process.

They need neither a server nor a channel layer, and work in `django.test.TestCase` too.
"""

from __future__ import annotations

from zndraw_joblib.testing.asserting import assert_submitted
from zndraw_joblib.testing.running import run_pending

__all__ = ["assert_submitted", "run_pending"]
