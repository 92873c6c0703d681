"""A closed surface round any soup of triangles: the level set of the distance, seen from outside.

All lengths are in voxels of a grid with `resolution` voxels along the longest edge; meshes are in the normalised frame
(longest edge 1). Method and defaults: distances on a grid, a flood fill of the space around, marching cubes, and a
step back towards the surface.
"""

from __future__ import annotations

import itertools

import numpy as np

from pipeline.arrays import Mesh, Rejected
from pipeline.geometry.closest import Scene
from pipeline.geometry.cubes import isosurface

BAND = 2  # voxels beyond the offset in which distances are exact
STRIDES = (16, 8, 4, 2, 1)  # blocks are queried at their centres, and cut up only where the surface may be near
BLOCKS_AT_ONCE = 100_000  # cut up together; bounds the memory for their nodes
LEAST_DEPTH = 1e-3  # voxels; how far inside a solid sample lies at least, so that none is on the level


def offset_shell(mesh: Mesh, scene: Scene, resolution: int, padding: int, offset: float) -> Mesh:
    """The boundary of what cannot be reached from outside when the surface is thickened by `offset` voxels.

    Gaps of up to twice the offset are closed, hidden walls and closed cavities vanish, and a sheet becomes a plate
    2 * offset thick; an offset of at least 0.5 seals any sheet. scene: of the mesh. padding: empty voxels around.
    Raises Rejected where nothing is left.
    """
    low, high = mesh.bounds
    shape = np.ceil((high - low) * resolution).astype(int) + 2 * padding + 1
    half = (shape - 1) / 2 / resolution
    corner = (low + high) / 2 - half
    distance = _distance_grid(scene, corner, shape, resolution, offset + BAND)  # (nx, ny, nz) voxels
    outside = _reachable(distance > offset)
    field = distance - np.float32(offset)
    np.abs(field, out=field)
    np.maximum(field, LEAST_DEPTH, out=field)
    field[~outside] *= -1  # beyond a hidden wall the distance grows again, and stays inside all the same
    return isosurface(field, 0.0, corner, corner + 2 * half, "below")


def drawn_back(shell: Mesh, scene: Scene, resolution: int, remaining: float) -> Mesh:
    """The shell with every vertex moved straight towards the surface until it is `remaining` voxels away."""
    target = scene.closest_points(shell.vertices).astype(np.float64)
    away = shell.vertices - target
    length = np.linalg.norm(away, axis=1, keepdims=True)
    shorter = np.minimum(1.0, remaining / resolution / np.maximum(length, 1e-12))
    return Mesh(target + away * shorter, shell.faces)


def _distance_grid(scene: Scene, corner: np.ndarray, shape: np.ndarray, resolution: int, most: float) -> np.ndarray:
    """Distances of the grid's nodes to the surface in voxels, capped at `most`, (nx, ny, nz) float32."""

    def distance(first: np.ndarray, stride: int) -> np.ndarray:
        """From the centre of the block of stride^3 nodes that begins at each of the nodes (m, 3)."""
        return scene.distance(corner + (first + (stride - 1) / 2) / resolution) * np.float32(resolution)

    values = np.full(shape, most, np.float32)
    blocks = _lattice(STRIDES[0], np.ceil(shape / STRIDES[0]).astype(int))
    for stride, finer in itertools.pairwise(STRIDES):
        reach = np.sqrt(3) * (stride - 1) / 2  # from a block's centre to its farthest node
        near = blocks[distance(blocks, stride) < most + reach]
        if finer > 1:
            blocks = _cut(near, stride, finer, shape)
    for some in np.array_split(near, 1 + len(near) // BLOCKS_AT_ONCE):
        nodes = _cut(some, stride, 1, shape)
        values[tuple(nodes.T)] = np.minimum(distance(nodes, 1), np.float32(most))
    return values


def _cut(blocks: np.ndarray, stride: int, finer: int, shape: np.ndarray) -> np.ndarray:
    """The first nodes (m, 3) of the finer blocks that make up the blocks, those outside the grid left out."""
    parts = (blocks[:, None] + _lattice(finer, np.full(3, stride // finer))).reshape(-1, 3)
    return parts[(parts < shape).all(axis=1)]


def _lattice(step: int, counts: np.ndarray) -> np.ndarray:
    """All multiples of `step` with fewer than `counts` steps along each axis, (m, 3) int32."""
    return (np.indices(counts).reshape(3, -1).T * step).astype(np.int32)


def _reachable(free: np.ndarray) -> np.ndarray:
    """The free nodes connected through faces with the first corner of the grid, (nx, ny, nz) bool."""
    from scipy.ndimage import label

    regions, _ = label(free)
    if not free[0, 0, 0]:
        raise Rejected("the padding of the grid is too small for the offset")
    return regions == regions[0, 0, 0]
