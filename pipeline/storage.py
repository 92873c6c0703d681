"""Encodings of arrays for storage: fewer bytes at a stated error, and the same numbers for every reader.

Random points do not compress, so they are quantised. An encoding is a tuple that JSON can hold (lists, as they come
back from JSON, serve as well):

    ("float32",)        as it is
    ("float16",)        half precision
    ("uint16", bound)   65535 equal steps over [-bound, bound], zero exactly among them
    ("oct8",) ("oct16",) unit vectors as two signed 8 or 16 bit coordinates on an unfolded octahedron
    ("bits", [shape])   flags, eight to a byte, first flag in the highest bit
    ("png", [shape])    pictures (n, height, width, channels) of 1, 3 or 4 channels of a byte, without loss: one above
                        the other in a single PNG

`pipeline.storage_settings` chooses among them. What a reader sees is `rounded(array, encoding)`, and storing that
loses nothing more: `decode(encode(rounded(x))) == rounded(x)`, bit for bit.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Literal

import numpy as np

Encoding = Sequence[str | float | Sequence[int]]  # a name, and its parameter if it has one

HALF_STEPS = 32767  # of uint16 on each side of zero; 65535, its last value, is left unused
BOUND_GRID = 64  # bounds are multiples of 1/64, so that equal ranges give equal bounds whatever the points
PNG_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # by channels
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


def png_encoding(pictures: np.ndarray) -> tuple:
    """The encoding of pictures (n, height, width, channels) uint8."""
    return ("png", list(pictures.shape))


def rounded(array: np.ndarray, encoding: Encoding) -> np.ndarray:
    """What a reader of the stored array will see: float32 in its shape, bool for bits, uint8 for pictures."""
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
        case ["png", shape]:
            return _pictures_to_png(array, shape)
    raise _unknown(encoding)


def decode(stored: np.ndarray, encoding: Encoding) -> np.ndarray:
    """The array that was stored: float32, bool or uint8. Raises ValueError where the encoding is unknown."""
    match encoding:
        case ["float32"] | ["float16"]:
            return stored.astype(np.float32)
        case ["uint16", bound]:
            return ((stored.astype(np.float64) - HALF_STEPS) * (bound / HALF_STEPS)).astype(np.float32)
        case ["oct8" | "oct16" as name]:
            return _from_octahedron(stored, OCTAHEDRON[name][0])
        case ["bits", shape]:
            return np.unpackbits(stored, count=int(np.prod(shape))).astype(bool).reshape(shape)
        case ["png", shape]:
            return _pictures_from_png(stored, shape)
    raise _unknown(encoding)


def _unknown(encoding: Encoding) -> ValueError:
    return ValueError(
        f"unknown encoding {encoding!r}; known are ('float32',) ('float16',) ('uint16', bound) ('oct8',) ('oct16',) "
        "('bits', shape) ('png', shape)"
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


def _pictures_to_png(pictures: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    from PIL import Image

    expected = tuple(shape)
    if pictures.dtype != np.uint8 or pictures.shape != expected or len(expected) != 4 or expected[3] not in PNG_MODES:
        raise ValueError(
            f"png of shape {expected} needs uint8 pictures (n, height, width, 1, 3 or 4) of that shape, got "
            f"{pictures.dtype} {pictures.shape}"
        )
    stream = io.BytesIO()
    _stacked(pictures, Image).save(stream, "png")
    return np.frombuffer(stream.getvalue(), np.uint8)


def _stacked(pictures: np.ndarray, image):
    count, height, width, channels = pictures.shape
    size = (width, count * height)
    return image.frombytes(PNG_MODES[channels], size, np.ascontiguousarray(pictures).tobytes())


def _pictures_from_png(stored: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    from PIL import Image

    count, height, width, channels = shape
    with Image.open(io.BytesIO(stored.tobytes()), formats=("png",)) as image:
        if image.size != (width, count * height) or image.mode != PNG_MODES[channels]:
            raise ValueError(f"png of shape {tuple(shape)} holds a picture of size {image.size}, mode {image.mode}")
        return np.array(image).reshape(shape)
