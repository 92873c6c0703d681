"""From fields to meshes: the level set of each shape's field as a triangle mesh.

The field is asked in blocks of a fixed number of points that mix the shapes of a group, so that a device sees full
batches also in the small late rounds of MISE. Values are taken raw (logits, distances), where the linear
interpolation of marching cubes is accurate; probabilities are turned into the level, not the values into
probabilities. Vertices stand where the lattice points stand, without any half-voxel shift.
"""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from pipeline.settings import Settings


class ExtractionSettings(Settings):
    """How a mesh is taken from a field."""

    method: Literal["mise", "dense"] = "mise"
    """mise: a coarse lattice, refined where the surface passes. dense: every point of the fine lattice."""

    resolution_0: PositiveInt = 32
    """Cells per axis of the coarse lattice of mise; thinner parts than a cell may be lost unless `mode` is safe."""

    depth: NonNegativeInt = 2
    """How often mise halves its cells: the final lattice has resolution_0 * 2^depth cells per axis."""

    mode: Literal["faithful", "safe"] = "faithful"
    """mise: "faithful" evaluates the original's points. "safe" also refines beside the surface and where values are
    near the level, about twice as many points, and keeps thin parts between the planes of the coarse lattice."""

    resolution: PositiveInt = 128
    """Cells per axis of dense; a lattice of n points per axis has n - 1 cells."""

    box: PositiveFloat = 1.1
    """Edge of the cube that is searched, centred at the origin; canonical units (the shape's longest edge is 1)."""

    level: float | None = None
    """Where the surface lies: for occupancies a probability between 0 and 1 (null: 0.5), for signed distances a
    distance in canonical units (null: 0)."""

    batch_points: PositiveInt = 65_536
    """Points per call of the field; more fills a large device better and takes more of its memory."""

    batch_shapes: PositiveInt = 16
    """Shapes refined together; each holds its lattice in memory, 5 bytes a point (11 MB at 128, 85 MB at 256)."""

    checkpoint: Literal["best", "last"] = "best"
    """Which weights: the best by validation, or the last. Where a method does not validate they are the same."""

    largest_component: bool = False
    """Keep only the connected part of largest area."""


from collections.abc import Callable, Iterator

import numpy as np

from pipeline.arrays import Mesh, Product, Rejected
from pipeline.geometry.clean import without_unused_vertices
from pipeline.geometry.cubes import isosurface
from pipeline.geometry.field import Quantity, raw_level
from pipeline.geometry.measures import face_areas
from pipeline.geometry.quality import face_components
from pipeline.reconstruction.dense import Lattice
from pipeline.reconstruction.mise import Refinement, lattice_positions

Field = Callable[[np.ndarray, np.ndarray], np.ndarray]

ROW_POINTS = 2048  # a row of a block belongs to one shape; longer rows waste more on padding, shorter ones on codes


def extract(field: Field, shapes: int, quantity: Quantity, settings: ExtractionSettings) -> list[Product | Rejected]:
    """A mesh per shape, in order; where there is none, the Rejected that says why.

    field: maps shape indices (B,) int64 and queries (B, N, 3) float32, canonical frame, to values (B, N) of the
    quantity; a shape may stand in several rows. Products hold a Mesh wound outward and the figures query_points
    (evaluated for it) and faces. Raises ValueError where the level does not suit the quantity.
    """
    level = raw_level(quantity, settings.level)
    inside = "below" if quantity == "signed_distance" else "above"
    outcomes: list[Product | Rejected] = []
    for start in range(0, shapes, settings.batch_shapes):
        group = range(start, min(start + settings.batch_shapes, shapes))
        grids = {shape: _grid(settings, level) for shape in group}
        faults = _evaluate(field, grids, settings)
        for shape in group:
            outcomes.append(faults.get(shape) or _mesh(grids.pop(shape), level, inside, settings))
    return outcomes


def _grid(settings: ExtractionSettings, level: float) -> Refinement | Lattice:
    if settings.method == "dense":
        return Lattice(settings.resolution, kind=np.float32)
    return Refinement(settings.resolution_0, settings.depth, level, settings.mode, kind=np.float32)


def _evaluate(
    field: Field, grids: dict[int, Refinement | Lattice], settings: ExtractionSettings
) -> dict[int, Rejected]:
    """Advance all grids together to their ends; gives the shapes whose field failed."""
    faults: dict[int, Rejected] = {}
    while rounds := dict(_open_rounds(grids, settings.box, skip=faults)):
        for shape, values in _in_blocks(field, rounds, settings.batch_points).items():
            try:
                grids[shape].update(values)
            except Rejected as fault:
                faults[shape] = fault
    return faults


def _open_rounds(grids: dict[int, Refinement | Lattice], box: float, skip) -> Iterator[tuple[int, np.ndarray]]:
    for shape, grid in grids.items():
        if shape not in skip and len(points := grid.queries()):
            yield shape, lattice_positions(points, grid.resolution, box).astype(np.float32)


def _in_blocks(field: Field, rounds: dict[int, np.ndarray], batch_points: int) -> dict[int, np.ndarray]:
    """Values (n,) for each shape's points (n, 3), asked in blocks of one size, but for the last."""
    length = min(ROW_POINTS, batch_points)
    rows = [(shape, start) for shape, points in rounds.items() for start in range(0, len(points), length)]
    values = {shape: np.empty(len(points), np.float32) for shape, points in rounds.items()}
    for first in range(0, len(rows), batch_points // length):
        block = rows[first : first + batch_points // length]
        queries = np.stack([_padded(rounds[shape][start : start + length], length) for shape, start in block])
        answers = np.asarray(field(np.array([shape for shape, _ in block]), queries))
        if answers.shape != queries.shape[:2]:
            raise ValueError(f"the field gave values of shape {answers.shape} for queries of shape {queries.shape}")
        for (shape, start), answer in zip(block, answers, strict=True):
            target = values[shape][start : start + length]
            target[:] = answer[: len(target)]
    return values


def _padded(points: np.ndarray, length: int) -> np.ndarray:
    """The points, then the last one repeated: (length, 3)."""
    return points if len(points) == length else np.pad(points, ((0, length - len(points)), (0, 0)), mode="edge")


def _mesh(
    grid: Refinement | Lattice, level: float, inside: Literal["above", "below"], settings: ExtractionSettings
) -> Product | Rejected:
    half = settings.box / 2
    try:
        mesh = isosurface(grid.filled(), level, -half, half, inside)
    except Rejected as fault:
        return fault
    if settings.largest_component:
        mesh = largest_component(mesh)
    return Product(mesh, figures={"query_points": grid.asked, "faces": len(mesh.faces)})


def largest_component(mesh: Mesh) -> Mesh:
    """The part of largest area among those connected through shared vertices."""
    part = face_components(mesh)
    largest = np.argmax(np.bincount(part, weights=face_areas(mesh)))
    return without_unused_vertices(Mesh(mesh.vertices, mesh.faces[part == largest]))
