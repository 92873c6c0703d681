"""Inside by implicit waterproofing: parity that looks along another axis where a hole spoils it.

IF-Net (Chibane et al., CVPR 2020), `implicit_waterproofing`; sheet ifnet.md 3.5.
"""

from __future__ import annotations

import numpy as np

from pipeline.arrays import Mesh
from pipeline.geometry.parity import FRAME, crossings

COS, SIN = np.cos(np.pi / 2), np.sin(np.pi / 2)  # 6e-17, not 0: as in the original it decides points on edges
TURNS = (
    None,  # as it stands: rays along z
    np.array([[COS, 0, SIN], [0, 1, 0], [-SIN, 0, COS]]),  # 90 degrees about y: rays along x
    np.array([[1, 0, 0], [0, COS, -SIN], [0, SIN, COS]]),  # 90 degrees about x: rays along y
    np.array([[COS, -SIN, 0], [SIN, COS, 0], [0, 0, 1]]),  # 90 degrees about z: rays along z, which only round anew
)
"""Rotations (3, 3) of mesh and points, in the order in which they are tried; None: as they stand."""


def inside_waterproof(mesh: Mesh, points: np.ndarray, resolution: float = FRAME) -> np.ndarray:
    """Whether each point (n, 3) lies inside the mesh, (n,) bool, tolerating holes that some axis does not meet.

    Crossings along z are counted above and below each point. Where both are odd or both even that is the answer; the
    other points, which see a hole, are asked again with mesh and points turned, along x, then y, then z once more,
    until none is left. A point that sees a hole in every direction is outside.
    resolution: edge of the frame in which crossings are judged (`parity.crossings`).
    """
    points = np.asarray(points, np.float64).reshape(-1, 3)
    inside = np.zeros(len(points), bool)
    open_points = np.arange(len(points))
    for turn in TURNS:
        turned = mesh if turn is None else Mesh(mesh.vertices @ turn.T, mesh.faces)
        asked = points if turn is None else points[open_points] @ turn.T
        above, below = (count % 2 == 1 for count in crossings(turned, asked, resolution))
        inside[open_points] = above & below
        open_points = open_points[above != below]
        if len(open_points) == 0:
            break
    return inside
