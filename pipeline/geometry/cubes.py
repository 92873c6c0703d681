"""Marching cubes: from a regular grid of values to a closed, outward surface."""

from __future__ import annotations

from typing import Literal

import numpy as np

from pipeline.arrays import Mesh, Rejected

NUDGE = 1e-3  # of the mean step from sample to sample: what a value on the level becomes; less collapses in float32
MAGNITUDE = 1e4  # the extractor compares products of values with an absolute 2e-16; large values keep it out of the way


def isosurface(
    values: np.ndarray,
    level: float,
    low: np.ndarray | float,
    high: np.ndarray | float,
    inside: Literal["above", "below"],
) -> Mesh:
    """The surface where a field crosses `level`, closed and with its faces outward.

    values: (nx, ny, nz), at least 2 along each axis; values[i, j, k] belongs to the point low + (i, j, k) * (high -
    low) / (n - 1), corner samples included, so there is no half-voxel shift. Where the inside reaches the border of
    the grid the surface is closed half a voxel beyond it. low, high: corners, (3,) or one number for all axes.
    inside: which side of the level is solid; "above" for occupancies and logits, "below" for signed distances.

    Extraction is by Lewiner's tables (Lewiner et al. 2003). Values equal to the level count as outside and are moved
    off it, since the tables leave holes there. Raises Rejected for a field that is nowhere or everywhere inside, or
    not finite.
    """
    signed = _signed(values, level, inside)
    low, high = np.broadcast_to(low, 3).astype(float), np.broadcast_to(high, 3).astype(float)
    spacing = (high - low) / (np.array(signed.shape) - 1)
    return zero_surface(_closed(signed), low - spacing, spacing)


def zero_surface(signed: np.ndarray, low: np.ndarray, spacing: np.ndarray | float) -> Mesh:
    """The surface where a field changes its sign, for fields known to be sound: nothing is checked or mended.

    signed: (nx, ny, nz) float32, negative inside, positive on the grid's border, nowhere zero or nearly so (|value|
    from 1e-4 to 1e6), somewhere negative. signed[i, j, k] belongs to the point low + (i, j, k) * spacing.
    """
    from skimage.measure import marching_cubes

    corners, faces, _, _ = marching_cubes(signed, 0.0, gradient_direction="descent")
    return Mesh(low + corners.astype(np.float64) * spacing, faces)


def _signed(values: np.ndarray, level: float, inside: str) -> np.ndarray:
    """The field as a float32 that is negative inside, never zero, and of a fixed largest magnitude."""
    if values.ndim != 3 or min(values.shape) < 2:
        raise ValueError(f"values have shape {values.shape}; a grid of at least 2 x 2 x 2 is needed")
    if not np.isfinite(values).all():
        raise Rejected(f"the field has {np.count_nonzero(~np.isfinite(values))} values that are not finite")
    signed = (values - level) * (-1.0 if inside == "above" else 1.0)
    solid = signed < 0
    if not solid.any():
        raise Rejected(f"the field is nowhere inside: no value is {inside} the level {level:g}")
    if solid.all():
        raise Rejected(f"the field is everywhere inside: all values are {inside} the level {level:g}")
    scaled = (signed * (MAGNITUDE / np.abs(signed).max())).astype(np.float32)
    on_level = scaled == 0
    if on_level.any():
        step = np.float32(NUDGE) * np.abs(np.diff(scaled, axis=0)).mean()
        scaled[on_level] = np.where(solid[on_level], -step, step)  # inside by less than float32 can say stays inside
    return scaled


def _closed(signed: np.ndarray) -> np.ndarray:
    """The field with one more layer of outside values all round: the mirror image of its border's inside."""
    padded = np.pad(signed, 1, mode="edge")
    for axis in range(3):
        for side in (0, -1):
            layer = [slice(None)] * 3
            layer[axis] = side
            padded[tuple(layer)] = np.abs(padded[tuple(layer)])
    return padded
