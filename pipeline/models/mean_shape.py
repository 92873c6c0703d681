"""The mean training shape: what a method must beat to have looked at its observation at all.

The field is the mean occupancy of all training shapes of all categories on a voxel lattice; its level is the one at
which the thresholded mean has the largest mean IoU with the training shapes.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import PositiveInt

from pipeline.models.declaration import Declaration
from pipeline.settings import Settings


class ModelSettings(Settings):
    """The lattice."""

    resolution: PositiveInt = 64
    """Cells along each edge of the cube [-0.5, 0.5]^3; the stage `voxelize` makes that grid."""


class InferenceSettings(Settings):
    """The same shape whatever is observed; nothing to set."""


DECLARATION = Declaration(
    trains="directly",
    observes="nothing",
    quantity="occupancy",
    training_stages=("voxelize/64",),
    observation_stages=(),
    validates=False,
    papers=(),
)


def declare(settings: ModelSettings) -> Declaration:
    """The declaration, with the lattice that the settings name."""
    return replace(DECLARATION, training_stages=(f"voxelize/{settings.resolution}",))


from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.contract import Model, ShapeArrays
from pipeline.training.data import ResidentData


class Lattice(nn.Module):
    """A grid of values at cell centres of the cube [-0.5, 0.5]^3, interpolated trilinearly; 0 outside.

    Beyond the last centres the values fall to 0 within one cell, so the cube's faces carry half of them.
    """

    def __init__(self, resolution: int) -> None:
        super().__init__()
        self.register_buffer("values", torch.zeros(resolution, resolution, resolution))

    def forward(self, queries: Tensor) -> Tensor:
        """Values (B, N) at queries (B, N, 3)."""
        # grid_sample takes (last axis, middle, first) coordinates that reach 1 at the outer faces of the last cells.
        places = (2 * queries).flip(-1).view(1, 1, 1, -1, 3).to(self.values.dtype)
        sampled = F.grid_sample(self.values[None, None], places, "bilinear", "zeros", align_corners=False)
        return sampled.view(queries.shape[:2])


class MeanShape(Model):
    """The mean occupancy and its level, kept as buffers."""

    declaration = DECLARATION

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.declaration = declare(settings)
        self.key = f"voxels.{settings.resolution}"
        self.network = Lattice(settings.resolution)
        self.register_buffer("best_level", torch.tensor(0.5))

    @property
    def level(self) -> float:
        return float(self.best_level)

    def prepare(self, arrays: ShapeArrays) -> dict[str, np.ndarray]:
        """The voxels."""
        return {self.key: arrays[self.key]}

    def fit(self, data: ResidentData) -> None:
        """Average the voxels of all shapes and choose the level. Raises ValueError where there are no shapes."""
        if len(data) == 0:
            raise ValueError("the mean shape needs at least one training shape")
        voxels = data[self.key].flatten(1)  # (S, cells)
        counts = sum(shape.long() for shape in voxels)
        least = best_count(voxels, counts)
        self.network.values.copy_((counts / len(data)).view_as(self.network.values))
        # Halfway between two values that the mean takes, so that no cell lies on the surface.
        self.best_level.fill_((least - 0.5) / len(data))

    def observe(self, arrays: ShapeArrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Nothing: no arrays."""
        return {}

    def encode(self, observations: dict[str, Tensor], seeds: Sequence[int]) -> dict[str, Tensor]:
        """{"code": (B, 0)}."""
        return {"code": torch.empty((len(seeds), 0), device=self.device)}

    def field(self, code: dict[str, Tensor], queries: Tensor) -> Tensor:
        """Mean occupancy, in [0, 1]."""
        return self.network(queries)


def best_count(voxels: Tensor, counts: Tensor) -> int:
    """The k for which the cells occupied in at least k shapes have the largest mean IoU with the shapes.

    voxels (S, cells) bool; counts (cells,), their sum over shapes. The smallest such k, between 1 and S.
    """
    total = len(voxels)
    chosen = _at_least(counts, total)
    scores = torch.zeros(total, dtype=torch.float64, device=counts.device)
    for shape in voxels:
        common = _at_least(counts[shape.bool()], total)
        union = chosen + shape.sum() - common
        scores += common / union.clamp(min=1)
    return int(scores.argmax()) + 1


def _at_least(counts: Tensor, total: int) -> Tensor:
    """How many of the counts are at least k, for k = 1 ... total, float64."""
    histogram = torch.bincount(counts, minlength=total + 1)[1:]
    return histogram.flip(0).cumsum(0).flip(0).double()


def build(settings: ModelSettings, inference: InferenceSettings, train_shapes: int) -> MeanShape:
    return MeanShape(settings)
