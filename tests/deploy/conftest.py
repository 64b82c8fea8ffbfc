from __future__ import annotations

import pytest
from django.db import connection


@pytest.fixture(scope="session")
def postgres(django_db_setup) -> None:
    """Create the test database, and skip the test on SQLite."""
    if connection.vendor != "postgresql":
        pytest.skip("the deployment needs PostgreSQL")
