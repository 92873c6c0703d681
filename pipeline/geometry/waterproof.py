"""Inside by implicit waterproofing: parity that looks along another axis where a hole spoils it.

IF-Net (Chibane et al., CVPR 2020), `implicit_waterproofing`; sheet ifnet.md 3.5.
"""

from __future__ import annotations

import numpy as np

from pipeline.arrays import Mesh
from pipeline.geometry.parity import FRAME, crossings

TURNS = (
    ((0, 1, 2), (1.0, 1.0, 1.0)),  # as it stands: rays along z
    ((2, 1, 0), (1.0, 1.0, -1.0)),  # 90 degrees about y: rays along x
    ((0, 2, 1), (1.0, -1.0, 1.0)),  # 90 degrees about x: rays along y
    ((1, 0, 2), (-1.0, 1.0, 1.0)),  # 90 degrees about z: rays along z again, which may only round differently
)
"""Which old axis stands at each new one after each turn, and its sign."""


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
    for axes, signs in TURNS:
        turned = Mesh(mesh.vertices[:, axes] * signs, mesh.faces)
        above, below = crossings(turned, points[open_points][:, axes] * signs, resolution)
        inside[open_points] = (above % 2 == 1) & (below % 2 == 1)
        open_points = open_points[above % 2 != below % 2]
        if len(open_points) == 0:
            break
    return inside
