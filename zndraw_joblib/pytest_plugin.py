"""Fixtures for pytest: `zndraw_joblib.testing` for the tests of a site.

Pytest loads this module in every project where the package is installed, so it imports Django only
in a test that uses a fixture.
"""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def joblib_run_pending() -> Any:
    """`zndraw_joblib.testing.run_pending`, for a test that uses the database."""
    from zndraw_joblib.testing import run_pending  # noqa: PLC0415

    return run_pending


@pytest.fixture
def joblib_assert_submitted() -> Any:
    """`zndraw_joblib.testing.assert_submitted`, for a test that uses the database."""
    from zndraw_joblib.testing import assert_submitted  # noqa: PLC0415

    return assert_submitted
