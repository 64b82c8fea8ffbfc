"""Computations of the demo's jobs on frames of atoms. Lengths are in ångström."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Literal

import numpy as np
from ase import Atoms, units
from ase.calculators.lj import LennardJones
from ase.cluster import Octahedron
from ase.constraints import FixCom
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from numpy.typing import NDArray

Frames = list[Atoms]


def argon_frames(frames: int = 20, temperature: float = 30.0, seed: int = 7) -> Iterator[Atoms]:
    """A cluster of argon in Langevin dynamics (kelvin), one frame every 10 steps of 5 fs."""
    rng = np.random.default_rng(seed)
    cluster = Octahedron("Ar", 4, cutoff=1, latticeconstant=5.26)
    cluster.set_constraint(FixCom())
    cluster.calc = LennardJones(sigma=3.4, epsilon=0.0104, rc=10.0, smooth=True)
    thermalize_momenta(cluster, temperature, rng=rng)
    dynamics = Langevin(
        cluster,
        5 * units.fs,
        temperature_K=temperature,
        friction=0.01 / units.fs,
        rng=rng,
        fixcm=False,
    )
    for _ in range(frames):
        dynamics.run(10)
        yield Atoms(cluster.symbols, cluster.positions)


def to_xyz(frames: Frames) -> str:
    """Frames as extended XYZ."""
    text = io.StringIO()
    write(text, frames, format="extxyz")
    return text.getvalue()


def from_xyz(text: str) -> Frames:
    """All frames of an XYZ text.

    Raises
    ------
    ValueError
        The text has no frame.
    """
    frames = read(io.StringIO(text), index=":", format="extxyz")
    if not frames:
        raise ValueError("the trajectory has no frames")
    return list(frames)


def rotate(frames: Frames, angle: float, axis: Literal["x", "y", "z"]) -> Frames:
    """Every frame rotated by `angle` degrees about an axis through its centre of positions."""
    rotated = [atoms.copy() for atoms in frames]
    for atoms in rotated:
        atoms.rotate(angle, axis, center=atoms.positions.mean(axis=0))
    return rotated


def select_within(atoms: Atoms, centre: int, distance: float) -> list[int]:
    """Indices of the other atoms at most `distance` from the atom `centre`.

    Raises
    ------
    ValueError
        The atom `centre` does not exist.
    """
    if centre >= len(atoms):
        raise ValueError(f"atom {centre} does not exist; the frame has {len(atoms)} atoms")
    apart = np.linalg.norm(atoms.positions - atoms.positions[centre], axis=1)
    return [int(index) for index in np.flatnonzero(apart <= distance) if index != centre]


def distance_histogram(
    frames: Frames, bins: int, longest: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Counts of all pairs' distances over all frames, (bins,), and the edges, (bins + 1,)."""
    distances = [atoms.get_all_distances()[np.triu_indices(len(atoms), k=1)] for atoms in frames]
    return np.histogram(np.concatenate(distances), bins=bins, range=(0.0, longest))
