"""The logger `zndraw_joblib.tasks` follows a task by its ids."""

from __future__ import annotations

import logging

import pytest

from tests.runs import fail, lose, start, submit

pytestmark = pytest.mark.django_db(transaction=True)

LOGGER = "zndraw_joblib.tasks"


def test_each_change_of_a_task_is_a_record_with_its_ids(bob, caplog):
    caplog.set_level(logging.DEBUG, LOGGER)
    bob.register()
    task_id = submit(bob, retries=2)
    start(bob, task_id)
    fail(bob, task_id)
    start(bob, task_id)
    lose(bob)
    bob.report(task_id, "cancelled")
    records = [record for record in caplog.records if record.name == LOGGER]
    assert [(r.getMessage().split()[2], r.attempt, r.status) for r in records] == [
        ("submitted:", 0, "pending"),
        ("claimed:", 1, "claimed"),
        ("started:", 1, "running"),
        ("requeued:", 1, "pending"),
        ("claimed:", 2, "claimed"),
        ("started:", 2, "running"),
        ("requeued:", 2, "pending"),
        ("ended:", 2, "cancelled"),
    ]
    assert {(r.task_id, r.job, r.room) for r in records} == {
        (task_id, "open:modifiers:Rotate", "open")
    }
    assert records[1].worker_id == bob.identity


def test_the_records_have_no_payload_and_no_record_is_written_at_the_level_info(bob, caplog):
    caplog.set_level(logging.INFO, LOGGER)
    bob.register()
    bob.submit(angle=12345)
    assert [record for record in caplog.records if record.name == LOGGER] == []
    caplog.set_level(logging.DEBUG, LOGGER)
    bob.submit(angle=12345)
    (record,) = (record for record in caplog.records if record.name == LOGGER)
    assert "angle" not in repr(vars(record))
