"""Labelled points, uniform in a cube around the shape."""

from __future__ import annotations

from pydantic import NonNegativeFloat, PositiveInt

from pipeline.samples.inside import InsideTest
from pipeline.settings import Settings
from pipeline.storage_settings import StorageSettings


class VolumeSettings(Settings):
    """Points in the cube with occupancies."""

    count: PositiveInt = 100_000
    """Points per shape. Independent draws: a smaller count gives the first points of a larger one."""

    padding: NonNegativeFloat = 0.1
    """The cube's edge is 1 + padding, centred at the origin; canonical units."""

    inside: InsideTest = "rays"
    """Inside test of the labels: rays, parity (Occupancy Networks) or waterproof (IF-Net); see `samples.inside`."""

    storage: StorageSettings = StorageSettings()
    """Precision of the stored points."""


import numpy as np

from pipeline.arrays import Mesh, Product
from pipeline.geometry.measures import volume
from pipeline.samples.solid import occupancy_of, require_room, share, significant
from pipeline.storage import bits_encoding, points_encoding, rounded


def sample_volume(mesh: Mesh, settings: VolumeSettings, rng: np.random.Generator) -> Product:
    """Points (n, 3) uniform in the cube of edge 1 + padding, and occupancies (n,) bool of them.

    The mesh must be watertight. The figures set its volume beside the one the samples make of it, which agree within
    the sampling error where the mesh lies in the cube. Raises Rejected where the mesh's area is zero, MemoryError
    where the process may not hold so many.
    """
    require_room(settings.count)
    edge = 1 + settings.padding
    points = (rng.random((settings.count, 3)) - 0.5) * edge
    # The range is the cube's, not the points', so that rounding does not depend on the count.
    encoding = points_encoding(np.array([edge / 2]), settings.storage.points)
    points = rounded(points, encoding)
    inside = occupancy_of(mesh, settings.inside)(points)
    figures = {
        "occupied_share": share(inside),
        "sampled_volume": significant(inside.mean() * edge**3),
        "mesh_volume": significant(volume(mesh)),
    }
    return Product(
        {"points": points, "occupancies": inside},
        figures=figures,
        encoding={"points": encoding, "occupancies": bits_encoding(inside)},
    )
