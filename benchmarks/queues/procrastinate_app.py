"""procrastinate on PostgreSQL, in an environment of its own.

``procrastinate_app.py worker`` makes the tables and serves, ``procrastinate_app.py N`` submits N
tasks and prints the seconds until the last has ended; it has no results. DATABASE_URL is the
database.
"""

from __future__ import annotations

import json
import os
import sys
import time

import procrastinate
import psycopg

URL = os.environ["DATABASE_URL"]
#: Seconds between two counts of the tasks that have ended.
INTERVAL = 0.05
#: Statuses of tasks that have not ended.
UNFINISHED = "SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=URL))
sync_app = app.with_connector(app.connector.get_sync_connector())


@app.task(name="noop")
def noop(number: int) -> int:
    return number


def work() -> None:
    with sync_app.open():
        sync_app.schema_manager.apply_schema()
    app.run_worker(concurrency=4)


def main() -> None:
    count = int(sys.argv[1])
    with sync_app.open(), psycopg.connect(URL, autocommit=True) as connection:
        begun, cpu = time.perf_counter(), time.process_time()
        with app.replace_connector(sync_app.connector):
            noop.batch_defer(*({"number": number} for number in range(count)))
        while connection.execute(UNFINISHED).fetchone() != (0,):
            time.sleep(INTERVAL)
        seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "cpu": time.process_time() - cpu}))


if __name__ == "__main__":
    work() if sys.argv[1] == "worker" else main()
