"""A job class, and a worker process that serves it: ``python -m tests.client.jobs``."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import ClassVar

from pydantic import BaseModel

from zndraw_joblib.client import Api, ClaimedTask, JobManager


class Double(BaseModel):
    category: ClassVar[str] = "analysis"
    number: int
    seconds: float = 0

    def run(self, task: ClaimedTask) -> None:
        time.sleep(self.seconds)
        if self.number < 0:
            raise ValueError("negative")


def square(number: int) -> int:
    return number * number


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def submit(manager: JobManager) -> None:
    manager.submit(Double(number=2), room="open")


class Processes(BaseModel):
    """Starts processes, as tasks of other libraries do. A task that hangs is a failed test."""

    category: ClassVar[str] = "analysis"
    kind: str

    def run(self) -> None:
        getattr(self, self.kind.replace("-", "_"))()

    def pool(self, method: str = "fork") -> None:
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(square, range(3)) == [0, 1, 4]

    def pool_spawn(self) -> None:
        self.pool("spawn")

    def pool_forkserver(self) -> None:
        self.pool("forkserver")

    def terminated(self) -> None:
        child = multiprocessing.get_context("fork").Process(target=sleep, args=(600,))
        child.start()
        time.sleep(0.1)
        child.terminate()
        child.join()
        assert child.exitcode == -signal.SIGTERM

    def interrupted(self) -> None:
        child = multiprocessing.get_context("fork").Process(target=sleep, args=(600,))
        child.start()
        time.sleep(0.1)
        os.kill(child.pid or 0, signal.SIGINT)
        child.join()
        assert child.exitcode == 1  # KeyboardInterrupt

    def ended(self) -> None:
        child = multiprocessing.get_context("fork").Process(target=square, args=(1,))
        child.start()
        child.join()
        assert child.exitcode == 0

    def exited(self) -> None:
        child = multiprocessing.get_context("fork").Process(target=sys.exit, args=(3,))
        child.start()
        child.join()
        assert child.exitcode == 3

    def executor(self) -> None:
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as executor:
            assert list(executor.map(square, range(3))) == [0, 1, 4]

    def command(self) -> None:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        time.sleep(0.1)
        child.terminate()
        assert child.wait() == -signal.SIGTERM

    def forked(self) -> None:
        """The child of a plain fork leaves the task in every way that there is."""
        for leave, code in ((sys.exit, 5), (lambda code: None, 0), (square_text, 1)):
            child = os.fork()
            if child == 0:
                leave(code)
                return
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code

    def submits(self) -> None:
        child = multiprocessing.get_context("fork").Process(target=submit, args=(MANAGERS[0],))
        child.start()
        child.join()
        assert child.exitcode == 0


def square_text(code: int) -> None:
    raise ValueError(f"exit code {code}")


#: The manager of this process.
MANAGERS: list[JobManager] = []

if __name__ == "__main__":
    with Api(os.environ["JOBLIB_URL"], os.environ["JOBLIB_TOKEN"]) as api:
        manager = JobManager(api)
        MANAGERS.append(manager)
        manager.register(Double)
        manager.register(Processes)
        manager.serve(concurrency=2, prefetch=int(os.environ.get("JOBLIB_PREFETCH", "0")))
