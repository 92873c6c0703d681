"""Closed parts of one mesh that overlap: a ray crosses two surfaces there, so that parity finds the outside.

Winding numbers tell such a place (2) from a cavity (0), for which two surfaces are crossed as well.
"""

from __future__ import annotations

import numpy as np

from pipeline.arrays import Mesh
from pipeline.geometry.clean import flipped, merged
from pipeline.geometry.measures import face_volumes
from pipeline.geometry.parity import crossings
from pipeline.geometry.quality import face_components

MOST_POINTS = 100_000
"""Points that are asked; of more, every k-th."""

TWICE = 1.5
"""Winding number above which a place lies in two parts; of whole numbers, the fast one is off by a few hundredths."""


def overlap_share(mesh: Mesh, points: np.ndarray, inside: np.ndarray) -> float:
    """Share of what the parts of a mesh enclose that lies in two of them and counts as outside, 0 to 1.

    points: (n, 3). inside: what a parity test says of them, (n,) bool. The orientation of the parts does not matter,
    but a cavity's surface must face the other way than the surface around it, else it is one more part.
    """
    step = max(1, -(-len(points) // MOST_POINTS))
    points = points[::step]
    inside = inside[::step]
    outside = points[~inside]
    above, below = crossings(mesh, outside)
    crossed = (above >= 2) & (below >= 2) & (above % 2 == 0) & (below % 2 == 0)
    if not crossed.any():
        return 0.0
    doubled = np.count_nonzero(_winding(outward(mesh), outside[crossed]) > TWICE)
    return doubled / (doubled + np.count_nonzero(inside)) if doubled else 0.0


def outward(mesh: Mesh) -> Mesh:
    """The mesh with every part wound outward, but for those that lie within others and face inward: cavities."""
    mesh = merged(mesh)
    part = face_components(mesh)
    volumes = np.bincount(part, face_volumes(mesh))
    if volumes.sum() < 0:
        mesh = flipped(mesh)
        volumes = -volumes
    inward = volumes[part] < 0
    if not inward.any():
        return mesh
    solid = Mesh(mesh.vertices, mesh.faces[~inward])
    within = _winding(solid, mesh.vertices[mesh.faces[inward, 0]]) > 0.5
    faces_of_part = np.bincount(part[inward], minlength=len(volumes))
    within_of_part = np.bincount(part[inward], within, minlength=len(volumes))
    wrong = (volumes < 0) & (within_of_part < faces_of_part)
    faces = np.where(wrong[part][:, None], mesh.faces[:, ::-1], mesh.faces)
    return Mesh(mesh.vertices, faces)


def _winding(mesh: Mesh, points: np.ndarray) -> np.ndarray:
    """Generalised winding number of each point (n, 3), (n,)."""
    import igl

    return igl.fast_winding_number(mesh.vertices, mesh.faces.astype(np.int64), points.astype(np.float64))
