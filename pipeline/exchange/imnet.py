"""IM-NET's HDF5 of voxels, point-value pairs and grey views, written and read: sheet imnet.md 2.3 to 2.8.

Its frame gives a shape's box a diagonal of 1, so the grid over [-0.5, 0.5]^3 is made anew from the mesh here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from pipeline.arrays import Mesh, Rejected
from pipeline.exchange.shape import FinishedShape
from pipeline.exchange.views import grey_on_white
from pipeline.geometry.closest import Scene
from pipeline.samples.point_values import PAIRS, max_pool, point_values
from pipeline.seeds import rng_for

FINE, INPUT = 256, 64  # cells along an edge of the grid the pairs come from, and of what the encoder sees
FACTOR = 4  # between the levels of `solid_grid`
VIEWS, PIXELS = 24, 137
NAME = "all_vox256_img"


def write_set(folder: Path, split: str, shapes: Iterable[FinishedShape], count: int, seed: int) -> Path:
    """Write all_vox256_img_<split>.hdf5 and its .txt of names, one row per shape, from `count` shapes.

    Views are written where the shapes have IM-NET's 24 of 137 pixels. Memory: one shape at a time.
    """
    import h5py

    path = folder / f"{NAME}_{split}.hdf5"
    names = []
    with h5py.File(path, "w") as file:
        for row, shape in enumerate(shapes):
            for name, array in _rows(shape, seed).items():
                if row == 0:
                    # A chunk is a shape, which is what readers take.
                    file.create_dataset(name, (count, *array.shape), np.uint8, chunks=(1, *array.shape), compression=9)
                file[name][row] = array
            names.append(shape.name)
    (folder / f"{NAME}_{split}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return path


def _rows(shape: FinishedShape, seed: int) -> dict[str, np.ndarray]:
    """One shape's row of every dataset."""
    low, high = shape.mesh.bounds
    fine = solid_grid(shape.mesh, FINE, (low + high) / 2, float(np.linalg.norm(high - low)))
    rows = {"voxels": max_pool(fine, FINE // INPUT)[..., None]}
    for level in PAIRS:
        places, values = point_values(fine, level, rng_for(seed, f"export imnet/{level}", shape.name))
        rows |= {f"points_{level}": places, f"values_{level}": values[:, None]}
    images = shape.arrays.get("views.images")
    if images is not None and images.shape[:3] == (VIEWS, PIXELS, PIXELS):
        rows["pixels"] = grey_on_white(images)
    return rows


def solid_grid(mesh: Mesh, resolution: int, centre: np.ndarray, edge: float) -> np.ndarray:
    """Occupancies (R, R, R) bool of the cell centres of a cube around `centre`.

    As `voxelize`, but cells are looked into only where the surface may cross them: a cell farther from the surface
    than half its diagonal is in or out as a whole. The mesh must be watertight. Raises ValueError where R cannot be
    reached in steps of 4 from at most 16.
    """
    scene = Scene(mesh)
    size = resolution
    while size > 16:
        size, rest = divmod(size, FACTOR)
        if rest:
            raise ValueError(f"a grid of {resolution} cells cannot be refined in steps of {FACTOR}")
    cells = np.indices((size,) * 3).reshape(3, -1).T
    inside = np.zeros((size,) * 3, bool)
    while True:
        points = ((cells + 0.5) / size - 0.5) * edge + centre
        if size == resolution:
            inside[tuple(cells.T)] = scene.occupancy(points)
            return inside
        distance = scene.signed_distance(points)
        inside[tuple(cells.T)] = distance < 0
        crossed = cells[np.abs(distance) <= edge / size * 3**0.5 / 2 + 1e-6]
        inside = inside.repeat(FACTOR, 0).repeat(FACTOR, 1).repeat(FACTOR, 2)
        size *= FACTOR
        within = np.indices((FACTOR,) * 3).reshape(3, -1).T
        cells = (crossed[:, None] * FACTOR + within).reshape(-1, 3)


class ImnetSet(Sequence):
    """The rows of a published HDF5 file: {"voxels" (64, 64, 64) bool, "points_<level>", "values_<level>", "pixels"}.

    Points are canonical coordinates (n, 3) float32 of IM-NET's frame, values (n,) bool, pixels (24, 137, 137) uint8;
    what the file lacks is left out. names: those of the .txt beside it. Close it after use, or use it in `with`.
    Raises Rejected where the file has another form.
    """

    def __init__(self, path: Path) -> None:
        import h5py

        try:
            self._file = h5py.File(path, "r")
        except OSError as error:
            raise Rejected(f"{path.name} is no HDF5 file that can be read: {error}") from error
        self.names = path.with_suffix(".txt").read_text(encoding="utf-8").split()
        self._check(path.name)

    def _check(self, name: str) -> None:
        shapes = {"voxels": (INPUT,) * 3 + (1,), "pixels": (VIEWS, PIXELS, PIXELS)}
        for level, count in PAIRS.items():
            shapes |= {f"points_{level}": (count, 3), f"values_{level}": (count, 1)}
        if "voxels" not in self._file:
            raise Rejected(f"{name} has no dataset voxels")
        for dataset in shapes.keys() & self._file.keys():
            found = self._file[dataset]
            if found.shape != (len(self.names), *shapes[dataset]) or found.dtype != np.uint8:
                raise Rejected(
                    f"{name}: {dataset} is {found.dtype} {found.shape}, not uint8 "
                    f"{(len(self.names), *shapes[dataset])} as its .txt of {len(self.names)} names asks"
                )

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        if not 0 <= row < len(self):
            raise IndexError(row)
        return dict(self._arrays(row))

    def _arrays(self, row: int) -> Iterator[tuple[str, np.ndarray]]:
        yield "voxels", self._file["voxels"][row, ..., 0].astype(bool)
        for level in PAIRS:
            if f"points_{level}" in self._file:
                yield f"points_{level}", ((self._file[f"points_{level}"][row] + 0.5) / FINE - 0.5).astype(np.float32)
                yield f"values_{level}", self._file[f"values_{level}"][row, :, 0].astype(bool)
        if "pixels" in self._file:
            yield "pixels", self._file["pixels"][row]

    def __enter__(self) -> ImnetSet:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
