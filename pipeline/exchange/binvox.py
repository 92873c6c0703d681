"""binvox files: a grid of flags, run by run (Patrick Min, www.patrickmin.com/binvox).

The file's order is x slowest, then z, then y; here grids are [x, y, z]. A cell's centre lies at
translate + scale * (index + 0.5) / R.
"""

from __future__ import annotations

import math
import re

import numpy as np

from pipeline.arrays import Rejected

LONGEST_RUN = 255
MOST_CELLS = 1024**3
LONGEST_HEADER = 4096
_HEADER = re.compile(rb"#binvox \d+\s*\n(?P<fields>(?:[^\n]*\n)*?)data\s*?\n")
CUBE = (-0.5, -0.5, -0.5)


def write_binvox(grid: np.ndarray, translate: tuple[float, float, float] = CUBE, scale: float = 1.0) -> bytes:
    """The bytes of a grid (R, R, R) bool; by default it covers the cube [-0.5, 0.5]^3."""
    size = " ".join(map(str, grid.shape))
    place = " ".join(f"{value:.9g}" for value in translate)
    flat = grid.transpose(0, 2, 1).ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(np.concatenate([starts, [flat.size]]))
    # A run longer than a byte can say is split: whole runs of 255 first, then what is left.
    parts = -(-lengths // LONGEST_RUN)
    pairs = np.empty((parts.sum(), 2), np.uint8)
    pairs[:, 0] = np.repeat(flat[starts], parts)
    pairs[:, 1] = LONGEST_RUN
    pairs[np.cumsum(parts) - 1, 1] = lengths - (parts - 1) * LONGEST_RUN
    header = f"#binvox 1\ndim {size}\ntranslate {place}\nscale {scale:.9g}\ndata\n"
    return header.encode() + pairs.tobytes()


def read_binvox(content: bytes) -> tuple[np.ndarray, tuple[float, float, float], float]:
    """The grid [x, y, z] bool, translate and scale. Raises Rejected where the file is not whole, or too large."""
    header = _HEADER.match(content[:LONGEST_HEADER])
    if header is None:
        raise Rejected("it is no binvox file: its header does not say so")
    fields = {line.split()[0]: line.split()[1:] for line in header["fields"].split(b"\n") if line.split()}
    try:
        size = tuple(int(value) for value in fields[b"dim"])
        translate = tuple(float(value) for value in fields.get(b"translate", (0, 0, 0)))
        (scale,) = (float(value) for value in fields.get(b"scale", (1,)))
    except (KeyError, ValueError) as error:
        raise Rejected(f"the header of the binvox file cannot be read: {error}") from error
    if len(size) != 3 or len(translate) != 3 or min(size) < 1 or math.prod(size) > MOST_CELLS:
        raise Rejected(f"the binvox file announces a grid of {size}, translate {translate}")
    pairs = np.frombuffer(content[header.end() :], np.uint8)
    values, lengths = pairs[: len(pairs) // 2 * 2].reshape(-1, 2).T
    if len(pairs) % 2 or int(lengths.sum(dtype=np.int64)) != math.prod(size) or values.max(initial=0) > 1:
        raise Rejected(f"the binvox file does not hold the {math.prod(size):,} cells it announces")
    x, y, z = size
    grid = np.repeat(values.astype(bool), lengths).reshape(x, z, y).transpose(0, 2, 1)
    return np.ascontiguousarray(grid), translate, scale
