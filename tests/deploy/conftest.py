from __future__ import annotations

import pytest
from django.db import connection


@pytest.fixture(scope="session")
def postgres(django_db_setup) -> None:
    """The test database is PostgreSQL's, and exists."""
    if connection.vendor != "postgresql":
        pytest.skip("the deployment needs PostgreSQL")
