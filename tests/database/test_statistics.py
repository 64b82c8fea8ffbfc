"""The sweeper's statistics: equal to a recount, whatever happens between and during its passes."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from django.db import DatabaseError, connection, connections, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from hypothesis import given, strategies as st
from hypothesis.extra.django import TestCase

from tests.histories import ENDED, count_at_once, make_job, make_task
from zndraw_joblib.models import (
    FailedTask,
    FailureGroup,
    JobGauge,
    JobInterval,
    StatisticsState,
    SweeperPass,
    Task,
)
from zndraw_joblib.services import statistics
from zndraw_joblib.services.sweep import sweep_tenants
from zndraw_joblib.storage import statements
from zndraw_joblib.storage.clock import database_time
from zndraw_joblib.storage.intervals import ALL_JOBS, LENGTHS, floor_time
from zndraw_joblib.storage.statements import Result

pytestmark = pytest.mark.django_db

#: A time of the monotonic clock that no test reaches.
FAR = float("inf")


def recount(seconds, since):
    """The numbers by job and interval, counted from the tasks themselves."""
    found: dict[tuple[object, datetime], Counter[str]] = {}

    def add(task, moment, **numbers):
        if moment >= since:
            for job_id in (task.job_id, ALL_JOBS):
                key = job_id, floor_time(moment, seconds)
                found.setdefault(key, Counter()).update(numbers)

    for task in Task.objects.all():
        add(task, task.created_at, submitted=1)
        if task.status in ENDED:
            numbers = {task.status: 1, "attempts": task.attempt}
            numbers["delays"] = int(task.claimed_at is not None)
            numbers["run_times"] = int(task.started_at is not None)
            add(task, task.completed_at, **numbers)
    return {key: {k: n for k, n in numbers.items() if n} for key, numbers in found.items()}


def counted(seconds):
    found = {}
    for row in JobInterval.objects.filter(seconds=seconds):
        numbers = {
            name: getattr(row, name)
            for name in ("submitted", "completed", "failed", "cancelled", "attempts")
        }
        numbers["delays"] = sum(row.delays.values())
        numbers["run_times"] = sum(row.run_times.values())
        if kept := {name: n for name, n in numbers.items() if n}:
            found[row.job_id, row.begins_at] = kept
    return found


def check_recount():
    state = StatisticsState.objects.get()
    for seconds in LENGTHS:
        oldest = database_time("default") - statistics.KEPT.get(seconds, timedelta(days=30))
        expected = {
            key: numbers
            for key, numbers in recount(seconds, state.since).items()
            if key[1] >= oldest - timedelta(seconds=seconds)
        }
        assert counted(seconds) == expected


@pytest.fixture(autouse=True)
def no_margin(monkeypatch):
    count_at_once(monkeypatch)


tasks = st.fixed_dictionaries(
    {
        "status": st.sampled_from(ENDED),
        "ago": st.one_of(st.floats(1, 100_000), st.just(30.0)),
        "waited": st.floats(0, 10_000),
        "ran": st.floats(0, 10_000),
        "attempt": st.integers(1, 4),
    }
)


class RandomHistories(TestCase):
    """Hypothesis with a transaction for each case."""

    @given(batches=st.lists(st.lists(tasks, max_size=8), max_size=4), chunk=st.integers(1, 5))
    def test_numbers_equal_a_recount_over_random_histories(self, batches, chunk):
        with pytest.MonkeyPatch.context() as patch:
            count_at_once(patch)
            patch.setattr(statistics, "CHUNK", chunk)
            jobs = [make_job(), make_job()]
            for batch in batches:
                for index, values in enumerate(batch):
                    make_task(jobs[index % 2], **values)
            statistics.collect(until=FAR)
            check_recount()
            statistics.collect(until=FAR)
            check_recount()


def test_each_pass_counts_only_what_happened_since_the_one_before():
    job = make_job()
    for _ in range(3):
        make_task(job, ago=0, waited=0, ran=0)
        time.sleep(0.002)  # The clock of SQLite has milliseconds.
        statistics.collect()
    check_recount()
    total = JobInterval.objects.filter(seconds=LENGTHS[-1], job_id=ALL_JOBS)
    assert sum(row.completed for row in total) == 3


def test_tasks_that_ended_at_the_same_moment_fit_no_chunk_and_count_once(monkeypatch):
    monkeypatch.setattr(statistics, "CHUNK", 2)
    job = make_job()
    moment = database_time("default") - timedelta(seconds=5)
    for _ in range(9):
        make_task(job, completed_at=moment)
    make_task(job, ago=1)
    statistics.collect(until=FAR)
    check_recount()


def test_a_pass_ends_at_its_time_and_the_next_one_goes_on(monkeypatch):
    monkeypatch.setattr(statistics, "CHUNK", 1)
    job = make_job()
    for ago in range(5):
        make_task(job, ago=ago + 1)
    statistics.collect(until=0)
    assert sum(row.completed for row in JobInterval.objects.filter(seconds=300)) == 2  # With sums.
    statistics.collect(until=FAR)
    check_recount()


def test_history_from_before_the_first_pass_is_counted_for_a_day():
    job = make_job()
    make_task(job, ago=3 * 86_400)
    make_task(job, ago=3_600)
    statistics.collect()
    total = JobInterval.objects.filter(seconds=LENGTHS[-1], job_id=ALL_JOBS)
    assert sum(row.completed for row in total) == 1


def test_a_crash_in_a_pass_leaves_nothing_that_the_next_one_repeats(monkeypatch):
    job = make_job()
    make_task(job, "failed", error="no")

    def crash(*args, **kwargs):
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(StatisticsState, "save", crash)
        with pytest.raises(RuntimeError):
            statistics.collect()
    assert not JobInterval.objects.exists()
    assert not FailedTask.objects.exists()
    statistics.collect()
    check_recount()
    assert FailureGroup.objects.get().count == 1


def count_at(monkeypatch, now):
    """Count as if it were this time."""
    with monkeypatch.context() as patch:
        patch.setattr(
            statements, "run", lambda using, name, **_: Result(("now", "horizon"), [(now, now)])
        )
        statistics._count_chunk("default")


@pytest.mark.parametrize("seconds", [30, 1_800, 20_000])
def test_after_the_clock_went_back_each_task_counts_once(seconds, monkeypatch):
    """Without the recount, tasks whose times come again counted twice or never."""
    job = make_job()
    back = timedelta(seconds=seconds)
    ahead = database_time("default") + back
    statistics.collect()
    # As passes before the clock went back have left it.
    for ago in (1, 200, 3_000):
        moment = ahead - timedelta(seconds=ago)
        make_task(job, completed_at=moment)
    state = StatisticsState.objects.get()
    count_at(monkeypatch, ahead)
    state.refresh_from_db()
    assert state.ended_until == ahead
    make_task(job, ago=0.5)
    statistics.collect()
    # Tasks that ended ahead of the clock count when it has caught up.
    count_at(monkeypatch, ahead + timedelta(seconds=1))
    check_recount()


@pytest.mark.django_db(transaction=True)
def test_two_sweepers_at_once_count_each_task_once(monkeypatch):
    monkeypatch.setattr(statistics, "CHUNK", 3)
    job = make_job()
    for ago in range(30):
        make_task(job, ago=ago + 1)
    barrier = threading.Barrier(3)
    errors = []

    def run():
        try:
            barrier.wait()
            statistics.collect(until=FAR)
        except Exception as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    statistics.collect(until=FAR)
    check_recount()


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has one writer at a time")
@pytest.mark.django_db(transaction=True)
def test_an_end_that_commits_late_is_counted():
    """Without the look at locks the second pass has gone beyond the end's time."""
    job = make_job()
    task = make_task(job, "running", ago=50)
    ended, commit, done = threading.Event(), threading.Event(), threading.Event()

    def finish():
        with transaction.atomic():
            Task.objects.filter(pk=task.pk).update(
                status="completed", completed_at=database_time("default")
            )
            ended.set()
            commit.wait(20)
        connections.close_all()
        done.set()

    thread = threading.Thread(target=finish)
    thread.start()
    ended.wait(20)
    statistics.collect()
    statistics.collect()
    assert not any(row.completed for row in JobInterval.objects.all())
    commit.set()
    done.wait(20)
    thread.join()
    statistics.collect()
    assert sum(row.completed for row in JobInterval.objects.filter(seconds=300)) == 2


def test_the_backlog_is_counted_by_job_and_the_oldest_due_task_is_known():
    first, second = make_job(), make_job()
    oldest = make_task(first, "pending", ago=500)
    make_task(first, "pending", ago=20)
    make_task(first, "pending", run_at=database_time("default") + timedelta(hours=1))
    make_task(second, "running", lease_expires_at=datetime(2100, 1, 1, tzinfo=UTC))
    make_task(second, "claimed", lease_expires_at=datetime(2100, 1, 1, tzinfo=UTC))
    statistics.collect()
    of_first, of_second = JobGauge.objects.get(pk=first.pk), JobGauge.objects.get(pk=second.pk)
    assert (of_first.pending, of_first.scheduled, of_first.oldest_due_at) == (2, 1, oldest.due_at)
    assert (of_second.claimed, of_second.running, of_second.oldest_due_at) == (1, 1, None)
    total = JobInterval.objects.get(seconds=300, job_id=ALL_JOBS, pending__isnull=False)
    assert (total.pending, total.running) == (2, 2)
    Task.objects.all().delete()
    statistics.collect()
    assert not JobGauge.objects.exists()


def test_a_slow_count_of_the_backlog_is_not_repeated_at_each_pass(monkeypatch):
    monkeypatch.setattr(statistics, "SAMPLE_SHARE", 0.02)
    statistics.collect()
    StatisticsState.objects.update(sample_seconds=1.0)
    make_task(make_job(), "pending")
    statistics.collect()
    assert not JobGauge.objects.exists()
    before = database_time("default") - timedelta(seconds=1 / statistics.SAMPLE_SHARE)
    StatisticsState.objects.update(sampled_at=before)
    statistics.collect()
    assert JobGauge.objects.exists()


def test_old_intervals_and_failures_are_deleted(settings_of):
    job = make_job()
    make_task(job, "failed", ago=10, error="no")
    statistics.collect()
    old = database_time("default") - timedelta(days=31)
    JobInterval.objects.update(begins_at=F("begins_at") - timedelta(days=32))
    FailureGroup.objects.update(last_at=old)
    statistics.collect()
    assert not JobInterval.objects.exclude(begins_at__gt=old).exists()
    assert not FailureGroup.objects.exists()
    assert not FailedTask.objects.exists()


def test_a_pass_of_the_sweeper_keeps_the_statistics_before_it_prunes(settings_of):
    settings_of(prune_after_days=0.0001)
    make_task(make_job(), ago=60)
    sweep_tenants()
    assert not Task.objects.exists()
    assert sum(row.completed for row in JobInterval.objects.filter(job_id=ALL_JOBS, seconds=300))
    last = SweeperPass.objects.get()
    assert last.numbers["pruned"] == 1
    assert last.seconds > 0


def test_the_sweep_goes_on_when_the_statistics_fail(monkeypatch, caplog):
    def fail(**kwargs):
        raise DatabaseError("broken")

    monkeypatch.setattr(statistics, "collect", fail)
    sweep_tenants()
    assert "could not keep the statistics" in caplog.text
    assert SweeperPass.objects.exists()


def test_a_pass_without_work_has_the_same_queries_whatever_the_number_of_tasks():
    job = make_job()
    statistics.collect()
    with CaptureQueriesContext(connection) as few:
        statistics.collect()
    for ago in range(20):
        make_task(job, ago=ago + 10)
    statistics.collect()
    with CaptureQueriesContext(connection) as many:
        statistics.collect()
    assert len(many) <= len(few)


@pytest.mark.parametrize(
    ("number", "indexes"),
    [
        (0, ["joblib_task_ended"]),
        (1, ["task_pkey", "autoindex"]),
        (2, ["joblib_task_claim"]),
        # Both contain the claimed and the running tasks alone.
        (3, ["joblib_task_lease", "joblib_task_worker"]),
    ],
    ids=["ends", "submits", "backlogs", "held"],
)
def test_a_pass_reads_tasks_by_an_index(number, indexes):
    make_task(make_job())
    with CaptureQueriesContext(connection) as queries:
        statistics.collect()
    texts = [query["sql"] for query in queries]
    of_tasks = [sql for sql in texts if re.search(r'FROM "?zndraw_joblib_task"?\s', sql)]
    ends, submits = of_tasks[:3], of_tasks[3:4]
    backlogs, held = of_tasks[4:]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")
        for sql in (ends, submits, [backlogs], [held])[number]:
            explain = "EXPLAIN " if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN "
            cursor.execute(explain + sql)
            plan = str(cursor.fetchall())
            assert any(index in plan for index in indexes), plan
            assert "Seq Scan" not in plan
