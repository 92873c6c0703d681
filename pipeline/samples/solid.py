"""What the sampling stages share: the mesh as something to ask for inside and distance, and figures for the ledger."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from pipeline.arrays import Mesh, Rejected
from pipeline.geometry.closest import Scene
from pipeline.geometry.memory import require_memory
from pipeline.geometry.parity import inside_parity
from pipeline.geometry.waterproof import inside_waterproof
from pipeline.samples.inside import InsideTest

BYTES_PER_SAMPLE = 230  # at the peak of a sampling stage, measured 160 to 225


def queryable(mesh: Mesh) -> Scene:
    """The mesh prepared for inside and distance queries. Rejected where it has no face of positive area."""
    try:
        return Scene(mesh)
    except ValueError as error:
        raise Rejected(str(error)) from error


def occupancy_of(mesh: Mesh, test: InsideTest) -> Callable[[np.ndarray], np.ndarray]:
    """The function that tells which points (n, 3) lie inside the mesh, (n,) bool, by the named test.

    Rejected where the mesh has no face of positive area.
    """
    scene = queryable(mesh)
    if test == "rays":
        return scene.occupancy
    return functools.partial({"parity": inside_parity, "waterproof": inside_waterproof}[test], mesh)


def require_room(count: int, what: str = "points") -> None:
    """Raise MemoryError where so many samples of one shape are more than this process may hold."""
    require_memory(count * BYTES_PER_SAMPLE, f"a shape's {count:,} {what}")


def share(flags: np.ndarray) -> float:
    """The part of the flags that is set, 0 where there are none; as `significant`."""
    return significant(flags.mean()) if flags.size else 0.0


def significant(value: float) -> float:
    """Rounded to six digits, so that the last bits of a sum, which processors differ in, stay out of a ledger."""
    return float(f"{value:.6g}")
