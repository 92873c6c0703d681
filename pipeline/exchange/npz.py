"""NumPy's archives from strangers: sizes are checked before anything is allocated, and no object is ever unpickled."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np

from pipeline.arrays import Rejected

MOST_BYTES = 2**28  # of all arrays of one archive; DeepSDF's hold 8 MB, those of Occupancy Networks 2
MOST_ARRAYS = 1000
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
BROKEN = (
    *(zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError),
    *(ValueError, SyntaxError, TypeError, OverflowError),
)


def read_npz(content: bytes, most_bytes: int = MOST_BYTES) -> dict[str, np.ndarray]:
    """Name → array of an npz file. Raises Rejected where it is none, is damaged, holds objects or too much."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            if len(members) > MOST_ARRAYS or sum(member.file_size for member in members) > most_bytes:
                raise Rejected(f"the npz file holds more than {MOST_ARRAYS} arrays or {most_bytes:,} bytes")
            return {member.filename.removesuffix(".npy"): _array(archive, member) for member in members}
    except BROKEN as error:
        raise Rejected(f"it is not an npz file that can be read: {error}") from error


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in HEADERS:
            raise ValueError(f"{member.filename} has version {version} of the npy format")
        shape, by_column, kind = HEADERS[version](stream)
        if kind.hasobject:
            raise ValueError(f"{member.filename} holds Python objects, which are not opened")
        needed = math.prod(shape) * kind.itemsize
        if needed != member.file_size - stream.tell():
            raise ValueError(f"{member.filename} announces {needed:,} bytes and does not hold as many")
        values = stream.read()
    return np.frombuffer(values, kind).reshape(shape, order="F" if by_column else "C")


def write_npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of an npz file; equal arrays give equal bytes."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def take(arrays: Mapping[str, np.ndarray], name: str, *shape: int | None) -> np.ndarray:
    """An array of numbers of an archive; None in the shape stands for any length. Raises Rejected."""
    if name not in arrays:
        raise Rejected(f"the npz file has no array {name!r}; it has {', '.join(sorted(arrays)) or 'none'}")
    array = arrays[name]
    fits = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    if not fits or array.dtype.kind not in "fiub":
        raise Rejected(f"the array {name!r} is {array.dtype} {array.shape}, not numbers of shape {shape}")
    return array
