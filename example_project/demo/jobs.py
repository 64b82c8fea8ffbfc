"""The demo's jobs. Each reads a trajectory from its room and writes its result there."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import ClassVar, Literal
from urllib.parse import quote

from pydantic import BaseModel, Field

from example_project.demo import structures
from zndraw_joblib.client import Api, ClaimedTask

TRAJECTORY = "trajectory.xyz"


class Documents:
    """The documents of the site's rooms, over REST."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def read(self, room_id: str, name: str) -> str:
        """The content of a document."""
        answer = self._api.http.get(self._url(room_id, name), headers=self._api.get_headers())
        answer.raise_for_status()
        content: str = answer.json()["content"]
        return content

    def write(self, room_id: str, name: str, content: str) -> None:
        """Create or replace a document."""
        self._api.http.put(
            self._url(room_id, name), json={"content": content}, headers=self._api.get_headers()
        ).raise_for_status()

    def _url(self, room_id: str, name: str) -> str:
        path = f"{quote(room_id, safe='')}/documents/{quote(name, safe='')}"
        return f"{self._api.base_url}/v1/rooms/{path}"


class Rotate(BaseModel):
    """Rotate every frame about an axis through its centre."""

    category: ClassVar[str] = "modifiers"
    result: ClassVar[str] = "rotated.xyz"

    angle: float = Field(90.0, ge=-360, le=360, description="Degrees.")
    axis: Literal["x", "y", "z"] = "z"

    def compute(self, frames: structures.Frames) -> str:
        """The rotated trajectory as XYZ."""
        return structures.to_xyz(structures.rotate(frames, self.angle, self.axis))


class SelectWithin(BaseModel):
    """Select the atoms near an atom in the last frame."""

    category: ClassVar[str] = "selections"
    result: ClassVar[str] = "selection.json"

    centre: int = Field(0, ge=0, description="Index of the atom in the middle.")
    distance: float = Field(5.0, gt=0, le=1000, description="Ångström.")

    def compute(self, frames: structures.Frames) -> str:
        """The indices as a JSON array."""
        return json.dumps(structures.select_within(frames[-1], self.centre, self.distance))


class DistanceHistogram(BaseModel):
    """Count the distances of all pairs of atoms over the trajectory."""

    category: ClassVar[str] = "analysis"
    result: ClassVar[str] = "histogram.json"

    bins: int = Field(20, ge=1, le=1000)
    longest: float = Field(20.0, gt=0, le=1000, description="Ångström.")

    def compute(self, frames: structures.Frames) -> str:
        """Counts and edges as JSON."""
        counts, edges = structures.distance_histogram(frames, self.bins, self.longest)
        return json.dumps({"counts": counts.tolist(), "edges": edges.tolist()})


Job = Rotate | SelectWithin | DistanceHistogram
JOBS: tuple[type[Job], ...] = (Rotate, SelectWithin, DistanceHistogram)


def executor(documents: Documents) -> Callable[[ClaimedTask, BaseModel], None]:
    """A function that runs a task: reads the room's trajectory, computes and writes the result."""

    def execute(task: ClaimedTask, job: BaseModel) -> None:
        assert isinstance(job, Job)
        frames = structures.from_xyz(documents.read(task.room_id, TRAJECTORY))
        documents.write(task.room_id, job.result, job.compute(frames))

    return execute
