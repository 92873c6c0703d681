"""Signed distances at points sampled by other stages.

Exact distance to the watertight mesh with the sign of its inside test, and no point left out. (DeepSDF's own program
measures to nearby rendered pixels, votes on the sign and drops disputed points.)
"""

from __future__ import annotations

from pipeline.settings import Settings
from pipeline.storage_settings import StorageSettings


class SdfSettings(Settings):
    """Signed distances of the sampled point sets."""

    storage: StorageSettings = StorageSettings()
    """Precision of the stored distances."""


from collections.abc import Mapping

import numpy as np

from pipeline.arrays import Mesh, Product
from pipeline.samples.solid import queryable, share
from pipeline.storage import rounded

LEAST = 2.0**-24  # the positive number nearest to zero in float16


def compute_sdf(
    mesh: Mesh,
    sets: Mapping[str, np.ndarray],
    settings: SdfSettings,
    labels: Mapping[str, np.ndarray] | None = None,
) -> Product:
    """Signed distance of each named set of points (n, 3) to the mesh: {name: (n,) float32}, negative inside.

    The points are the stored ones of the sampling stages, and row i belongs to their row i. labels: their occupancies
    (n,) bool, with which the figures compare the signs. The mesh must be watertight; raises Rejected where its area is
    zero.
    """
    scene = queryable(mesh)
    encoding = (settings.storage.sdf,)
    value = {name: rounded(_off_zero(scene.signed_distance(points)), encoding) for name, points in sets.items()}
    figures = {"inside_share": {name: share(distances < 0) for name, distances in value.items()}}
    if labels is not None:
        figures["sign_agreement"] = {name: share((value[name] < 0) == labels[name]) for name in value}
    return Product(value, figures=figures, encoding=dict.fromkeys(value, encoding))


def _off_zero(distances: np.ndarray) -> np.ndarray:
    """Distances too small for float16 moved to its least number, so that rounding keeps every sign."""
    tiny = (np.abs(distances) < LEAST) & (distances != 0)
    return np.where(tiny, np.copysign(np.float32(LEAST), distances), distances)
