"""The data stages of a prepared set in IM-NET's layout: each makes its arrays of a row of the HDF5 file.

Everything is read in the frame of the file, whose shapes have a box of diagonal 1 around the centre of the cube
[-0.5, 0.5]^3 (elsewhere here the longest edge is 1): between 1 and 1.73 times smaller. Voxel i of 64 is centred at
(i + 0.5) / 64 - 0.5. The file has no surface and no labelled points but its pairs, which crowd near the surface. So
both are of the 64^3 voxels: evaluation compares with their outer faces, as the author's does with those of 256^3.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pipeline.arrays import Product, Rejected
from pipeline.samples.point_values import max_pool
from pipeline.samples.solid import share
from pipeline.samples.surface import SurfaceSettings
from pipeline.samples.views import ViewSettings
from pipeline.samples.volume import VolumeSettings
from pipeline.samples.voxels import VoxelSettings
from pipeline.storage import bits_encoding, png_encoding, points_encoding, rounded

VOXELS, PICTURES = (64, 64, 64), (24, 137, 137)
EDGE = VOXELS[0]
CORNER = np.full((1, 3), 0.5)  # how far points can lie out


def voxelize(content: bytes, name: str, companions: Mapping[str, bytes], settings: VoxelSettings) -> Product:
    """The grid, or a coarser one whose cells are occupied where any voxel in them is, as IM-NET makes its own.

    Rejected where the resolution does not divide 64.
    """
    grid = _grid(content)
    if EDGE % settings.resolution:
        raise Rejected(
            f"its voxel grid has {EDGE} cells along an edge, of which none of {settings.resolution} can be made"
        )
    grid = max_pool(grid, EDGE // settings.resolution)
    return Product({"occupancies": grid}, {"occupied_share": share(grid)}, {"occupancies": bits_encoding(grid)})


def sample_volume(
    content: bytes,
    name: str,
    companions: Mapping[str, bytes],
    settings: VolumeSettings,
    rng: np.random.Generator,
) -> Product:
    """`count` points anywhere in the cube, and the values of the voxels they lie in.

    Not at the voxels' centres: rays through those meet the diagonals of cells' faces, where inside tests miscount.
    """
    grid = _grid(content)
    points = (rng.random((settings.count, 3)) - 0.5).astype(np.float32)
    cells = np.minimum(np.floor((points.astype(np.float64) + 0.5) * EDGE).astype(int), EDGE - 1)
    value = {"points": points, "occupancies": grid[tuple(cells.T)]}
    figures = {"points": settings.count, "occupied_share": share(value["occupancies"])}
    # As they are: rounding would move some into a neighbouring voxel.
    return Product(value, figures, {"points": ("float32",), "occupancies": bits_encoding(value["occupancies"])})


def sample_surface(
    content: bytes,
    name: str,
    companions: Mapping[str, bytes],
    settings: SurfaceSettings,
    rng: np.random.Generator,
) -> Product:
    """`count` points, uniform by area, on the faces between occupied and empty voxels, with the faces' normals."""
    cells, axes, steps = _faces(_grid(content))
    chosen, rows = rng.integers(len(cells), size=settings.count), np.arange(settings.count)
    axes, steps = axes[chosen], steps[chosen]
    places = cells[chosen] + rng.random((settings.count, 3))
    places[rows, axes] = cells[chosen, axes] + (steps > 0)
    normals = np.zeros((settings.count, 3))
    normals[rows, axes] = steps
    encoding = {
        "points": points_encoding(CORNER, settings.storage.points),
        "normals": (settings.storage.normals,),
    }
    value = {
        "points": rounded(places / EDGE - 0.5, encoding["points"]),
        "normals": rounded(normals, encoding["normals"]),
    }
    return Product(value, {"area": len(cells) / EDGE**2}, encoding)


def render_views(content: bytes, name: str, companions: Mapping[str, bytes], settings: ViewSettings) -> Product:
    """The first `views` pictures, grey and opaque since they lie on white. The file has no cameras."""
    grey = np.frombuffer(content, np.uint8).reshape(PICTURES)[: settings.views]
    images = np.concatenate([np.repeat(grey[..., None], 3, axis=-1), np.full((*grey.shape, 1), 255, np.uint8)], axis=-1)
    return Product({"images": images}, {"views": len(images)}, {"images": png_encoding(images)})


def _grid(content: bytes) -> np.ndarray:
    """The voxels (64, 64, 64) bool of a row. Rejected where they are not of 0 and 1, or none is occupied."""
    grid = np.frombuffer(content, np.uint8).reshape(VOXELS)
    if grid.max() != 1:
        raise Rejected("none of its voxels is occupied" if grid.max() == 0 else "its voxels are not 0 and 1")
    return grid.astype(bool)


def _faces(grid: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every face to an empty neighbour, the cell (n, 3), the axis (n,) across it, and the side (n,), -1 or 1."""
    padded, found = np.pad(grid, 1), []
    for axis in range(3):
        for step in (-1, 1):
            cells = np.argwhere(grid & ~np.roll(padded, -step, axis)[1:-1, 1:-1, 1:-1])
            found.append((cells, np.full(len(cells), axis), np.full(len(cells), step)))
    cells, axes, steps = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return cells, axes, steps
