"""Which points lie inside a mesh, by the definitions of the evaluation protocols.

On a closed mesh all methods agree but for points within about 1e-6 of the surface. On open or overlapping meshes they
differ, so a result always names its method.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from pipeline.arrays import Mesh
from pipeline.geometry.parity import inside_parity
from pipeline.geometry.waterproof import inside_waterproof

Method = Literal["parity", "waterproof", "winding", "rays"]


def contains(mesh: Mesh, points: np.ndarray, method: Method = "parity") -> np.ndarray:
    """Whether each point (n, 3) lies inside the mesh (anything with vertices and faces), (n,) bool.

    parity: crossings of the line along z above and below the point are both odd (Occupancy Networks); where holes make
    them disagree the point is outside. waterproof: parity that asks points at holes again along x and y (IF-Net).
    winding: the generalised winding number exceeds 0.5, which needs faces wound outward. rays: parity of three rays
    (`geometry.inside`), for closed meshes.
    A mesh without faces contains nothing. Raises ValueError for another method.
    """
    mesh, points = Mesh(mesh.vertices, mesh.faces), np.asarray(points).reshape(-1, 3)
    if method not in get_args(Method):
        raise ValueError(f"there is no inside test {method!r}; there are {', '.join(get_args(Method))}")
    if len(mesh.faces) == 0:
        return np.zeros(len(points), bool)
    return _TESTS[method](mesh, points)


def _winding(mesh: Mesh, points: np.ndarray) -> np.ndarray:
    import igl

    return igl.fast_winding_number(mesh.vertices, mesh.faces.astype(np.int64), points.astype(np.float64)) > 0.5


def _rays(mesh: Mesh, points: np.ndarray) -> np.ndarray:
    from pipeline.geometry.inside import occupancy

    return occupancy(mesh, points)


_TESTS = {"parity": inside_parity, "waterproof": inside_waterproof, "winding": _winding, "rays": _rays}
