"""Metrics for Prometheus: what is counted, the labels, and the numbers of the database."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from datetime import timedelta
from math import inf
from pathlib import Path

import httpx
import pytest
from django.core.management import call_command
from django.db import OperationalError
from django.db.models import F
from django.test import RequestFactory
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from tests.factories import V1
from tests.runs import PAST, fail, lose, start, submit
from tests.servers import free_port, process, server, until
from zndraw_joblib.contrib.metrics import counts, database, labels, views
from zndraw_joblib.events import publisher, waiters
from zndraw_joblib.models import Job, Task
from zndraw_joblib.services import observation
from zndraw_joblib.signals import message_lost, tasks_changed, waits_changed

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).parents[2]
JOB = {"task_job": "modifiers:Rotate", "scope": "room"}


@pytest.fixture
def metrics():
    """Counts events as the app does; yields a function of the change of a sample since then."""
    counts._of_jobs.clear()
    labels._names.clear()
    counts.connect()

    def value(name, **given):
        return REGISTRY.get_sample_value(f"zndraw_joblib_{name}", given) or 0

    before = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
    }

    def since(name, **given):
        earlier = before.get((f"zndraw_joblib_{name}", tuple(sorted(given.items()))), 0)
        return value(name, **given) - earlier

    yield since
    tasks_changed.disconnect(dispatch_uid="zndraw_joblib.metrics.tasks")
    waits_changed.disconnect(dispatch_uid="zndraw_joblib.metrics.waits")
    message_lost.disconnect(dispatch_uid="zndraw_joblib.metrics.lost")


def scrape(**query):
    """The samples of the view, by name and labels."""
    response = views.metrics(RequestFactory().get("/metrics", query))
    assert response.status_code == 200
    return samples(response.content.decode())


def samples(text):
    return {
        (sample.name.removeprefix("zndraw_joblib_"), *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def fresh(monkeypatch):
    """Let each scrape read the database."""
    monkeypatch.setattr(database, "KEPT_SECONDS", 0)


def test_submits_claims_and_ends_are_counted_by_job(bob, metrics):
    bob.register()
    done, failed, cancelled = submit(bob), submit(bob), submit(bob)
    for task_id in (done, failed):
        start(bob, task_id)
    bob.report(done, "completed")
    fail(bob, failed)
    bob.report(cancelled, "cancelled")
    assert metrics("submits_total", **JOB) == 3
    assert metrics("claims_total", **JOB) == 2
    for status in ("completed", "failed", "cancelled"):
        assert metrics("ends_total", **JOB, status=status) == 1
    # A repeated report, and a refused submit, count nothing.
    bob.report(done, "completed")
    assert bob.submit(angle="x").status_code == 422
    assert metrics("ends_total", **JOB, status="completed") == 1
    assert metrics("submits_total", **JOB) == 3


def test_retries_are_counted_by_their_reason(bob, metrics):
    bob.register()
    task_id = submit(bob, retries=2)
    start(bob, task_id)
    fail(bob, task_id)
    start(bob, task_id)
    lose(bob)
    assert metrics("requeues_total", **JOB, reason="failed") == 1
    assert metrics("requeues_total", **JOB, reason="lost") == 1
    start(bob, task_id)
    lose(bob)
    assert metrics("ends_total", **JOB, status="failed") == 1


def test_delay_and_run_time_are_of_the_databases_times(bob, metrics):
    bob.register()
    task_id = submit(bob)
    Task.objects.update(created_at=F("created_at") - timedelta(seconds=50))
    attempt = start(bob, task_id)
    Task.objects.update(started_at=F("started_at") - timedelta(seconds=2000))
    bob.report(task_id, "completed", attempt=attempt)
    assert metrics("queue_delay_seconds_count", **JOB) == 1
    assert 50 <= metrics("queue_delay_seconds_sum", **JOB) < 70
    assert metrics("queue_delay_seconds_bucket", **JOB, le="30.0") == 0
    assert metrics("queue_delay_seconds_bucket", **JOB, le="100.0") == 1
    assert metrics("run_time_seconds_bucket", **JOB, le="1000.0") == 0
    assert metrics("run_time_seconds_bucket", **JOB, le="3600.0") == 1


def test_only_the_first_attempt_has_a_delay_and_a_task_that_never_ran_no_run_time(bob, metrics):
    bob.register()
    task_id = submit(bob, retries=1)
    start(bob, task_id)
    fail(bob, task_id)
    start(bob, task_id)
    bob.report(task_id, "completed")
    bob.report(submit(bob), "cancelled")
    assert metrics("queue_delay_seconds_count", **JOB) == 1
    assert metrics("run_time_seconds_count", **JOB) == 1


def test_a_delay_is_never_negative(bob, metrics):
    bob.register()
    task_id = submit(bob)
    start(bob, task_id)
    Task.objects.update(started_at=F("started_at") + timedelta(hours=1))
    bob.report(task_id, "completed")
    assert metrics("run_time_seconds_sum", **JOB) == 0


def test_labels_have_no_room_and_a_bounded_number_of_names(bob, root, metrics, settings_of):
    settings_of(metrics_max_jobs=2)
    for name in ("One", "Two", "Three"):
        bob.register(name=name)
        bob.submit(job=f"open:modifiers:{name}")
    # The same name in another room is the same label.
    bob.register(room="open2", name="One")
    bob.submit(room="open2", job="open2:modifiers:One")
    # Jobs of rooms do not use up the names of global ones.
    root.register(room="@global", name="Rotate")
    bob.submit(job="@global:modifiers:Rotate")
    assert metrics("submits_total", task_job="modifiers:One", scope="room") == 2
    assert metrics("submits_total", task_job="other", scope="room") == 1
    assert metrics("submits_total", task_job="modifiers:Rotate", scope="global") == 1
    text = views.metrics(RequestFactory().get("/metrics")).content.decode()
    assert "open" not in "".join(re.findall(r"^zndraw_joblib.*", text, re.MULTILINE))


async def test_waiters_are_counted_by_kind(metrics):
    begun, end = asyncio.Event(), asyncio.Event()

    @waiters.counted("end")
    async def wait():
        begun.set()
        await end.wait()

    waiting = asyncio.create_task(wait())
    await begun.wait()
    assert REGISTRY.get_sample_value("zndraw_joblib_waiters", {"kind": "end"}) == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert REGISTRY.get_sample_value("zndraw_joblib_waiters", {"kind": "end"}) == 0


def test_each_kind_of_wait_is_counted():
    """A new wait of the hub needs a kind."""
    source = "".join(file.read_text() for file in (ROOT / "zndraw_joblib").rglob("*.py"))
    used = re.findall(r'(?:@counted|with counting)\("(\w+)"\)', source)
    assert sorted(used) == sorted(waiters.KINDS)
    hub = (ROOT / "zndraw_joblib/events").glob("*.py")
    waits = [m for file in hub for m in re.findall(r"(.*)\n    async def wait\(", file.read_text())]
    assert all("@counted" in line for line in waits)


async def test_messages_that_are_lost_are_counted(metrics, monkeypatch):
    class Broken:
        async def group_send(self, group, message):
            raise OSError("down")

    monkeypatch.setattr(publisher, "get_channel_layer", Broken)
    one = publisher.Publisher()
    one.publish("group", "tasks.ended", ["entry"])
    await asyncio.to_thread(one.flush)
    assert metrics("publish_failures_total", reason="layer") == 1
    monkeypatch.setattr(publisher, "MAX_UNSENT", 0)
    one.publish("group", "tasks.ended", ["entry"])
    assert metrics("publish_failures_total", reason="full") == 1


@pytest.mark.usefixtures("fresh")
def test_the_database_tells_queues_held_tasks_workers_and_overdue_leases(bob, root):
    bob.register()
    root.register(room="@global", name="Rotate")
    for _ in range(3):
        submit(bob)
    bob.submit(job="@global:modifiers:Rotate")
    submit(bob, delay=1000)
    Task.objects.filter(job__room_id="open").update(created_at=F("created_at") - timedelta(hours=1))
    bob.claim()
    found = scrape()
    assert found["pending_tasks_capped", "modifiers:Rotate", "room"] == 2
    assert found["pending_tasks_capped", "global", "modifiers:Rotate"] == 1
    assert 3600 <= found["oldest_unclaimed_seconds", "modifiers:Rotate", "room"] < 3700
    assert 0 <= found["oldest_unclaimed_seconds", "global", "modifiers:Rotate"] < 100
    assert found["held_tasks_capped", "claimed"] == 1
    assert found["held_tasks_capped", "running"] == 0
    assert found["live_workers_capped",] == 2
    assert found["overdue_lease_seconds",] == 0
    assert found["database_up",] == 1
    Task.objects.filter(status="claimed").update(lease_expires_at=PAST)
    assert scrape()["overdue_lease_seconds",] > 86_400


@pytest.mark.usefixtures("fresh")
def test_counts_stop_at_their_bounds(bob, monkeypatch):
    for name in ("One", "Two", "Three"):
        bob.register(name=name)
        for _ in range(3):
            bob.submit(job=f"open:modifiers:{name}")
    monkeypatch.setattr(observation, "MAX_PENDING", 2)
    assert [queue.pending for queue in observation.queues()] == [2, 2, 2]
    monkeypatch.setattr(observation, "MAX_JOBS", 2)
    assert len(observation.queues()) == 2
    bob.claim()
    bob.claim()
    monkeypatch.setattr(observation, "MAX_COUNTED", 1)
    assert observation.held()[:2] == (1, 0)
    assert observation.live_workers() == 1


def test_a_job_without_due_tasks_has_no_queue(bob):
    bob.register()
    submit(bob, delay=1000)
    assert observation.queues() == []
    Task.objects.all().delete()
    Job.objects.all().delete()
    assert observation.queues() == []
    assert observation.held() == (0, 0, 0.0)


@pytest.mark.usefixtures("fresh")
def test_while_the_database_is_away_the_counts_are_shown_all_the_same(metrics, monkeypatch, caplog):
    def fail(*args):
        raise OperationalError("away")

    monkeypatch.setattr(observation, "queues", fail)
    found = scrape()
    assert found["database_up",] == 0
    assert ("waiters", "end") in found
    assert not any(name.startswith("pending") for name, *_ in found)
    assert "away" in caplog.text


def test_several_scrapes_share_one_read_of_the_database(django_assert_num_queries):
    collector = database.DatabaseCollector()
    first = collector.collect()
    with django_assert_num_queries(0):
        assert collector.collect() is first


def test_a_scrape_may_choose_its_metrics(metrics):
    found = scrape(**{"name[]": "zndraw_joblib_waiters"})
    assert {name for name, *_ in found} == {"waiters"}


def test_the_sweep_age_is_that_of_the_tenant_whose_sweep_is_oldest(monkeypatch, fresh):
    ages = iter([5.0, 90.0])
    monkeypatch.setattr(database, "all_tenants", lambda: [None, None])
    monkeypatch.setattr(observation, "seconds_since_sweep", lambda: next(ages))
    assert scrape()["sweep_age_seconds",] == 90


@pytest.mark.usefixtures("fresh")
def test_the_sweep_age_is_infinite_until_a_sweeper_ran():
    assert scrape()["sweep_age_seconds",] == inf
    call_command("run_sweeper", once=True)
    assert 0 <= scrape()["sweep_age_seconds",] < 60


OBSERVED = {"DJANGO_SETTINGS_MODULE": "tests.observed_site"}


def call(person, url, method, path, **body):
    headers = {"Authorization": f"Token {person.token}"}
    answer = httpx.request(method, f"{url}{V1}{path}", headers=headers, json=body, timeout=30)
    assert answer.status_code < 400, answer.text
    return answer.json()


@pytest.mark.any_database
@pytest.mark.slow
def test_a_scrape_of_any_process_has_the_numbers_of_all_also_of_killed_ones(bob, tmp_path):
    bob.register()
    shared = {**OBSERVED, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    with server(**shared) as one, server(**shared) as two:
        submitted = "/rooms/open/tasks/open:modifiers:Rotate"
        for url in (one, two, two):
            task = call(bob, url, "POST", submitted, payload={})
        waiting = httpx.Client(base_url=two, headers={"Authorization": f"Token {bob.token}"})
        with process(
            "-c",
            f"import httpx; httpx.get('{two}{V1}/tasks/{task['id']}', timeout=60,"
            f" headers={{'Authorization': 'Token {bob.token}', 'Prefer': 'wait=50'}})",
        ):
            until(lambda: metrics_of(one)["waiters", "end"] == 1)
            assert metrics_of(two)["waiters", "end"] == 1
            assert metrics_of(one)["submits_total", "modifiers:Rotate", "room"] == 3
            os.kill(two.pid, signal.SIGKILL)
            # As its supervisor does; until then the process has an entry in the system.
            os.waitpid(two.pid, 0)
            until(lambda: metrics_of(one)["waiters", "end"] == 0)
        waiting.close()
        # The counts of the killed process stay, because counters must not go back.
        found = metrics_of(one)
        assert found["submits_total", "modifiers:Rotate", "room"] == 3
        assert found["pending_tasks_capped", "modifiers:Rotate", "room"] == 3


def metrics_of(url):
    return samples(httpx.get(f"{url}/metrics").text)


@pytest.mark.any_database
@pytest.mark.slow
def test_the_sweeper_exports_the_ends_that_it_made(bob):
    bob.register()
    task_id = submit(bob)
    start(bob, task_id)
    Task.objects.update(lease_expires_at=PAST)
    port = free_port()
    command = ["-m", "django", "run_sweeper", "--interval", "0.2", "--metrics-port", str(port)]
    with process(*command, **OBSERVED):
        until(lambda: Task.objects.get().status == "failed")

        def ends():
            try:
                found = samples(httpx.get(f"http://127.0.0.1:{port}/metrics").text)
            except httpx.TransportError:
                return None
            return found.get(("ends_total", "failed", "modifiers:Rotate", "room"))

        assert until(ends) == 1


EXPORTED = re.compile(r"zndraw_joblib_[a-z_]+")


def exported():
    """The names of all samples that the app has, with those that the database adds."""
    families = [*REGISTRY.collect(), *database._gauges()]
    names: set[str] = set()
    for family in families:
        names.add(family.name)
        if family.type == "counter":
            names.add(f"{family.name}_total")
        if family.type == "histogram":
            names |= {f"{family.name}_{suffix}" for suffix in ("bucket", "sum", "count")}
    return {name for name in names if name.startswith(counts.PREFIX)}


def test_the_dashboard_and_the_alerts_name_metrics_that_exist():
    dashboard = json.loads((ROOT / "docs/deploy/grafana.json").read_text())
    named = {
        name
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
        for name in EXPORTED.findall(target["expr"])
    }
    alerts = set(EXPORTED.findall((ROOT / "docs/deploy/alerts.yml").read_text()))
    assert named | alerts <= exported()
    # Each metric has a panel.
    shown = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in named}
    assert {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in exported()} == shown


def test_the_page_names_each_metric():
    page = (ROOT / "docs/how-to/observe.md").read_text()
    base = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported()}
    counters = {name.removesuffix("_total") for name in base if name.endswith("_total")}
    assert {name for name in base - counters if f"`{name}`" not in page} == set()
