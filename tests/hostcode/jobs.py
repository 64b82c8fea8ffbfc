"""Classes and functions of jobs for `run_pending`."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import suppress
from typing import Any, ClassVar

from django.db import IntegrityError
from pydantic import BaseModel

from zndraw_joblib import asubmit, submit
from zndraw_joblib.client import Cancelled, ClaimedTask, GiveUp, RetryLater
from zndraw_joblib.models import Task


class Rotate(BaseModel):
    angle: float = 90.0

    def run(self) -> dict[str, float]:
        return {"turned": self.angle % 360}


class Fails(BaseModel):
    """Raises the exception of this name."""

    category: ClassVar[str] = "analysis"
    kind: str = "value"

    def run(self, task: ClaimedTask) -> None:
        match self.kind:
            case "value":
                raise ValueError("negative")
            case "give up":
                raise GiveUp("never")
            case "later":
                raise RetryLater(3600, "busy")
            case "exit":
                raise SystemExit(3)
            case "cancelled":
                raise Cancelled
            case "interrupt":
                raise KeyboardInterrupt


class Acts(BaseModel):
    """Uses its task in a way."""

    category: ClassVar[str] = "analysis"
    way: str

    def run(self, task: ClaimedTask) -> Any:
        return getattr(self, self.way)(task)

    def progress(self, task: ClaimedTask) -> None:
        task.progress(2, "nearly\x00" + "x" * 2000)

    def log(self, task: ClaimedTask) -> None:
        task.log("one")
        handler = task.logging_handler()
        logging.getLogger("tests.hostcode").addHandler(handler)
        logging.getLogger("tests.hostcode").error("two")
        logging.getLogger("tests.hostcode").removeHandler(handler)

    def thread(self, task: ClaimedTask) -> None:
        thread = threading.Thread(target=task.progress, args=(0.5, "in a thread"))
        thread.start()
        thread.join()

    def cancels_itself(self, task: ClaimedTask) -> str:
        assert not task.cancelled
        Task.objects.filter(pk=task.id).cancel("enough")
        assert task.cancelled
        task.progress(0.9)
        return "in vain"

    def stops_at_the_checkpoint(self, task: ClaimedTask) -> str:
        Task.objects.filter(pk=task.id).cancel()
        task.checkpoint()
        return "in vain"

    def submits(self, task: ClaimedTask) -> None:
        submit(task.job_name, {"way": "progress"})

    def nan(self, task: ClaimedTask) -> float:
        return float("nan")

    def large(self, task: ClaimedTask) -> str:
        return "x" * 1000

    def uploads(self, task: ClaimedTask) -> int:
        document = task.upload(b"x" * 300_000, "a.txt")
        return document["size"]

    def breaks_a_constraint(self, task: ClaimedTask) -> None:
        Task.objects.create(job_id=None)

    def passes_over_a_broken_constraint(self, task: ClaimedTask) -> str:
        with suppress(IntegrityError):
            Task.objects.create(job_id=None)
        return "done"

    async def queries(self, task: ClaimedTask) -> int:
        task.progress(0.5)
        found = await Task.objects.acount()
        task.checkpoint()
        await asubmit(task.job_name, {"way": "progress"})
        return found

    async def exits(self, task: ClaimedTask) -> None:
        raise SystemExit(3)

    async def interrupts(self, task: ClaimedTask) -> None:
        raise KeyboardInterrupt

    async def coroutine(self, task: ClaimedTask) -> int:
        await asyncio.sleep(0)
        task.progress(0.5)
        task.checkpoint()
        return 7


class Bare(BaseModel):
    pass


def double(number: int) -> int:
    return 2 * number


async def halve(number: int, task: ClaimedTask) -> float:
    task.progress(1)
    return number / 2
