"""An environment that two tests share, because installing it takes longer than they do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packaging.environments import make_environment


@pytest.fixture(scope="session")
def python_of_the_original(tmp_path_factory) -> Path:
    """The Python of an environment with the FastAPI original, and without Django."""
    folder = tmp_path_factory.mktemp("original")
    return make_environment(folder, "zndraw-joblib==0.1.7", "sqlalchemy<2.1")
