"""Migrations must not break servers of the previous release, which run while they are applied."""

from __future__ import annotations

import pytest
from django.core.management import call_command
from django_migration_linter import MigrationLinter

from tests.servers import ROOT


@pytest.mark.django_db
def test_models_have_no_change_without_a_migration():
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


@pytest.mark.django_db(transaction=True)
def test_migrations_lock_no_table_and_break_no_running_server():
    """The first migration is left out, because no server runs before its tables exist."""
    linter = MigrationLinter(
        str(ROOT),
        include_apps=["zndraw_joblib"],
        ignore_initial_migrations=True,
        all_warnings_as_errors=True,
        no_cache=True,
    )
    linter.lint_all_migrations()
    assert linter.nb_valid, "the linter found no migration to check"
    assert not linter.has_errors, "the output above names the migration and the operation"
