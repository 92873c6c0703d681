"""Inside or outside of a closed mesh."""

from __future__ import annotations

import numpy as np

from pipeline.arrays import Mesh
from pipeline.geometry.closest import Scene


def occupancy(mesh: Mesh, points: np.ndarray) -> np.ndarray:
    """Whether each point (n, 3) lies inside a watertight mesh, (n,) bool.

    Ray parity with three rays, or more where they do not agree (open3d, one thread), so the winding of the faces does
    not matter; overlapping or nested closed parts cancel where they overlap. Raises ValueError for a mesh without a
    face of positive area.
    """
    return Scene(mesh).occupancy(points)
