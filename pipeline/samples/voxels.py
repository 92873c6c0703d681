"""A solid occupancy grid."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.samples.inside import InsideTest
from pipeline.settings import Settings


class VoxelSettings(Settings):
    """The grid over the cube [-0.5, 0.5]^3."""

    resolution: Annotated[int, Field(ge=1, le=512)] = 64
    """Cells along each edge; the stored grid takes resolution^3 / 8 bytes."""

    inside: InsideTest = "rays"
    """Inside test of the centres: rays, parity (Occupancy Networks) or waterproof (IF-Net); see `samples.inside`."""


import numpy as np

from pipeline.arrays import Mesh, Product
from pipeline.geometry.measures import volume
from pipeline.geometry.memory import require_memory
from pipeline.samples.solid import BYTES_PER_SAMPLE, occupancy_of, share, significant
from pipeline.storage import bits_encoding

BLOCK = 1 << 17  # points asked about at once


def voxelize(mesh: Mesh, settings: VoxelSettings) -> Product:
    """Occupancies (R, R, R) bool, index order x, y, z: whether the centre of each cell lies inside the mesh.

    Cell i spans [i / R - 0.5, (i + 1) / R - 0.5], its centre is (i + 0.5) / R - 0.5, in canonical units. Solid by the
    inside test alone: a wall thinner than a cell may fall between centres. The mesh must be watertight; raises
    Rejected where its area is zero, MemoryError where the process may not hold the grid.
    """
    resolution = settings.resolution
    planes = max(1, BLOCK // resolution**2)
    require_memory(2 * resolution**3 + BYTES_PER_SAMPLE * planes * resolution**2, f"a grid of {resolution}^3 cells")
    inside_test = occupancy_of(mesh, settings.inside)
    centres = (np.arange(resolution) + 0.5) / resolution - 0.5
    inside = np.empty((resolution,) * 3, bool)
    # A few planes of constant x at a time: what a query takes grows with the square of the resolution, not the cube.
    for first in range(0, resolution, planes):
        block = np.meshgrid(centres[first : first + planes], centres, centres, indexing="ij")
        points = np.stack(block, axis=-1).reshape(-1, 3)
        inside[first : first + planes] = inside_test(points).reshape(block[0].shape)
    figures = {
        "occupied_share": share(inside),  # also the volume the cells make, the grid's own being 1
        "mesh_volume": significant(volume(mesh)),
    }
    return Product({"occupancies": inside}, figures=figures, encoding={"occupancies": bits_encoding(inside)})
