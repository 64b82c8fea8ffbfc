"""``make demo``: a server, a sweeper and a worker, and real work through the SDK.

From the environment: PORT (8000), ONCE (1 ends when the results are there), DATA_DIR (.demo).
Exit code 0 when all results came, 1 otherwise.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, NoReturn

import django
import httpx

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")
HOST = "127.0.0.1"
READY_SECONDS = 30
RESULT_SECONDS = 60


class DemoFailed(Exception):
    """The demo cannot go on; the message has the reason and the remedy."""


def main() -> int:
    """Run the demo; returns the exit code."""
    # SIGINT too, because a shell ignores it for background commands.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    port = int(os.environ.get("PORT") or 8000)
    try:
        with ExitStack() as stack:
            return demo(stack, port, once=os.environ.get("ONCE", "") not in {"", "0"})
    except DemoFailed as error:
        print(f"The demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.")
        return 0


def demo(stack: ExitStack, port: int, *, once: bool) -> int:
    """Set up the database, start the processes, submit tasks and print the results."""
    require_free(port)
    django.setup()
    from django.conf import settings
    from django.core.management import call_command

    data = Path(settings.DATA_DIR)
    call_command("migrate", verbosity=0)
    password, token = login(data)
    url = f"http://{HOST}:{port}"
    python = [sys.executable, "-m"]
    children = {
        "server": [
            *python,
            "uvicorn",
            "example_project.asgi:application",
            *("--host", HOST, "--port", str(port), "--timeout-graceful-shutdown", "5"),
            # Because there is no proxy, and uvicorn trusts the headers of any local client.
            "--no-proxy-headers",
            # Because the log would have the key of the link that signs in.
            "--no-access-log",
        ],
        "sweeper": [*python, "django", "run_sweeper"],
    }
    key = secrets.token_urlsafe(16)
    running = {
        name: start(stack, data, name, command, {"DEMO_KEY": key})
        for name, command in children.items()
    }
    wait_until_ready(url, running)
    worker = [*python, "example_project.demo.worker"]
    running["worker"] = start(
        stack, data, "worker", worker, {"JOBLIB_URL": url, "JOBLIB_TOKEN": token}
    )
    print(f"Server, sweeper and worker are running at {url}; their logs are in {data}.")
    ok = submit_and_show(url, token, running)
    if once:
        return 0 if ok else 1
    print(f"\nOpen    {url}/demo/{key}/   (signs you in)\nAdmin   {url}/admin/")
    print(f"API     {url}/api/docs\nLogin   demo / {password}\nToken   {token}")
    print("Ctrl-C ends it.", flush=True)
    while True:
        time.sleep(1)
        require_alive(running)


def login(data: Path) -> tuple[str, str]:
    """Make the demo user, an administrator; returns its password and token."""
    from django.contrib.auth import get_user_model
    from rest_framework.authtoken.models import Token

    path = data / "password"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(9))
    password = path.read_text()
    user, _ = get_user_model().objects.get_or_create(
        username="demo", defaults={"is_staff": True, "is_superuser": True}
    )
    user.set_password(password)
    user.save()
    return password, Token.objects.get_or_create(user=user)[0].key


def start(
    stack: ExitStack,
    data: Path,
    name: str,
    command: list[str],
    environment: dict[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child that ends with the demo; its output goes to a log in the data folder."""
    log: IO[bytes] = stack.enter_context((data / f"{name}.log").open("wb"))
    child = subprocess.Popen(
        command,
        stdout=log,
        stderr=log,
        env={**os.environ, **(environment or {})},
        # In a session of its own, because Ctrl-C must reach only the demo, which ends its children.
        start_new_session=True,
    )
    stack.callback(end, child)
    return child


def end(child: subprocess.Popen[bytes]) -> None:
    """Terminate a child; kill it after 10 seconds."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def require_free(port: int) -> None:
    """Raise `DemoFailed` if another process listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise DemoFailed(
                f"port {port} cannot be used ({error}); try `make demo PORT={port + 1}`"
            ) from error


def require_alive(running: dict[str, subprocess.Popen[bytes]]) -> None:
    """Raise `DemoFailed` if a child has ended."""
    for name, child in running.items():
        if child.poll() is not None:
            raise DemoFailed(f"the {name} ended with code {child.returncode}; see its log")


def wait_until_ready(url: str, running: dict[str, subprocess.Popen[bytes]]) -> None:
    """Wait until the server answers, up to `READY_SECONDS`."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        require_alive(running)
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise DemoFailed(f"the server did not answer within {READY_SECONDS} s; see its log")


def submit_and_show(url: str, token: str, running: dict[str, subprocess.Popen[bytes]]) -> bool:
    """Submit tasks, show their progress and their results; returns whether all succeeded."""
    from example_project.demo.jobs import (
        TRAJECTORY,
        DistanceHistogram,
        Rotate,
        SelectWithin,
        Simulate,
    )
    from example_project.rooms.views import DEMO_ROOM
    from zndraw_joblib.client import Api, JobManager, TaskFailed, TaskHandle, TaskWaitTimeout

    with Api(url, token=token) as api:
        manager = JobManager(api)
        wait_for_worker(api, DEMO_ROOM, running)
        simulation = manager.send(Simulate(frames=60), room=DEMO_ROOM)
        try:
            print(f"\n{simulation.id}: a trajectory of argon atoms")
            frames = simulation.result(timeout=RESULT_SECONDS, progress=True)
        except (TaskFailed, TaskWaitTimeout) as error:
            print(f"No trajectory: {error}")
            return False
        size = len(simulation.download(TRAJECTORY))
        print(f"@global:modifiers:Simulate completed\n  {frames} frames, {size:,} bytes")
        print("  log: " + simulation.log().splitlines()[-1])
        work: list[Rotate | SelectWithin | DistanceHistogram] = [
            Rotate(trajectory=simulation.id, angle=30, axis="z"),
            SelectWithin(trajectory=simulation.id, centre=0, distance=6.0),
            DistanceHistogram(trajectory=simulation.id, bins=12, longest=24.0),
        ]
        handles: list[TaskHandle] = [manager.send(job, room=DEMO_ROOM) for job in work]
        ok = True
        for job, handle in zip(work, handles, strict=True):
            name = f"@global:{job.category}:{type(job).__name__}"
            try:
                result = handle.result(timeout=RESULT_SECONDS, progress=True)
            except (TaskFailed, TaskWaitTimeout) as error:
                print(f"{name}: {error}")
                ok = False
            else:
                print(f"{name} completed")
                show(job, result)
    return ok


def wait_for_worker(api: Any, room: str, running: dict[str, subprocess.Popen[bytes]]) -> None:
    """Wait until the worker has registered its jobs, up to `READY_SECONDS`."""
    from example_project.demo.jobs import JOBS

    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        require_alive(running)
        answer = api.http.get(
            f"{api.base_url}/v1/joblib/rooms/{room}/jobs", headers=api.get_headers()
        )
        offered = {job["name"] for job in answer.raise_for_status().json() if job["worker_count"]}
        if offered >= {job.__name__ for job in JOBS}:
            return
        time.sleep(0.1)
    raise DemoFailed("the worker registered no jobs; see its log")


def show(job: object, result: Any) -> None:
    """Print a result in a few lines."""
    from example_project.demo.jobs import Rotate, SelectWithin

    match job:
        case Rotate():
            position = ", ".join(f"{coordinate:.2f}" for coordinate in result)
            print(f"  {job.angle:g} degrees about {job.axis}; the first atom is at {position} Å")
        case SelectWithin():
            print(f"  within {job.distance:g} Å of atom {job.centre}: {result}")
        case _:
            most = max(result.counts)
            for count, edge in zip(result.counts, result.edges, strict=False):
                print(f"  {edge:5.1f} Å {count:6d} {'#' * round(40 * count / most)}")


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
