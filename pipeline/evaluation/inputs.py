"""How good the input itself is, by the measures of a reconstruction (IF-Net's evaluation of inputs, ifnet.md 6.1).

What a method gains shows beside its input: a voxel grid counts as the mesh of its cells' outer faces, a cloud as
samples of a surface that has neither normals nor an inside.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pipeline.arrays import Mesh
from pipeline.evaluation.metrics import compare_surfaces, volume_iou
from pipeline.evaluation.occupancy import inside_many
from pipeline.geometry.sampling import points_on_surface

SAMPLES = 100_000
"""Points on the mesh of a voxel grid, as IF-Net draws on any mesh."""

SIDES = np.array([(axis, step) for axis in range(3) for step in (-1, 1)])


def evaluate_input(
    observation: Mapping[str, np.ndarray],
    surface: Mapping[str, np.ndarray] | None,
    volume: Mapping[str, np.ndarray],
    rng: np.random.Generator,
) -> dict[str, float]:
    """Metrics of one shape's observation against its reference, keys with "input_" before them.

    observation: "points" (n, 3) alone for a cloud or "voxels" (R, R, R) for a grid over [-0.5, 0.5]^3; of anything
    else, and of an empty grid, there is nothing to measure and the row is empty. surface: "points" and "normals", None
    where it is not at hand. volume: "points" and "occupancies". A cloud has no IoU and no normal consistency: both are
    NaN, and with fewer points than the reference its completeness is mostly its sparsity.
    """
    if "voxels" in observation and np.any(observation["voxels"]):
        mesh = voxel_mesh(observation["voxels"])
        row = {"iou": volume_iou(inside_many(mesh, volume["points"], "waterproof"), volume["occupancies"])}
        samples = points_on_surface(mesh, SAMPLES, rng)
    elif set(observation) == {"points"} and len(observation["points"]):
        row, samples = {"iou": float("nan")}, (observation["points"], None)
    else:
        return {}
    if surface is not None:
        row |= compare_surfaces(*samples, surface["points"], surface["normals"])
    return {f"input_{key}": value for key, value in row.items()}


def voxel_mesh(occupancies: np.ndarray) -> Mesh:
    """The outer faces of occupied voxels (R, R, R) over [-0.5, 0.5]^3 as two triangles each, wound outward.

    Voxel i spans [i / R - 0.5, (i + 1) / R - 0.5]. Corners are shared, so cells that touch along an edge alone meet in
    a non-manifold edge. Raises ValueError where the grid is no cube.
    """
    occupied = np.asarray(occupancies) > 0.5
    size = occupied.shape[0]
    if occupied.shape != (size,) * 3:
        raise ValueError(f"a voxel grid is a cube, got {occupied.shape}")
    padded = np.pad(occupied, 1)
    quads = []
    for axis, step in SIDES:
        exposed = occupied & ~np.roll(padded, -step, axis=axis)[1:-1, 1:-1, 1:-1]
        quads.append(np.argwhere(exposed)[:, None] + _corners(axis, step))
    corners = np.concatenate(quads)
    numbers, faces = np.unique(_number(corners, size), return_inverse=True)
    vertices = np.stack(np.unravel_index(numbers, (size + 1,) * 3), axis=1) / size - 0.5
    faces = faces.reshape(-1, 4)
    return Mesh(vertices, np.concatenate([faces[:, [0, 1, 2]], faces[:, [0, 2, 3]]]))


def _corners(axis: int, step: int) -> np.ndarray:
    """The four corners of a unit cell's side, (4, 3), counter-clockwise as seen from outside."""
    second, third = (axis + 1) % 3, (axis + 2) % 3
    square = np.zeros((4, 3), np.int64)
    square[:, axis] = step > 0
    square[[1, 2], second] = 1
    square[[2, 3], third] = 1
    return square if step > 0 else square[::-1]


def _number(corners: np.ndarray, size: int) -> np.ndarray:
    x, y, z = np.moveaxis(corners, -1, 0)
    return (x * (size + 1) + y) * (size + 1) + z
