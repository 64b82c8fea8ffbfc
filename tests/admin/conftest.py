"""The client of a superuser, whom most tests of the admin need."""

from __future__ import annotations

import pytest


@pytest.fixture
def admin(root, client):
    client.force_login(root.user)
    return client
