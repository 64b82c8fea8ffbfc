"""``python -m tests.browser.worker``: a worker with the demo's jobs, and jobs of its own.

From the environment: JOBLIB_URL and JOBLIB_TOKEN.
"""

from __future__ import annotations

import struct
import time
import zlib
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field

from example_project.demo.jobs import JOBS as DEMO_JOBS, server
from zndraw_joblib.client import ClaimedTask, JobManager


class Steps(BaseModel):
    """Take a pause at each step, and report it."""

    category: ClassVar[str] = "analysis"

    steps: int = Field(10, ge=1, le=1000)
    pause: float = Field(0.1, ge=0, le=10, description="Seconds.")

    def run(self, task: ClaimedTask) -> int:
        for step in range(self.steps):
            task.checkpoint()
            task.progress((step + 1) / self.steps, f"step {step + 1} of {self.steps}")
            task.log(f"line {step + 1}")
            time.sleep(self.pause)
        return self.steps


class Fail(BaseModel):
    """Fail with a message."""

    category: ClassVar[str] = "analysis"

    message: str = "the reactor is cold"

    def run(self) -> None:
        raise ValueError(self.message)


def png(side: int = 16) -> bytes:
    """A red square as a PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    rows = b"".join(b"\0" + b"\xd0\x20\x20" * side for _ in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


class Report(BaseModel):
    """Return a table of rows, and upload a picture, a text and an SVG with a script."""

    category: ClassVar[str] = "analysis"

    rows: int = Field(3, ge=0, le=10_000)

    def run(self, task: ClaimedTask) -> list[dict[str, Any]]:
        task.upload(png(), "square.png")
        task.upload(b"the notes", "notes.txt")
        task.upload(
            b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', "x.svg"
        )
        return [{"name": f"row {n}", "energy": n / 4} for n in range(self.rows)]


class Echo(BaseModel):
    """Return the JSON value that is sent."""

    category: ClassVar[str] = "analysis"

    value: Any = None

    def run(self) -> Any:
        return self.value


class Point(BaseModel):
    """A point in space."""

    x: float = 0.0
    y: float = Field(0.0, description="To the right.")


class Circle(BaseModel):
    """A circle."""

    kind: Literal["circle"] = "circle"
    radius: float = Field(1.0, gt=0)


class Square(BaseModel):
    """A square."""

    kind: Literal["square"] = "square"
    side: float = Field(1.0, gt=0)


class Everything(BaseModel):
    """Return the payload, which has a field of every kind."""

    category: ClassVar[str] = "analysis"

    text: str = Field("some", max_length=20)
    required: str = Field(min_length=1, description="There is no default.")
    count: int = Field(3, ge=0, le=10)
    share: float = Field(0.5, ge=0, le=1)
    flag: bool = True
    colour: Literal["red", "green", "blue"] = "green"
    optional: int | None = None
    origin: Point = Point()
    shape: Circle | Square = Circle()
    points: list[Point] = []
    tags: list[str] = ["a"]
    weights: dict[str, float] = {}

    def run(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


JOBS = (*DEMO_JOBS, Steps, Fail, Report, Echo, Everything)

if __name__ == "__main__":
    with server() as api, JobManager(api) as manager:
        for job in JOBS:
            manager.register(job)  # type: ignore[call-overload]
        manager.serve(concurrency=4)
