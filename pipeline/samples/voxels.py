"""A solid occupancy grid."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.settings import Settings


class VoxelSettings(Settings):
    """The grid over the cube [-0.5, 0.5]^3."""

    resolution: Annotated[int, Field(ge=1, le=512)] = 64
    """Cells along each edge; the stored grid takes resolution^3 / 8 bytes."""


import numpy as np

from pipeline.arrays import Mesh, Product
from pipeline.geometry.measures import volume
from pipeline.samples.solid import queryable, share, significant
from pipeline.storage import bits_encoding


def voxelize(mesh: Mesh, settings: VoxelSettings) -> Product:
    """Occupancies (R, R, R) bool, index order x, y, z: whether the centre of each cell lies inside the mesh.

    Cell i spans [i / R - 0.5, (i + 1) / R - 0.5], its centre is (i + 0.5) / R - 0.5, in canonical units. Solid by the
    inside test alone: a wall thinner than a cell may fall between centres. The mesh must be watertight; raises
    Rejected where its area is zero.
    """
    resolution = settings.resolution
    scene = queryable(mesh)
    centres = (np.arange(resolution) + 0.5) / resolution - 0.5
    y, z = np.meshgrid(centres, centres, indexing="ij")
    # One slab of constant x at a time: memory grows with the square of the resolution, not the cube.
    slabs = [scene.occupancy(np.stack([np.full_like(y, x), y, z], axis=-1).reshape(-1, 3)) for x in centres]
    inside = np.concatenate(slabs).reshape(resolution, resolution, resolution)
    figures = {
        "occupied_share": share(inside),  # also the volume the cells make, the grid's own being 1
        "mesh_volume": significant(volume(mesh)),
    }
    return Product({"occupancies": inside}, figures=figures, encoding={"occupancies": bits_encoding(inside)})
