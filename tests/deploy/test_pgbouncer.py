"""The job server behind pgbouncer in transaction mode, configured by docs/deploy."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest
from django.db import connection

from example_project import settings as example
from tests.deploy.programs import FILES, program
from tests.deploy.site import listens
from tests.factories import ROTATE, SCHEMA, V1
from tests.servers import free_port, process, server, until
from zndraw_joblib.models import Task, Worker

pytestmark = [pytest.mark.deploy, pytest.mark.django_db(transaction=True)]

LONG = 20
#: Connections from pgbouncer to PostgreSQL; fewer than there are clients.
POOL = 4
SUBMIT = f"{V1}/rooms/open/tasks/open:{ROTATE}"
CLAIM = f"{V1}/tasks/claim"


def unprivileged(host):
    """The user to run pgbouncer as, because it refuses root; None when the tests are not root.

    It is the owner of the folder of PostgreSQL's socket, where `host` is one.
    """
    if os.geteuid():
        return None
    return Path(host).stat().st_uid if host.startswith("/") else "nobody"


@contextmanager
def pgbouncer():
    """Run the system's pgbouncer with the shipped file; yields the URL of the test database."""
    binary = program("pgbouncer", "pgbouncer")
    port = free_port()
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_database(), current_user")
        name, user = cursor.fetchone()
    params = connection.get_connection_params()
    target = {"dbname": name, "user": user}
    target |= {key: params[key] for key in ("host", "port", "password") if params.get(key)}
    shipped = (FILES / "pgbouncer.ini").read_text()
    replacements = {
        "host=127.0.0.1 port=5432 dbname=joblib": " ".join(f"{k}={v}" for k, v in target.items()),
        "listen_port = 6432": f"listen_port = {port}",
        # Without a user list, because PostgreSQL itself authenticates the connections.
        "auth_type = scram-sha-256\nauth_file = /etc/pgbouncer/userlist.txt": "auth_type = any\n"
        f"stats_users = {user}",
        "default_pool_size = 16": f"default_pool_size = {POOL}",
        "logfile = /var/log/postgresql/pgbouncer.log\n": "",
        "pidfile = /var/run/postgresql/pgbouncer.pid\n": "",
    }
    for old, new in replacements.items():
        assert shipped.count(old) == 1, old
        shipped = shipped.replace(old, new)
    shipped = re.sub(r"^joblib = ", f"{name} = ", shipped, flags=re.M)
    with tempfile.TemporaryDirectory(prefix="joblib-pgbouncer-") as folder:
        Path(folder).chmod(0o755)
        config = Path(folder) / "pgbouncer.ini"
        config.write_text(shipped)
        with (Path(folder) / "log").open("w+") as log:
            child = subprocess.Popen(
                [binary, str(config)],
                user=unprivileged(str(target.get("host", ""))),
                stderr=log,
                cwd="/",
            )
            try:
                until(lambda: child.poll() is not None or listens(port), 10)
                assert child.poll() is None, Path(log.name).read_text()
                yield f"postgres://{user}@127.0.0.1:{port}/{name}"
            finally:
                child.terminate()
                child.wait(10)


@pytest.fixture(scope="module")
def pooled(postgres, django_db_blocker):
    """URL of the test database behind pgbouncer."""
    with django_db_blocker.unblock(), pgbouncer() as url:
        yield url


@pytest.fixture(scope="module")
def settings_of_servers(pooled):
    return {"DATABASE_URL": pooled, "TRANSACTION_POOLING": "1"}


@pytest.fixture(scope="module")
def url(settings_of_servers, django_db_blocker):
    with django_db_blocker.unblock(), server(**settings_of_servers) as running:
        yield running


def as_person(person, url):
    headers = {"Authorization": f"Token {person.token}"}
    return httpx.Client(base_url=url, headers=headers, timeout=LONG + 10)


@pytest.fixture
def bobs(bob, url):
    with as_person(bob, url) as client:
        yield client


def console(pooled, query):
    """Rows of a query of pgbouncer's console."""
    address = f"{pooled.rpartition('/')[0]}/pgbouncer"
    # The console supports neither the extended protocol nor transactions.
    factory = psycopg.ClientCursor
    with psycopg.connect(
        address, autocommit=True, cursor_factory=factory, row_factory=psycopg.rows.dict_row
    ) as client:
        return client.execute(query).fetchall()


def test_every_request_of_a_tasks_life_works_behind_pgbouncer(bobs, bob, settings_of_servers):
    worker = bobs.post(f"{V1}/workers").json()["id"]
    body = {"category": "modifiers", "name": "Rotate", "schema": SCHEMA, "worker_id": worker}
    for code in (201, 200):
        assert bobs.put(f"{V1}/rooms/open/jobs", json=body).status_code == code
    with ThreadPoolExecutor(2) as pool:
        claiming = pool.submit(
            bobs.post, CLAIM, json={"worker_id": worker}, headers={"Prefer": "wait=5"}
        )
        time.sleep(0.3)
        assert not claiming.done()
        key = {"Idempotency-Key": '"once"'}
        submitted = [
            bobs.post(SUBMIT, json={"payload": {"angle": 1}}, headers=key) for _ in range(2)
        ]
        assert [answer.status_code for answer in submitted] == [202, 202]
        assert submitted[0].json()["id"] == submitted[1].json()["id"]
        task = claiming.result().json()["task"]
        assert claiming.result().headers["Preference-Applied"] == "wait=5"
        assert task["id"] == submitted[0].json()["id"]
        path = f"{V1}/tasks/{task['id']}"
        assert bobs.patch(path, json={"status": "running", "attempt": 1}).status_code == 200
        grants = [{"id": task["id"], "attempt": 1}]
        heartbeat = bobs.patch(f"{V1}/workers/{worker}", json={"tasks": grants})
        assert heartbeat.status_code == 200
        assert heartbeat.json()["lost"] == heartbeat.json()["cancelled"] == []
        waiting = pool.submit(bobs.get, path, headers={"Prefer": f"wait={LONG}"})
        time.sleep(0.3)
        assert not waiting.done()
        done = {"status": "completed", "attempt": 1}
        assert [bobs.patch(path, json=done).status_code for _ in range(2)] == [200, 200]
        assert waiting.result().json()["status"] == "completed"
    for listed in ("rooms/open/tasks", "rooms/open/jobs", "workers", "rooms/open/workers"):
        answer = bobs.get(f"{V1}/{listed}")
        assert answer.status_code == 200
        assert len(answer.json()) == 1

    # A sweep ends the task of a dead worker, removes the worker and retires the job.
    task_id = bobs.post(SUBMIT, json={"payload": {}}).json()["id"]
    bobs.post(CLAIM, json={"worker_id": worker})
    bobs.patch(f"{V1}/tasks/{task_id}", json={"status": "running", "attempt": 1})
    Task.objects.filter(pk=task_id).update(lease_expires_at="2020-01-01T00:00:00Z")
    Worker.objects.update(last_heartbeat="2020-01-01T00:00:00Z")
    with process("manage.py", "run_sweeper", "--once", **settings_of_servers) as sweeper:
        assert sweeper.wait(30) == 0, sweeper.log.read_text()
        line = "sweep requeued=0 retried=0 failed=1 workers=1 jobs=1"
        assert line in sweeper.log.read_text()
    assert bobs.get(f"{V1}/tasks/{task_id}").json()["status"] == "failed"
    assert bobs.get(f"{V1}/rooms/open/jobs").json() == []

    # The default worker is created by a registration and deleted.
    bob.register()
    assert bobs.delete(f"{V1}/workers/{bob.identity}").status_code == 204
    assert not Worker.objects.exists()


def test_many_clients_share_a_few_connections_and_no_task_is_granted_twice(
    bob, pooled, url, settings_of_servers
):
    bob.register()
    total, granted, pools = 60, Counter(), []
    with ExitStack() as stack:
        urls = [url, stack.enter_context(server(**settings_of_servers))]
        clients = [stack.enter_context(as_person(bob, urls[n % 2])) for n in range(8)]
        ended = threading.Event()

        def submit_all(client):
            # Two clients send the same keys at the same time.
            for number in range(total):
                key = {"Idempotency-Key": f'"{number}"'}
                answer = client.post(SUBMIT, json={"payload": {}}, headers=key)
                assert answer.status_code == 202, answer.text

        def work(client):
            while not ended.is_set():
                answer = client.post(CLAIM, json={}, headers={"Prefer": "wait=1"})
                assert answer.status_code == 200, answer.text
                task = answer.json()["task"]
                if task is None:
                    continue
                granted[task["id"], task["attempt"]] += 1
                for status in ("running", "completed"):
                    report = {"status": status, "attempt": task["attempt"]}
                    answer = client.patch(f"{V1}/tasks/{task['id']}", json=report)
                    assert answer.status_code == 200, answer.text

        with ThreadPoolExecutor(8) as pool:
            submitting = [pool.submit(submit_all, client) for client in clients[:2]]
            working = [pool.submit(work, client) for client in clients[2:]]
            try:
                for future in submitting:
                    future.result(3 * LONG)
                pools.extend(console(pooled, "SHOW POOLS"))
                until(lambda: Task.objects.filter(status="completed").count() == total, LONG)
            finally:
                ended.set()
            for future in working:
                future.result(3 * LONG)
    assert Task.objects.count() == len(granted) == total
    assert set(granted.values()) == {1}
    row = next(row for row in pools if row["database"] == connection.settings_dict["NAME"])
    assert row["pool_mode"] == "transaction"
    servers = sum(int(row[name]) for name in row if name.startswith("sv_"))
    assert servers <= POOL < int(row["cl_active"]) + int(row["cl_waiting"])


def test_the_admin_works_behind_pgbouncer(root, url):
    root.register()
    root.submit()
    root.user.set_password("secret")
    root.user.save()
    with httpx.Client(base_url=url, follow_redirects=True) as browser:
        browser.get("/admin/login/")
        token = browser.cookies["csrftoken"]
        login = {"username": "root", "password": "secret", "csrfmiddlewaretoken": token}
        assert browser.post("/admin/login/?next=/admin/", data=login).status_code == 200
        for model in ("zndraw_joblib/task", "zndraw_joblib/worker", "accounts/user"):
            answer = browser.get(f"/admin/{model}/")
            assert answer.status_code == 200
            assert "Log out" in answer.text


# -- settings for transaction mode


def test_pgbouncer_sets_the_startup_options_of_the_site(pooled):
    options = example.database("postgres://x/y")["OPTIONS"]["options"]
    expected = dict(re.findall(r"-c (\w+)=(\S+)", options))
    assert len(expected) == 4
    with psycopg.connect(pooled, autocommit=True) as client:
        for name, value in expected.items():
            assert client.execute(f"SHOW {name}").fetchone() == (value,)


def test_transaction_pooling_leaves_out_startup_options_and_server_side_cursors(monkeypatch):
    direct = example.database("postgres://x/y")
    assert "statement_timeout" in direct["OPTIONS"]["options"]
    assert not direct["DISABLE_SERVER_SIDE_CURSORS"]
    monkeypatch.setattr(example, "TRANSACTION_POOLING", True)
    pooled = example.database("postgres://x/y")
    assert "options" not in pooled["OPTIONS"]
    assert pooled["OPTIONS"]["pool"]
    assert pooled["DISABLE_SERVER_SIDE_CURSORS"]


def test_startup_options_and_prepared_statements_would_fail(pooled):
    """Control: pgbouncer refuses the startup options and breaks prepared statements."""
    with pytest.raises(psycopg.OperationalError, match="unsupported startup parameter"):
        psycopg.connect(pooled, options="-c statement_timeout=30s")
    with ExitStack() as stack:
        clients = [
            stack.enter_context(psycopg.connect(pooled, autocommit=True, prepare_threshold=0))
            for _ in range(2)
        ]
        # Both clients share a connection, and the second does not know the first one's statement.
        clients[0].execute("SELECT 1")
        with pytest.raises(psycopg.errors.DuplicatePreparedStatement):
            clients[1].execute("SELECT 1")


def test_the_system_checks_report_only_the_expected_warnings(settings_of_servers):
    extra = {
        **settings_of_servers,
        "BEHIND_TLS_PROXY": "1",
        "SECRET_KEY": "k" * 25 + "abcdefghijklmnopqrstuvwxyz",
    }
    with process("manage.py", "check", "--deploy", **extra) as check:
        assert check.wait(30) == 0, check.log.read_text()
        reported = set(re.findall(r"\w+\.[WE]\d{3}", check.log.read_text()))
    # The proxy does HSTS and the redirect to TLS; the example site restricts no rooms.
    assert reported == {"security.W004", "security.W008", "zndraw_joblib.W004"}


def test_the_monitoring_queries_of_the_docs_run(bob, pooled):
    bob.register()
    bob.submit()
    text = (FILES.parent / "how-to" / "deploy.md").read_text()
    queries = re.findall(r"```sql\n(.*?)```", text, re.S)
    with psycopg.connect(pooled, autocommit=True) as client:
        answers = [client.execute(query).fetchall() for query in queries]
    assert [row[:4] for row in answers[0]] == [("open", "modifiers", "Rotate", 1)]
    assert answers[1] == [(0,)]
    assert "zndraw_joblib_task" in {row[0] for row in answers[3]}
