"""The demo's jobs. Their results and files go through the job server itself."""

from __future__ import annotations

import os
from functools import cache
from typing import ClassVar, Literal
from urllib.parse import quote
from uuid import UUID

from pydantic import BaseModel, Field

from example_project.demo import structures
from zndraw_joblib.client import Api, ClaimedTask, TaskHandle

#: The file of a task that has a trajectory, as extended XYZ.
TRAJECTORY = "trajectory.xyz"


@cache
def server() -> Api:
    """Access of a worker to the server, from JOBLIB_URL and JOBLIB_TOKEN."""
    return Api(os.environ["JOBLIB_URL"], token=os.environ["JOBLIB_TOKEN"])


class Simulate(BaseModel):
    """Simulate a cluster of argon atoms."""

    category: ClassVar[str] = "modifiers"

    frames: int = Field(20, ge=1, le=1000)
    temperature: float = Field(30.0, gt=0, le=100, description="Kelvin.")
    seed: int = Field(7, ge=0, description="Equal seeds give equal trajectories.")

    def run(self, task: ClaimedTask) -> int:
        """Upload the trajectory; the result is the number of its frames."""
        simulation = structures.argon_frames(self.frames, self.temperature, self.seed)
        frames = []
        for frame in task.track(simulation, total=self.frames):
            frames.append(frame)
            if len(frames) % 20 == 0:
                radius = abs(frame.positions).max()
                task.log(f"frame {len(frames)}: the outermost atom is at {radius:.2f} Å")
        task.log(f"simulated {len(frames)} frames of {len(frames[0])} atoms")
        task.upload(structures.to_xyz(frames).encode(), TRAJECTORY)
        return len(frames)


def latest_trajectory(room_id: str) -> str:
    """The id of the room's newest completed task with a trajectory.

    Raises
    ------
    ValueError
        There is no such task.
    """
    api, found = server(), []
    for job in (Simulate, Rotate):
        name = quote(f"@global:{job.category}:{job.__name__}")
        answer = api.http.get(
            f"{api.base_url}/v1/joblib/rooms/{quote(room_id, safe='')}/jobs/{name}/tasks",
            params={"status": "completed", "limit": 1},
            headers=api.get_headers(),
        )
        found += answer.raise_for_status().json()
    if not found:
        raise ValueError("there is no trajectory in this room yet: submit Simulate first")
    return str(max(found, key=lambda task: task["created_at"])["id"])


class OfTrajectory(BaseModel):
    """A job on the trajectory of another task."""

    trajectory: UUID | None = Field(
        None, description="Id of a task with the file trajectory.xyz; left out: the latest one."
    )

    def frames(self, task: ClaimedTask) -> structures.Frames:
        """Download the trajectory."""
        source = str(self.trajectory or latest_trajectory(task.room_id))
        content = TaskHandle(server(), source).download(TRAJECTORY)
        return structures.from_xyz(content.decode())


class Rotate(OfTrajectory):
    """Rotate every frame about an axis through its centre."""

    category: ClassVar[str] = "modifiers"

    angle: float = Field(30.0, ge=-360, le=360, description="Degrees.")
    axis: Literal["x", "y", "z"] = "z"

    def run(self, task: ClaimedTask) -> list[float]:
        """Upload the rotated trajectory; the result is where its first atom is, in ångström."""
        rotated = structures.rotate(self.frames(task), self.angle, self.axis)
        task.upload(structures.to_xyz(rotated).encode(), TRAJECTORY)
        first: list[float] = rotated[0].positions[0].tolist()
        return first


class SelectWithin(OfTrajectory):
    """Select the atoms near an atom in the last frame."""

    category: ClassVar[str] = "selections"

    centre: int = Field(0, ge=0, description="Index of the atom in the middle.")
    distance: float = Field(5.0, gt=0, le=1000, description="Ångström.")

    def run(self, task: ClaimedTask) -> list[int]:
        """The indices of the atoms."""
        return structures.select_within(self.frames(task)[-1], self.centre, self.distance)


class Histogram(BaseModel):
    """Counts of distances, and the edges of the bins in ångström, one more than counts."""

    counts: list[int]
    edges: list[float]


class DistanceHistogram(OfTrajectory):
    """Count the distances of all pairs of atoms over the trajectory."""

    category: ClassVar[str] = "analysis"

    bins: int = Field(20, ge=1, le=1000)
    longest: float = Field(20.0, gt=0, le=1000, description="Ångström.")

    def run(self, task: ClaimedTask) -> Histogram:
        """Count."""
        counts, edges = structures.distance_histogram(self.frames(task), self.bins, self.longest)
        return Histogram(counts=counts.tolist(), edges=edges.tolist())


JOBS: tuple[type[BaseModel], ...] = (Simulate, Rotate, SelectWithin, DistanceHistogram)
