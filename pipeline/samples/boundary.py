"""Labelled points near a mesh's surface: surface points moved by Gaussian noise."""

from __future__ import annotations

from pydantic import PositiveFloat, PositiveInt

from pipeline.samples.inside import InsideTest
from pipeline.settings import Settings
from pipeline.storage_settings import StorageSettings


class BoundarySettings(Settings):
    """Points near the surface with occupancies, for one sigma."""

    sigma: PositiveFloat
    """Standard deviation of the noise on each axis, canonical units (a standard deviation, not a variance)."""

    count: PositiveInt = 100_000
    """Points per shape."""

    inside: InsideTest = "rays"
    """Inside test of the labels: rays, parity (Occupancy Networks) or waterproof (IF-Net); see `samples.inside`."""

    storage: StorageSettings = StorageSettings()
    """Precision of the stored points."""


import numpy as np

from pipeline.arrays import Mesh, Product
from pipeline.samples.solid import occupancy_of, require_room, share
from pipeline.samples.surface import draw_on_surface
from pipeline.storage import bits_encoding, points_encoding, rounded


def sample_boundary(mesh: Mesh, settings: BoundarySettings, rng: np.random.Generator) -> Product:
    """Points (n, 3) at area-uniform surface points + N(0, sigma^2) on each axis, and occupancies (n,) bool of them.

    In random order: any prefix is a smaller set. The mesh must be watertight; Rejected where its area is zero,
    MemoryError before anything is drawn where the process may not hold so many.
    """
    require_room(settings.count)
    on_surface, _ = draw_on_surface(mesh, settings.count, rng)
    points = on_surface + rng.normal(0.0, settings.sigma, on_surface.shape)
    encoding = points_encoding(points, settings.storage.points)
    points = rounded(points, encoding)
    inside = occupancy_of(mesh, settings.inside)(points)
    return Product(
        {"points": points, "occupancies": inside},
        figures={"occupied_share": share(inside)},
        encoding={"points": encoding, "occupancies": bits_encoding(inside)},
    )
