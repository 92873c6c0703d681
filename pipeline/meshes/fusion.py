"""Multi-view fusion of depth images, as Occupancy Networks made its training meshes (Mescheder et al. 2019).

Depth images of the shape from all sides, moved towards the camera (which thickens it), are averaged in a grid of
truncated signed distances (Curless and Levoy 1996); what no image sees is solid. Depths come from ray casting on one
thread, without a display; a ray that slips through an edge counts for nothing, since the least depth of neighbouring
pixels, or without erosion of rays beside each other, is taken. Pixel (i, j) looks along the ray through the image
point (i, j), the one that a grid point is rounded to.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from pipeline.arrays import Mesh, Rejected
from pipeline.geometry.closest import Scene
from pipeline.geometry.cubes import zero_surface

if TYPE_CHECKING:
    from pipeline.meshes.watertight import FusionSettings

DISTANCE = 1.0  # from the camera to the centre of the grid; lengths here are edges of the grid, a cube round the origin
NEAR, FAR = 0.25, 1.75  # depths beyond which nothing is seen
BLOCK = 8  # grid points along each edge of the blocks that are looked at together
BLOCKS_AT_ONCE = 128
FREE = 1e6  # voxels; value of the layer put round the grid
LEAST = 1e-3  # voxels; values nearer to zero are moved off it


def fused(mesh: Mesh, settings: FusionSettings) -> Mesh:
    """The surface between what the images see to be free and the rest, in the frame of the mesh.

    mesh: centred, longest edge 1; it is shrunk to 1 - padding for the grid. Raises Rejected where all is free.
    """
    room = 1 - settings.padding
    low, high = mesh.bounds
    centre = (low + high) / 2
    scene = Scene(Mesh((mesh.vertices - centre) * room, mesh.faces))
    rotations = view_rotations(settings.views)
    depths = np.stack([_depth_image(scene, rotation, settings) for rotation in rotations])
    field = _averaged(scene, rotations, depths, settings)
    if (field > 0).all():
        raise Rejected("the images see through all of it")
    voxel = 1 / settings.resolution
    _free_corners(field, (mesh.vertices - centre) * room / voxel)
    surface = zero_surface(np.pad(field, 1, constant_values=FREE), np.full(3, -0.5 - voxel / 2), voxel)
    return Mesh(surface.vertices / room + centre, surface.faces)


def _free_corners(field: np.ndarray, vertices: np.ndarray) -> None:
    """Frees, in place, what is solid at the border of the grid only since no image looks there, as in its corners.

    vertices: of the shape (v, 3), voxels from the grid's centre; a region that holds one of them is left alone.
    """
    from scipy.ndimage import label

    regions, count = label(field < 0)
    last = np.array(field.shape) - 1
    nodes = np.clip(np.rint(vertices + last / 2).astype(int), 0, last)
    cut = np.zeros(count + 1, bool)
    for axis in range(3):
        cut[regions.take([0, -1], axis=axis)] = True
    cut[regions[tuple(nodes.T)]] = False
    cut[0] = False
    field[cut[regions]] = FREE


def view_rotations(count: int) -> np.ndarray:
    """Rotations (count, 3, 3) that turn a Fibonacci sphere of directions to the camera."""
    k = np.arange(count)
    y = (k + 0.5) * 2 / count - 1
    ring, turn = np.sqrt(1 - y * y), ((k + 1) % count) * np.pi * (3 - 5**0.5)
    x, z = np.cos(turn) * ring, np.sin(turn) * ring
    longitude, latitude = -np.arctan2(x, y), np.arctan2(z, np.hypot(x, y))
    zero, one = np.zeros(count), np.ones(count)
    cos, sin = np.cos(longitude), np.sin(longitude)
    about_y = np.array([[cos, zero, sin], [zero, one, zero], [-sin, zero, cos]])
    cos, sin = np.cos(latitude), np.sin(latitude)
    about_x = np.array([[one, zero, zero], [zero, cos, -sin], [zero, sin, cos]])
    return np.einsum("ijn,jkn->nik", about_y, about_x)


def _depth_image(scene: Scene, rotation: np.ndarray, settings: FusionSettings) -> np.ndarray:
    """Depths along the optical axis, (image, image) float32: FAR where there is nothing, then moved and eroded."""
    from scipy.ndimage import grey_erosion

    offsets = (np.arange(settings.image) - settings.image / 2) / settings.focal
    x, y = np.meshgrid(offsets, offsets)  # rows of the image along y
    rays = np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3) @ rotation  # depth 1 long, in the shape's frame
    origins = -DISTANCE * rotation[2] + NEAR * rays
    reached = scene.first_hits(origins, rays)[0] if settings.erosion > 1 else scene.clearance(origins, rays)
    depth = NEAR + reached.reshape(x.shape)
    depth = np.minimum(depth, FAR) - np.float32(settings.thickening / settings.resolution)
    return grey_erosion(depth, (settings.erosion, settings.erosion)) if settings.erosion > 1 else depth


def _averaged(scene: Scene, rotations: np.ndarray, depths: np.ndarray, settings: FusionSettings) -> np.ndarray:
    """Mean truncated distance of each grid point in voxels, (n, n, n) float32, positive where free, nowhere zero."""
    size = settings.resolution
    field = np.full((-(-size // BLOCK) * BLOCK,) * 3, -settings.truncation, np.float32)
    views = list(zip(rotations.astype(np.float32), depths, strict=True))
    inside_block = np.indices((BLOCK,) * 3).reshape(3, 1, -1)
    for blocks, near in _blocks(scene, settings):
        node = (blocks.T[:, :, None] + inside_block).reshape(3, -1)
        points = ((node + 0.5) / size - 0.5).astype(np.float32)
        field[tuple(node)] = (_mean_distance if near else _far_distance)(points, views, settings)
    field = field[:size, :size, :size]
    return np.where(np.abs(field) < LEAST, np.copysign(np.float32(LEAST), field), field)


def _blocks(scene: Scene, settings: FusionSettings) -> Iterator[tuple[np.ndarray, bool]]:
    """First points (b, 3) of blocks of the grid, and whether a surface may be truncation-near to any of their points.

    Elsewhere an image says that a point is free by the whole truncation, or nothing (or sees it before the far plane,
    which is no surface). Beside the truncation count the shift,
    the slant of the rays (at most 0.78 of the depth across), and the pixels that rounding and erosion look aside.
    """
    size = settings.resolution
    first = np.indices((-(-size // BLOCK),) * 3).reshape(3, -1).T * BLOCK
    centre = (first + BLOCK / 2) / size - 0.5
    slant = np.hypot(1, settings.image / settings.focal / 2 * 2**0.5)
    aside = (settings.erosion // 2 + 1) * 2**0.5 * FAR / settings.focal * size
    reach = (settings.truncation + settings.thickening) * slant + aside + BLOCK / 2 * 3**0.5
    near = scene.distance(centre) < reach / size
    for flag in (True, False):
        chosen = first[near == flag]
        for part in np.array_split(chosen, -(-len(chosen) // BLOCKS_AT_ONCE) or 1):
            if len(part):
                yield part, flag


def _mean_distance(points: np.ndarray, views: list, settings: FusionSettings) -> np.ndarray:
    """Mean over the images of depth minus own depth in voxels, truncated; images that see a surface far before do not
    count, and where none counts the point is solid."""
    most = np.float32(settings.truncation)
    total, count = np.zeros(points.shape[1], np.float32), np.zeros(points.shape[1], np.float32)
    for rotation, depth in views:
        ahead = _ahead(points, rotation, depth, settings)
        counts = ahead >= -most
        total += np.where(counts, np.minimum(ahead, most), 0)
        count += counts
    return np.where(count > 0, total / np.maximum(count, 1), -most)


def _far_distance(points: np.ndarray, views: list, settings: FusionSettings) -> np.ndarray:
    """As the mean distance, for points far from the surface: free as soon as one image sees well beyond the point."""
    most = np.float32(settings.truncation)
    result = np.full(points.shape[1], most)
    left = np.arange(points.shape[1])
    for rotation, depth in views:
        left = left[_ahead(points[:, left], rotation, depth, settings) < most]
        if len(left) == 0:
            return result
    result[left] = _mean_distance(points[:, left], views, settings)
    return result


def _ahead(points: np.ndarray, rotation: np.ndarray, depth: np.ndarray, settings: FusionSettings) -> np.ndarray:
    """By how many voxels an image sees farther than each point (3, n), (n,) float32; -inf outside the image."""
    x, y, z = rotation @ points
    z += np.float32(DISTANCE)
    scale = np.float32(settings.focal) / z
    middle = np.float32(settings.image / 2)
    column, row = np.rint(x * scale + middle), np.rint(y * scale + middle)
    within = (column >= 0) & (column < settings.image) & (row >= 0) & (row < settings.image)
    pixel = (row * np.float32(settings.image) + column).astype(np.int32)
    seen = depth.reshape(-1).take(pixel, mode="clip")
    return np.where(within, (seen - z) * np.float32(settings.resolution), np.float32(-np.inf))
