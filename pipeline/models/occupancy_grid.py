"""Observed occupancy grids: kept as bits, asked for by models that see voxels, or made of a cloud's points."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipeline.arrays import Rejected


def checked_grid(grid: np.ndarray, resolution: int) -> np.ndarray:
    """The grid (R, R, R) as bool. Raises Rejected where R is not the resolution that the model is made for."""
    if grid.shape != (resolution,) * 3:
        raise Rejected(
            f"the voxels have shape {grid.shape}, but this model observes {resolution} cells along each edge: give it "
            f"such a grid, or set its resolution and train it again"
        )
    return grid.astype(bool, copy=False)


def packed_grid(grid: np.ndarray) -> np.ndarray:
    """A bool grid (R, R, R) as bits, (ceil(R^3 / 8),) uint8, the first cell in the highest bit."""
    return np.packbits(grid)


def gathered_grids(packed: Tensor, shapes: Tensor, resolution: int) -> Tensor:
    """Grids of the shapes (B,) from packed ones (S, bytes): occupancies (B, R, R, R), float32, 0 or 1.

    They lie on the device of `shapes`.
    """
    chosen = packed.index_select(0, shapes.to(packed.device)).to(shapes.device)
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=shapes.device)
    bits = (chosen[..., None] >> shifts & 1).flatten(1)
    return bits[:, : resolution**3].float().view(-1, resolution, resolution, resolution)


def rasterised(points: Tensor, resolution: int) -> Tensor:
    """Clouds (B, M, 3) in [-0.5, 0.5]^3 as occupancies (B, R, R, R): 1 at the lattice node nearest to each point.

    The R nodes of an axis reach from -0.5 to 0.5, both included; points outside go to the border.
    """
    node = ((points + 0.5) * (resolution - 1)).round().clamp(0, resolution - 1).long()
    cell = (node[..., 0] * resolution + node[..., 1]) * resolution + node[..., 2]
    grids = torch.zeros((len(points), resolution**3), device=points.device).scatter_(1, cell, 1.0)
    return grids.view(-1, resolution, resolution, resolution)
