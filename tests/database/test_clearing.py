"""A test with ``transaction=True`` leaves nothing behind for the next one."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest
from django.apps import apps
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction

from tests.clearing import FILLED, fixture_teardown
from tests.plans import copy_task
from zndraw_joblib.models import Worker

pytestmark = pytest.mark.django_db(transaction=True)


def end_of_test():
    fixture_teardown(SimpleNamespace(_databases_names=lambda include_mirrors: ["default"]))


def used_tables():
    models = [model for model in apps.get_models() if model._meta.db_table not in FILLED]
    return [model._meta.db_table for model in models if model._default_manager.exists()]


@pytest.mark.parametrize("number", [0, 5000])
def test_all_rows_are_deleted_but_those_of_migrations(bob, number):
    bob.register()
    bob.submit()
    copy_task(number)
    permissions = set(Permission.objects.values_list())
    assert len(used_tables()) >= 5
    end_of_test()
    assert used_tables() == []
    assert set(Permission.objects.values_list()) == permissions


def test_rows_of_migrations_that_a_test_changed_are_made_again():
    names = set(Permission.objects.values_list("codename", flat=True))
    Permission.objects.filter(codename="view_task").delete()
    Permission.objects.filter(codename="view_job").update(codename="other")
    ContentType.objects.create(app_label="other", model="other")
    end_of_test()
    assert set(Permission.objects.values_list("codename", flat=True)) == names
    assert not ContentType.objects.filter(app_label="other").exists()


def test_rows_of_a_writer_that_a_test_left_behind_are_deleted_too():
    """Control: without the lock PostgreSQL deletes only the rows that were committed before."""
    inserted = threading.Event()

    def write():
        with transaction.atomic():
            Worker.objects.create(identity="late")
            inserted.set()
            time.sleep(0.3)
        connection.close()

    thread = threading.Thread(target=write)
    thread.start()
    assert inserted.wait(10)
    end_of_test()
    thread.join()
    assert not Worker.objects.exists()
