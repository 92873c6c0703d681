"""Into the canonical frame: bounding box centred at the origin, longest edge 1."""

from __future__ import annotations

from typing import Literal

from pipeline.settings import Settings


class ScaleSettings(Settings):
    """Which box becomes the unit box."""

    box: Literal["watertight", "raw"] = "watertight"
    """watertight: the box of the watertight mesh, which then lies inside [-0.5, 0.5]^3. raw: the box of the raw mesh,
    as Occupancy Networks did; the watertight mesh then reaches a little farther (theirs to about ±0.513)."""


import numpy as np

from pipeline.arrays import Mesh, Product, Rejected


def scale_to_off(watertight: Mesh, raw: Mesh, settings: ScaleSettings) -> Product:
    """The watertight mesh in the canonical frame, vertices rounded to float32.

    Both meshes are in the source frame. Figures `loc` (3 numbers) and `scale` lead back to it: source = loc + scale *
    canonical. Raises Rejected for a box without extent.
    """
    framing = watertight if settings.box == "watertight" else raw
    if len(watertight.faces) == 0 or len(framing.vertices) == 0:
        raise Rejected("there is no surface to scale")
    low, high = framing.bounds
    scale = float((high - low).max())
    if not np.isfinite(scale) or scale <= 0:
        raise Rejected(f"its bounding box has no extent to scale by (longest edge {scale:g})")
    loc = low + (high - low) / 2
    vertices = ((watertight.vertices - loc) / scale).astype(np.float32)
    return Product(Mesh(vertices, watertight.faces), {"loc": loc.tolist(), "scale": scale})
