"""Encodings of arrays for storage: fewer bytes at a stated error, and the same numbers for every reader.

Random points do not compress, so they are quantised. An encoding is a tuple that JSON can hold (lists, as they come
back from JSON, serve as well):

    ("float32",)        as it is
    ("float16",)        half precision
    ("uint16", bound)   65535 equal steps over [-bound, bound], zero exactly among them
    ("oct8",) ("oct16",) unit vectors as two signed 8 or 16 bit coordinates on an unfolded octahedron
    ("bits", [shape])   flags, eight to a byte, first flag in the highest bit

`pipeline.storage_settings` chooses among them. What a reader sees is `rounded(array, encoding)`, and storing that
loses nothing more: `decode(encode(rounded(x))) == rounded(x)`, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

Encoding = Sequence[str | float | Sequence[int]]  # a name, and its parameter if it has one

HALF_STEPS = 32767  # of uint16 on each side of zero; 65535, its last value, is left unused
BOUND_GRID = 64  # bounds are multiples of 1/64, so that equal ranges give equal bounds whatever the points
OCTAHEDRON = {"oct8": (127, np.int8), "oct16": (32767, np.int16)}  # its size in steps, and the type that holds one


def points_encoding(points: np.ndarray, kind: Literal["float32", "float16", "uint16"]) -> tuple:
    """The encoding of that kind for points (n, 3); the bound of uint16 is the next multiple of 1/64 that holds them.

    Raises ValueError where a coordinate is not finite.
    """
    if kind != "uint16":
        return (kind,)
    reach = float(np.abs(points).max(initial=0.0))
    if not np.isfinite(reach):
        raise ValueError("points have coordinates that are not finite, so no range holds them")
    return (kind, max(1.0, float(np.ceil(reach * BOUND_GRID))) / BOUND_GRID)


def bits_encoding(flags: np.ndarray) -> tuple:
    """The encoding of a bool array of any shape."""
    return ("bits", list(flags.shape))


def rounded(array: np.ndarray, encoding: Encoding) -> np.ndarray:
    """What a reader of the stored array will see: float32 in the array's shape, or bool for bits."""
    return decode(encode(array, encoding), encoding)


def encode(array: np.ndarray, encoding: Encoding) -> np.ndarray:
    """The array as stored. Raises ValueError where it does not fit the encoding, or the encoding is unknown."""
    match encoding:
        case ["float32"]:
            return np.asarray(array, np.float32)
        case ["float16"]:
            return _half(array)
        case ["uint16", bound]:
            return _quantised(array, bound)
        case ["oct8" | "oct16" as name]:
            return _on_octahedron(array, *OCTAHEDRON[name])
        case ["bits", shape]:
            return _packed(array, shape)
    raise _unknown(encoding)


def decode(stored: np.ndarray, encoding: Encoding) -> np.ndarray:
    """The array that was stored, float32 or bool. Raises ValueError where the encoding is unknown."""
    match encoding:
        case ["float32"] | ["float16"]:
            return stored.astype(np.float32)
        case ["uint16", bound]:
            return ((stored.astype(np.float64) - HALF_STEPS) * (bound / HALF_STEPS)).astype(np.float32)
        case ["oct8" | "oct16" as name]:
            return _from_octahedron(stored, OCTAHEDRON[name][0])
        case ["bits", shape]:
            return np.unpackbits(stored, count=int(np.prod(shape))).astype(bool).reshape(shape)
    raise _unknown(encoding)


def _unknown(encoding: Encoding) -> ValueError:
    return ValueError(
        f"unknown encoding {encoding!r}; known are ('float32',) ('float16',) ('uint16', bound) ('oct8',) ('oct16',) "
        "('bits', shape)"
    )


def _half(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        stored = np.asarray(array).astype(np.float16)
    if not np.isfinite(stored).all():
        raise ValueError("values do not fit float16: some are not finite or beyond 65504")
    return stored


def _quantised(array: np.ndarray, bound: float) -> np.ndarray:
    steps = np.rint(np.asarray(array, np.float64) * (HALF_STEPS / bound))
    if not (np.abs(steps) <= HALF_STEPS).all():
        raise ValueError(f"values reach {np.abs(array).max()}, beyond the encoding's range [-{bound}, {bound}]")
    return (steps + HALF_STEPS).astype(np.uint16)


def _on_octahedron(vectors: np.ndarray, size: int, kind: type) -> np.ndarray:
    """Unit vectors (..., 3) put on |x| + |y| + |z| = 1, whose lower half is folded outward into a square: (..., 2)."""
    vectors = np.asarray(vectors, np.float64)
    spread = np.abs(vectors).sum(axis=-1, keepdims=True)
    if not ((spread > 0) & np.isfinite(spread)).all():
        raise ValueError("normals of length zero or with values that are not finite have no direction to store")
    flat = vectors[..., :2] / spread
    folded = (1 - np.abs(flat[..., ::-1])) * _sign(flat)
    flat = np.where(vectors[..., 2:] < 0, folded, flat)
    return np.rint(flat * size).astype(kind)


def _from_octahedron(stored: np.ndarray, size: int) -> np.ndarray:
    """Unit vectors (..., 3) float32. Whole numbers up to the last step, so that borders which coincide decode alike."""
    flat = stored.astype(np.int64)
    height = size - np.abs(flat).sum(axis=-1, keepdims=True)
    unfolded = (size - np.abs(flat[..., ::-1])) * _sign(flat)
    vectors = np.concatenate([np.where(height < 0, unfolded, flat), height], axis=-1)
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def _sign(values: np.ndarray) -> np.ndarray:
    """-1 for negative values, else 1: a fold needs a side for zero too."""
    return np.where(values < 0, -1, 1)


def _packed(flags: np.ndarray, shape: int | Sequence[int]) -> np.ndarray:
    expected = tuple(np.atleast_1d(shape))
    if flags.dtype != np.bool_ or flags.shape != expected:
        raise ValueError(f"bits of shape {expected} need a bool array of that shape, got {flags.dtype} {flags.shape}")
    return np.packbits(flags)
