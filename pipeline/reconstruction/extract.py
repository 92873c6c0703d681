"""From fields to meshes: the level set of each shape's field as a triangle mesh.

The field is asked in blocks of many points that mix the shapes of a group, so that a device sees full batches also in
the small late rounds of MISE. Values are taken raw (logits, distances), where the linear
interpolation of marching cubes is accurate; probabilities are turned into the level, not the values into
probabilities. Vertices stand where the lattice points stand, without any half-voxel shift.

What is done to the mesh afterwards is off by default and happens in this order: largest component, smoothing,
simplification, refinement, normals.
"""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from pipeline.settings import Settings


class ExtractionSettings(Settings):
    """How a mesh is taken from a field."""

    method: Literal["mise", "dense", "coarse_to_fine"] = "mise"
    """mise: a coarse lattice, refined where the surface passes. dense: every point of the fine lattice.
    coarse_to_fine: IM-NET's, coarse cells by their centres, then the voxels of those near the surface."""

    resolution_0: PositiveInt = 32
    """Cells per axis of the coarse lattice of mise and coarse_to_fine; thinner parts than a cell may be lost unless
    `mode` is safe."""

    depth: NonNegativeInt = 2
    """How often mise and coarse_to_fine halve these cells: the finest have 1 / (resolution_0 * 2^depth) of the box."""

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
    """Which weights: the best by validation, or the last; also for codes, the quick evaluation and experiments that
    build on this one. Where a method does not validate they are the same."""

    largest_component: bool = False
    """Keep only the connected part of largest area."""

    smoothing_steps: NonNegativeInt = 0
    """Passes of Taubin smoothing, which rounds steps and noise and keeps the size; 10 is a moderate number."""

    simplify_to: PositiveInt | None = None
    """Number of faces to simplify the mesh to (null: as extracted). A mesh that this would break is rejected."""

    refinement: Literal["none", "newton", "imnet", "onet"] = "none"
    """Moves vertices onto the field's level set. newton: along the gradient. imnet: the best of 27 places, by halved
    steps. onet: gradient descent on values and normals (occupancies and signed distances)."""

    refinement_steps: PositiveInt | None = None
    """Steps or rounds of the refinement (null: newton 3, imnet 3, onet 30)."""

    field_normals: bool = False
    """Give the vertices normals from the field's gradient; the mesh is then stored as NOFF."""


from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pipeline.arrays import Mesh, Product, Rejected
from pipeline.geometry.cubes import isosurface
from pipeline.geometry.field import Quantity, raw_level
from pipeline.reconstruction import refine
from pipeline.reconstruction.coarse_to_fine import CoarseToFine
from pipeline.reconstruction.dense import Lattice
from pipeline.reconstruction.finish import largest_component, simplified_to, smoothed
from pipeline.reconstruction.mise import Refinement, lattice_positions
from pipeline.seeds import rng_for

if TYPE_CHECKING:
    import torch

Field = Callable[[np.ndarray, np.ndarray], np.ndarray]
TorchField = Callable[[int, "torch.Tensor"], "torch.Tensor"]
Grid = Refinement | Lattice | CoarseToFine

ROW_POINTS = 2048  # the shortest piece of a shape in a block; longer ones waste more on padding, shorter ones on calls


def extract(
    field: Field,
    shapes: int,
    quantity: Quantity,
    settings: ExtractionSettings,
    torch_field: TorchField | None = None,
    seeds: Sequence[int] | None = None,
) -> list[Product | Rejected]:
    """A mesh per shape, in order; where there is none, the Rejected that says why.

    field: maps shape indices (B,) int64 and queries (B, N, 3) float32, canonical frame, to values (B, N) of the
    quantity; no shape stands in two rows. torch_field: one shape's field that torch can differentiate, from an
    index and points (n, 3) float32 on the CPU to values (n,); refinement by newton and onet and field_normals need it.
    seeds: one per shape, for refinement by onet, which draws points. Products hold a Mesh wound outward and the figures
    query_points (evaluated for its grid) and faces. Raises ValueError where the level does not suit the quantity and
    where a torch_field or seeds are missing.
    """
    level = raw_level(quantity, settings.level)
    finishing = _Finishing(field, quantity, settings, torch_field, seeds)
    outcomes: list[Product | Rejected] = []
    for start in range(0, shapes, settings.batch_shapes):
        group = range(start, min(start + settings.batch_shapes, shapes))
        grids = {shape: _grid(settings, level, _side(quantity)) for shape in group}
        faults = _evaluate(field, grids, settings)
        for shape in group:
            grid = grids.pop(shape)
            outcomes.append(faults.get(shape) or _product(grid, shape, level, _side(quantity), finishing))
    return outcomes


def _side(quantity: Quantity) -> Literal["above", "below"]:
    """Which side of the level is solid."""
    return "below" if quantity == "signed_distance" else "above"


def _grid(settings: ExtractionSettings, level: float, inside: Literal["above", "below"]) -> Grid:
    if settings.method == "dense":
        return Lattice(settings.resolution, kind=np.float32)
    if settings.method == "coarse_to_fine":
        return CoarseToFine(settings.resolution_0, settings.depth, level, inside, kind=np.float32)
    return Refinement(settings.resolution_0, settings.depth, level, settings.mode, kind=np.float32)


def _evaluate(field: Field, grids: dict[int, Grid], settings: ExtractionSettings) -> dict[int, Rejected]:
    """Advance all grids together to their ends; gives the shapes whose field failed."""
    faults: dict[int, Rejected] = {}
    while rounds := dict(_open_rounds(grids, settings.box, skip=faults)):
        for shape, values in _in_blocks(field, rounds, settings.batch_points).items():
            try:
                grids[shape].update(values)
            except Rejected as fault:
                faults[shape] = fault
    return faults


def _open_rounds(grids: dict[int, Grid], box: float, skip) -> Iterator[tuple[int, np.ndarray]]:
    for shape, grid in grids.items():
        if shape not in skip and len(points := grid.queries()):
            yield shape, lattice_positions(points, grid.resolution, box).astype(np.float32)


def _in_blocks(field: Field, rounds: dict[int, np.ndarray], batch_points: int) -> dict[int, np.ndarray]:
    """Values (n,) for each shape's points (n, 3), asked in blocks of at most batch_points."""
    values = {shape: np.empty(len(points), np.float32) for shape, points in rounds.items()}
    for length, block in _blocks({shape: len(points) for shape, points in rounds.items()}, batch_points):
        queries = np.stack([_padded(rounds[shape][start : start + length], length) for shape, start in block])
        answers = np.asarray(field(np.array([shape for shape, _ in block]), queries))
        if answers.shape != queries.shape[:2]:
            raise ValueError(f"the field gave values of shape {answers.shape} for queries of shape {queries.shape}")
        for (shape, start), answer in zip(block, answers, strict=True):
            target = values[shape][start : start + length]
            target[:] = answer[: len(target)]
    return values


def _blocks(counts: dict[int, int], batch_points: int) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Cut the points of all shapes into blocks: the length of its pieces, and each piece's shape and first point.

    First come whole blocks of one shape each. What is left of the shapes is cut into pieces of half, a quarter ... of a
    block, at most one of each length per shape, and pieces of one length share blocks. So no shape stands twice in a
    block: its code, which may be large, is never copied. Only a shape's last piece is not full.
    """
    row = min(ROW_POINTS, batch_points)
    whole = batch_points // row
    start = dict.fromkeys(counts, 0)
    for rows in (whole, *(1 << bit for bit in reversed(range((whole - 1).bit_length())))):
        pieces = []
        for shape, count in counts.items():
            while count - start[shape] > (rows - 1) * row:
                pieces.append((shape, start[shape]))
                start[shape] += rows * row
        for first in range(0, len(pieces), whole // rows):
            yield rows * row, pieces[first : first + whole // rows]


def _padded(points: np.ndarray, length: int) -> np.ndarray:
    """The points, then the last one repeated: (length, 3)."""
    return points if len(points) == length else np.pad(points, ((0, length - len(points)), (0, 0)), mode="edge")


def _product(
    grid: Grid, shape: int, level: float, inside: Literal["above", "below"], finishing: _Finishing
) -> Product | Rejected:
    half = finishing.settings.box * (0.5 - grid.inset)  # where the outermost samples stand
    try:
        values = grid.filled()
        mesh = isosurface(values, level, -half, half, inside)
        mesh = finishing.finished(shape, mesh, level, cell=2 * half / (len(values) - 1))
    except Rejected as fault:
        return fault
    return Product(mesh, figures={"query_points": grid.asked, "faces": len(mesh.faces)})


@dataclass(frozen=True)
class _Finishing:
    """The options that change a mesh after its extraction, with the fields they ask; raises ValueError if one lacks."""

    field: Field
    quantity: Quantity
    settings: ExtractionSettings
    torch_field: TorchField | None
    seeds: Sequence[int] | None

    def __post_init__(self) -> None:
        refinement, normals = self.settings.refinement, self.settings.field_normals
        if self.torch_field is None and (refinement in ("newton", "onet") or normals):
            wish = "field_normals" if normals else f"refinement {refinement}"
            raise ValueError(f"{wish} needs a field that torch can differentiate")
        if self.seeds is None and refinement == "onet":
            raise ValueError("refinement onet draws points and needs a seed per shape")

    def finished(self, shape: int, mesh: Mesh, level: float, cell: float) -> Mesh:
        """cell: edge of a cell of the grid the mesh comes from."""
        if self.settings.largest_component:
            mesh = largest_component(mesh)
        if self.settings.smoothing_steps:
            mesh = smoothed(mesh, self.settings.smoothing_steps)
        if self.settings.simplify_to:
            mesh = simplified_to(mesh, self.settings.simplify_to)
        mesh = self._refined(shape, mesh, level, cell)
        if self.settings.field_normals:
            mesh = refine.with_field_normals(mesh, self._torch(shape), self._outward, self.settings.batch_points)
        return mesh

    def _refined(self, shape: int, mesh: Mesh, level: float, cell: float) -> Mesh:
        batch, steps = self.settings.batch_points, self.settings.refinement_steps
        if self.settings.refinement == "newton":
            return refine.newton(mesh, self._torch(shape), level, cell / 2, batch, steps)
        if self.settings.refinement == "imnet":
            return refine.search(mesh, partial(_values_at, self.field, shape, batch), level, cell, steps)
        if self.settings.refinement == "onet":
            rng = rng_for(self.seeds[shape], "refine")
            probability, at = _as_probability(self._torch(shape), self.quantity, level)
            return refine.descend(mesh, probability, at, self._outward, rng, batch, steps)
        return mesh

    def _torch(self, shape: int) -> refine.TorchField:
        return partial(self.torch_field, shape)

    @property
    def _outward(self) -> float:
        """Whether the field rises (1) or falls (-1) outwards."""
        return 1.0 if self.quantity == "signed_distance" else -1.0


def _values_at(field: Field, shape: int, batch_points: int, points: np.ndarray) -> np.ndarray:
    return _in_blocks(field, {shape: points.astype(np.float32)}, batch_points)[shape]


def _as_probability(field: refine.TorchField, quantity: Quantity, level: float) -> tuple[refine.TorchField, float]:
    """Occupancy Networks compares probabilities, not logits; other quantities stay as they are."""
    if quantity != "occupancy_logit":
        return field, level
    return lambda points: field(points).sigmoid(), 1 / (1 + np.exp(-level))
