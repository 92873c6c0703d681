"""Point-value pairs of a voxel grid, as IM-NET learns from: cells of coarser grids, shown near the surface first.

Chen and Zhang: Learning Implicit Fields for Generative Shape Modeling, CVPR 2019; numbers as in the released code's
256^3 preparation. A cell is occupied where any of its voxels is. Its pair is a voxel of the cell that has the cell's
value, so a pair is exact on the voxel grid, and cells that the surface crosses are always shown from inside. The voxel
is a random one; but the released code tries 100 random voxels of the cell and then takes the first in a fixed order
that begins at the middle, and so do the pairs here, with the same probabilities: a cell of 16^3 voxels of which one is
inside misses it in 98 of 100 draws.

Deviation: the pairs of a level are shuffled, so that any run of them is a random part (the original leaves those near
the surface in front, and then trains on contiguous quarters).
"""

from __future__ import annotations

from functools import cache

import numpy as np

TRIES = 100  # random voxels of a cell before the fixed order

PAIRS = {16: 4096, 32: 4096, 64: 16384}
"""Pairs per level, the number of cells along an edge."""


def point_values(
    voxels: np.ndarray, level: int, rng: np.random.Generator, near: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of one level, PAIRS[level] of them: voxel indices (n, 3) uint8 and values (n,) bool.

    voxels: (R, R, R) bool with R a multiple of the level, at most 256; index order x, y, z. Index i lies at
    (i + 0.5) / R - 0.5. At level 16 every cell is shown once; at 32 and 64 first the cells whose 3^3 neighbourhood is
    mixed, in the original's strided order, as far as their number is at most the share `near` of all, then others at
    random. Raises ValueError for a grid or level that does not fit.
    """
    size = _checked_size(voxels, level)
    coarse = max_pool(voxels, size // level)
    cells = _chosen_cells(coarse, PAIRS[level], near, rng)
    places, values = _voxel_of_each(voxels, coarse, cells, rng)
    order = rng.permutation(len(cells))
    return places[order].astype(np.uint8), values[order]


def max_pool(voxels: np.ndarray, factor: int) -> np.ndarray:
    """A grid coarser by a factor that divides its size: a cell is occupied where any of its voxels is."""
    return _blocks(voxels, factor).any(axis=(1, 3, 5))


def _checked_size(voxels: np.ndarray, level: int) -> int:
    size = voxels.shape[0]
    if level not in PAIRS:
        raise ValueError(f"there is no level {level}; those are {', '.join(map(str, PAIRS))}")
    if voxels.shape != (size,) * 3 or size % level or not level <= size <= 256:
        raise ValueError(f"a grid of shape {voxels.shape} has no level of {level} cells; use 64, 128 or 256 voxels")
    return size


def _blocks(voxels: np.ndarray, factor: int) -> np.ndarray:
    """The grid as (cells, factor, cells, factor, cells, factor)."""
    cells = voxels.shape[0] // factor
    return voxels.reshape(cells, factor, cells, factor, cells, factor)


def _chosen_cells(coarse: np.ndarray, count: int, near: float, rng: np.random.Generator) -> np.ndarray:
    """Flat numbers (count,) of the cells to show, each at most once."""
    if coarse.size == count:
        return np.arange(count)
    mixed = _mixed_cells(coarse)[: round(near * count)]
    unused = np.ones(coarse.size, bool)
    unused[mixed] = False
    rest = rng.choice(np.flatnonzero(unused), count - len(mixed), replace=False)
    return np.concatenate([mixed, rest])


def _mixed_cells(coarse: np.ndarray) -> np.ndarray:
    """Flat numbers of the cells, not at the border, whose 3^3 neighbourhood holds both values, in strided order.

    The order: indices 1, 5, 9, ..., then 2, 6, ..., then 3, 7, ..., then 4, 8, ... on every axis, y outermost, then x,
    then z.
    """
    size = coarse.shape[0]
    around, within = _over_neighbours(coarse, np.logical_or), _over_neighbours(coarse, np.logical_and)
    mixed = np.zeros_like(coarse)
    mixed[1:-1, 1:-1, 1:-1] = around & ~within
    order = np.concatenate([np.arange(first, size - 1, 4) for first in (1, 2, 3, 4)])
    y, x, z = np.meshgrid(order, order, order, indexing="ij")
    flat = np.ravel_multi_index((x.ravel(), y.ravel(), z.ravel()), coarse.shape)
    return flat[mixed.ravel()[flat]]


def _over_neighbours(cells: np.ndarray, combine: np.ufunc) -> np.ndarray:
    """A binary function of the 3^3 neighbourhood of every cell that is not at the border, one axis after the other."""
    for axis in range(3):
        cells = np.moveaxis(cells, axis, 0)
        cells = np.moveaxis(combine(combine(cells[:-2], cells[1:-1]), cells[2:]), 0, axis)
    return cells


def _voxel_of_each(
    voxels: np.ndarray, coarse: np.ndarray, cells: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A voxel of each cell (n,) that has the cell's value: indices (n, 3), values (n,)."""
    factor = voxels.shape[0] // coarse.shape[0]
    content = _blocks(voxels, factor).transpose(0, 2, 4, 1, 3, 5).reshape(coarse.size, factor**3)[cells]
    values = coarse.ravel()[cells]
    chosen = _drawn_voxels(content == values[:, None], rng)
    corners = np.stack(np.unravel_index(cells, coarse.shape), axis=1) * factor
    return corners + np.stack(np.unravel_index(chosen, (factor,) * 3), axis=1), values


def _drawn_voxels(fits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each row of fits (n, factor^3) bool the number (n,) of an entry that is True, of which there is at least one.

    Uniform among them with the probability that one of TRIES draws with replacement meets any; else the first of them
    in the fixed order. That is what the tries themselves would give.
    """
    rank = fits.cumsum(axis=1, dtype=np.int16)
    count = rank[:, -1]
    wanted = np.floor(rng.random(len(fits)) * count)
    chosen = (rank > wanted[:, None]).argmax(axis=1)
    missed = rng.random(len(fits)) < (1 - count / fits.shape[1]) ** TRIES
    order = _from_the_middle(round(fits.shape[1] ** (1 / 3)))
    chosen[missed] = order[fits[missed][:, order].argmax(axis=1)]
    return chosen


@cache
def _from_the_middle(edge: int) -> np.ndarray:
    """Flat numbers of all edge^3 voxels of a cell, each once, in the order of the released code.

    First the middle, then growing cubes of 2, 4, 6, ... voxels around it, each by rows and, from 4 on, after the six
    voxels in the middle of its faces; last what an odd edge leaves.
    """
    half = edge // 2
    numbers = np.arange(edge**3).reshape((edge,) * 3)
    found = [numbers[half, half, half]]
    for reach in range(1, half + 1):
        low = half - reach
        high = half + reach
        if reach > 1:
            faces = [numbers[end, half, half] for end in (low, high - 1)]
            faces += [numbers[half, half, end] for end in (low, high - 1)]
            faces += [numbers[half, end, half] for end in (low, high - 1)]
            found += faces
        found.extend(numbers[low:high, low:high, low:high].ravel())
    found.extend(numbers.ravel())
    return np.array(list(dict.fromkeys(found)))
