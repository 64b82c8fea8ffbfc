"""Full task cycles a second over HTTP: submit, claim, running, completed.

``make bench`` starts the example project on a fresh SQLite database; ``--url`` and ``--token``
aim at a server that runs already. ``QUICK=1`` measures for 3 s instead of 15.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

import httpx

ROOT = Path(__file__).parents[1]
JOB = "bench:analysis:Cycle"


def cycles(url: str, token: str, connections: int, seconds: float) -> tuple[float, float]:
    """Cycles a second over so many connections, and the median of one cycle in ms."""
    spans: list[list[float]] = [[] for _ in range(connections)]
    end = time.monotonic() + seconds

    def run(mine: list[float]) -> None:
        headers = {"Authorization": f"Token {token}"}
        with httpx.Client(base_url=f"{url}/v1/joblib", headers=headers, timeout=60) as http:
            worker = http.post("/workers").json()["id"]
            body = {"category": "analysis", "name": "Cycle", "schema": {}, "worker_id": worker}
            http.put("/rooms/bench/jobs", json=body).raise_for_status()
            while (begun := time.monotonic()) < end:
                http.post(f"/rooms/bench/tasks/{JOB}", json={"payload": {}}).raise_for_status()
                task = http.post("/tasks/claim", json={"worker_id": worker}).json()["task"]
                for status in ("running", "completed"):
                    report = {"status": status, "attempt": task["attempt"]}
                    http.patch(f"/tasks/{task['id']}", json=report).raise_for_status()
                mine.append(time.monotonic() - begun)

    threads = [threading.Thread(target=run, args=(mine,)) for mine in spans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = [span for mine in spans for span in mine]
    return len(everything) / seconds, 1000 * median(everything)


def embedded(folder: str) -> tuple[subprocess.Popen[bytes], str, str]:
    """A server of the example project on a fresh database, its address and a token."""
    env = {**os.environ, "DATA_DIR": folder, "PYTHONPATH": str(ROOT)}
    manage = [sys.executable, str(ROOT / "manage.py")]
    subprocess.run([*manage, "migrate", "-v0"], env=env, check=True)
    code = (
        "from django.contrib.auth import get_user_model as m;"
        "from rest_framework.authtoken.models import Token;"
        "print(Token.objects.create(user=m().objects.create(username='bench')).key)"
    )
    made = subprocess.run(
        [*manage, "shell", "-v0", "-c", code], env=env, check=True, capture_output=True, text=True
    )
    port = os.environ.get("PORT", "8765")
    command = ["-m", "uvicorn", "example_project.asgi:application", "--port", port]
    child = subprocess.Popen([sys.executable, *command, "--log-level", "warning"], env=env)
    url = f"http://127.0.0.1:{port}"
    for _ in range(200):
        try:
            httpx.get(url)
            break
        except httpx.TransportError:
            time.sleep(0.1)
    return child, url, made.stdout.strip()


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url")
    parser.add_argument("--token")
    options = parser.parse_args()
    seconds = 3.0 if os.environ.get("QUICK") else 15.0
    with tempfile.TemporaryDirectory() as folder:
        child = None
        url, token = options.url, options.token
        if not url:
            child, url, token = embedded(folder)
        try:
            print("| connections | cycles/s | median cycle, ms |\n|---|---|---|")
            for connections in (1, 8):
                rate, middle = cycles(url, token, connections, seconds)
                print(f"| {connections} | {rate:.0f} | {middle:.1f} |", flush=True)
        finally:
            if child:
                child.terminate()
                child.wait()


if __name__ == "__main__":
    main()
