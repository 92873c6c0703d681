"""Rows of the datasets of an HDF5 file from strangers, as bytes: nothing is read that lies outside the file."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path

from pipeline.arrays import Rejected
from pipeline.sources.catalogue import OF_THE_FILE
from pipeline.sources.errors import SourceError

MOST_BYTES = 2**28  # of the rows that are unpacked together


def read_row(path: Path, dataset: str, row: int, rows: int, form: Sequence[int]) -> bytes:
    """The bytes of one row of a dataset uint8 (rows, *form).

    Chunks may hold parts of hundreds of rows, as they do where their size was left to h5py, so all rows of a chunk are
    unpacked together and the last such block is kept: rows asked for in order are unpacked once. Raises Rejected where
    the file or dataset is not as it should be, SourceError where the file's folder is gone, OSError for a bad disk.
    """
    try:
        status = path.stat()
        stamp = (status.st_size, status.st_mtime_ns)
        together = _rows_of_a_chunk(path, stamp, dataset, rows, tuple(form))
        block = _block(path, stamp, dataset, row - row % together, together)
        return block[row % together].tobytes()
    except FileNotFoundError as error:
        if not path.parent.is_dir():
            raise SourceError(f"{path.parent} is not there any more; is its disk mounted?") from error
        raise Rejected(f"{path.name} is not there any more") from error
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        if isinstance(error, OSError) and error.errno and error.errno not in OF_THE_FILE:
            raise
        raise Rejected(f"{path.name} is no HDF5 file that can be read: {error}") from error


@functools.lru_cache(maxsize=8)
def _rows_of_a_chunk(path: Path, stamp: tuple, dataset: str, rows: int, form: tuple[int, ...]) -> int:
    """How many rows are best read together. Rejected where the dataset is not one of `rows` rows of that form."""
    import h5py
    import numpy as np

    with h5py.File(path, "r", locking=False) as file:
        # A link may lead to other files, and so may a dataset's storage.
        if not isinstance(file.get(dataset, getlink=True), h5py.HardLink) or not isinstance(
            file[dataset], h5py.Dataset
        ):
            raise Rejected(f"{path.name} has no dataset {dataset}")
        found = file[dataset]
        if found.is_virtual or found.external:
            raise Rejected(f"{path.name}: {dataset} lies in other files, which are not opened")
        if found.dtype != np.uint8 or found.shape != (rows, *form):
            raise Rejected(
                f"{path.name}: {dataset} is {found.dtype} {found.shape}, not uint8 {(rows, *form)} as its .txt of "
                f"{rows} names asks"
            )
        return max(1, min(found.chunks[0] if found.chunks else 1, MOST_BYTES // math.prod(form)))


@functools.lru_cache(maxsize=1)
def _block(path: Path, stamp: tuple, dataset: str, first: int, count: int):
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        return file[dataset][first : first + count]
