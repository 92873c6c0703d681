"""Implicit Feature Networks: a pyramid of 3D features, read at a point and six neighbours, classifies it.

Chibane, Alldieck, Pons-Moll: Implicit Functions in Feature Space for 3D Shape Reconstruction and Completion, CVPR
2020, arXiv 2003.01456. The input is a grid of occupancies: a cloud rasterised to the nearest nodes (`ShapeNetPoints`),
or solid voxels of 32^3 (`ShapeNet32Vox`) or 128^3 (`ShapeNet128Vox`). At their widths every tensor has the original's
name and shape.

The network's frame is the original's: queries twice the canonical (z, y, x), since the last coordinate of a query
reads the first axis of a grid.

Deviations: published numbers belong to two settings of align_corners, see there; held-out IoU, not loss, picks the
checkpoint; voxels are of our watertight meshes, by their cells' centres alone; the encoder runs once per shape;
everything is seeded.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, NonNegativeFloat, PositiveFloat, PositiveInt, Tag, model_validator

from pipeline.models.declaration import Declaration
from pipeline.models.stage_checks import missing_points
from pipeline.samples.observation import CloudObservation, VoxelObservation, observation_kind
from pipeline.settings import Settings


class RasterisedCloud(CloudObservation):
    """A point cloud as a grid of occupancies: 1 at the nodes nearest to its points."""

    points: PositiveInt = 3000
    """Points observed per shape; published are 300 and 3000."""

    noise: NonNegativeFloat = 0.0
    """Standard deviation of the Gaussian noise on each axis, canonical units; the published clouds are clean."""

    resolution: Annotated[int, Field(ge=2, le=512)] = 128
    """Nodes along each edge; the outermost lie at -0.5 and 0.5."""

    redraw: bool = False
    """Train on other points in every step. The original keeps one cloud per shape: here the first points."""


Observation = Annotated[
    Annotated[RasterisedCloud, Tag("point_cloud")] | Annotated[VoxelObservation, Tag("voxels")],
    Discriminator(observation_kind),
]


class ModelSettings(Settings):
    """Observation, pyramid, decoder and training batch. The defaults are `ShapeNetPoints` (2,550,881 parameters)."""

    observation: Observation = RasterisedCloud()
    """What training and inference see, by its `kind` a point cloud or voxels."""

    stem: PositiveInt | None = 16
    """Features of the first level, of one convolution at full resolution; null: none."""

    levels: Annotated[tuple[tuple[PositiveInt, PositiveInt], ...], Field(min_length=1)] = (
        (32, 32),
        (64, 64),
        (128, 128),
        (128, 128),
    )
    """Features after the two convolutions of each further level; every level has half the resolution of the one
    before it."""

    decoder: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (256, 256, 256)
    """Widths of the layers that classify a query."""

    displacement: NonNegativeFloat = 0.0722
    """From a query to its neighbours along each axis; the observed cube's edge is 2."""

    outside: Literal["border", "zeros"] = "border"
    """What is read outside the observed cube: its border, or zeros."""

    align_corners: bool = True
    """Whether the outermost nodes of a level lie on the cube's faces, or half a cell within. True is what the paper's
    torch 1.1 did; AIR-Nets' re-runs, the numbers of IF-Net most often compared with, are with false."""

    queries: PositiveInt = 50_000
    """Labelled points per shape in a training step, an equal part near the surface for each sigma, drawn with
    replacement."""

    sigmas: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (0.1, 0.01)
    """Standard deviations of those points from the surface."""

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Occupancy probability on the surface, in validation and as default of extraction."""

    @model_validator(mode="after")
    def _can_be_halved(self) -> Self:
        halvings = len(self.levels) - (self.stem is None)
        resolution = self.observation.resolution
        if resolution < 2**halvings:
            raise ValueError(
                f"a grid of resolution {resolution} cannot be halved {halvings} times, once for each level"
            )
        if self.queries < len(self.sigmas):
            raise ValueError(f"queries: {self.queries} are fewer than the {len(self.sigmas)} sigmas")
        return self


class InferenceSettings(Settings):
    """Encoding is one pass of the encoder; nothing to set."""


DECLARATION = Declaration(
    trains="gradient",
    observes="point_cloud",
    quantity="occupancy_logit",
    training_stages=("sample_surface", "sample_boundary/0.1", "sample_boundary/0.01", "sample_volume"),
    observation_stages=("sample_surface",),
    validates=True,
    papers=(
        "Chibane et al., Implicit Functions in Feature Space for 3D Shape Reconstruction and Completion, CVPR 2020",
    ),
)


def declare(settings: ModelSettings) -> Declaration:
    """The facts of a model that observes a cloud, or voxels; validation asks the volume's points."""
    kind = settings.observation.kind
    seen = "sample_surface" if kind == "point_cloud" else f"voxelize/{settings.observation.resolution}"
    boundaries = tuple(f"sample_boundary/{sigma:g}" for sigma in settings.sigmas)
    return replace(
        DECLARATION,
        observes=kind,
        training_stages=(seen, *boundaries, "sample_volume"),
        observation_stages=(seen,),
    )


def check_stages(settings: ModelSettings, inference: InferenceSettings, stages: Settings) -> str | None:
    """What the data stages do not give of what is observed, or None."""
    seen = settings.observation
    return missing_points(seen.points, stages) if seen.kind == "point_cloud" else None


from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.arrays import Rejected
from pipeline.models.contract import Model, ShapeArrays, observed_cloud, observed_voxels
from pipeline.models.occupancy_grid import checked_grid, gathered_grids, packed_grid, rasterised
from pipeline.samples.observation import observe_point_cloud
from pipeline.training.data import ResidentData, gather_points, random_index

LABELLED = ("points", "occupancies")


class ImplicitFeatureNetwork(nn.Module):
    """Pyramid and decoder under the original's names.

    Convolutions are 3 x 3 x 3 with zeros around; batch normalisation comes after ReLU, at the end of each level.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.outside, self.align_corners = settings.outside, settings.align_corners
        self.widths, self.stages = [1], []  # of the levels that are read; names of each level's convolutions, its norm
        if settings.stem is not None:
            self._add_level(("conv_in",), "conv_in_bn", (settings.stem,))
        # The original counts levels from 0 behind a stem, else from 1.
        for i, widths in enumerate(settings.levels, start=0 if settings.stem else 1):
            self._add_level((f"conv_{i}", f"conv_{i}_1"), f"conv{i}_1_bn", widths)
        widths = (7 * sum(self.widths), *settings.decoder)
        for i, (before, after) in enumerate(zip(widths, settings.decoder, strict=False)):
            self.add_module(f"fc_{i}", nn.Conv1d(before, after, 1))
        self.hidden_layers = [f"fc_{i}" for i in range(1, len(settings.decoder))]
        self.fc_out = nn.Conv1d(settings.decoder[-1], 1, 1)
        self.register_buffer("offsets", _offsets(settings.displacement), persistent=False)

    def _add_level(self, convolutions: Sequence[str], norm: str, widths: Sequence[int]) -> None:
        for name, before, after in zip(convolutions, (self.widths[-1], *widths), widths, strict=False):
            self.add_module(name, nn.Conv3d(before, after, 3, padding=1))
        self.add_module(norm, nn.BatchNorm3d(widths[-1]))
        self.widths.append(widths[-1])
        self.stages.append((tuple(convolutions), norm))

    def forward(self, queries: Tensor, grid: Tensor) -> Tensor:
        """Logits (B, N) of queries (B, N, 3) in [-1, 1], (z, y, x), given occupancies (B, R, R, R), index x, y, z."""
        return self.decode(queries, self.encode(grid))

    def encode(self, grid: Tensor) -> list[Tensor]:
        """The grid itself and every level, (B, C, R', R', R') each."""
        if grid.ndim != 4:
            raise ValueError(f"this network observes grids (B, R, R, R), not an array of shape {tuple(grid.shape)}")
        x = grid[:, None].float()
        levels = [x]
        for i, (convolutions, norm) in enumerate(self.stages):
            x = x if i == 0 else F.max_pool3d(x, 2)
            for name in convolutions:
                x = F.relu(self.get_submodule(name)(x))
            x = self.get_submodule(norm)(x)
            levels.append(x)
        return levels

    def decode(self, queries: Tensor, levels: Sequence[Tensor]) -> Tensor:
        """Logits (B, N) of queries under the levels."""
        places = queries[:, None, None] + self.offsets[:, None]  # (B, 1, 7, N, 3)
        x = F.relu(self._first_layer(places, levels))
        for name in self.hidden_layers:
            x = F.relu(self.get_submodule(name)(x))
        return self.fc_out(x).squeeze(1)

    def _first_layer(self, places: Tensor, levels: Sequence[Tensor]) -> Tensor:
        """fc_0 on the features of all levels side by side, (B, width, N), without putting them there.

        Its inputs are ordered by feature, then by place: a level's are one run of columns.
        """
        columns = self.fc_0.weight.squeeze(-1).split([7 * width for width in self.widths], dim=1)
        result = self.fc_0.bias[:, None]
        for level, weight in zip(levels, columns, strict=True):
            read = F.grid_sample(level, places, "bilinear", self.outside, align_corners=self.align_corners)
            result = result + torch.matmul(weight, read.flatten(1, 3))  # read: (B, C, 1, 7, N)
        return result


def _offsets(displacement: float) -> Tensor:
    """(7, 3): the query itself, then for each coordinate its neighbours at -displacement and +displacement."""
    steps = [sign * displacement * torch.eye(3)[axis] for axis in range(3) for sign in (-1, 1)]
    return torch.stack([torch.zeros(3), *steps])


class IfNet(Model):
    """Implicit Feature Networks in the canonical frame."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.declaration = declare(settings)
        self.observed = "points" if settings.observation.kind == "point_cloud" else "voxels"
        self.boundaries = [f"boundary-{sigma:g}" for sigma in settings.sigmas]
        self.network = ImplicitFeatureNetwork(settings)

    @property
    def level(self) -> float:
        return self.settings.threshold

    def prepare(self, arrays: ShapeArrays) -> dict[str, np.ndarray]:
        """Points near the surface with their occupancies, and the surface points or the voxels (as bits)."""
        kept = {f"{name}.{part}": arrays[f"{name}.{part}"] for name in self.boundaries for part in LABELLED}
        if self.observed == "voxels":
            return {**kept, "voxels": packed_grid(self._voxels(arrays))}
        points = arrays["surface.points"]
        return {**kept, "surface.points": points if self.settings.observation.redraw else self._first_points(points)}

    def observe(self, arrays: ShapeArrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """{"points": (M, 3)}, or {"voxels": (R, R, R)}."""
        if self.observed == "voxels":
            return {"voxels": self._voxels(arrays)}
        seen = observe_point_cloud(arrays["surface.points"], arrays["surface.normals"], self.settings.observation, rng)
        return {"points": seen["points"]}

    def draw(self, data: ResidentData, shapes: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Clouds (B, M, 3) or voxels (B, R, R, R), queries (B, N, 3) near the surface, their occupancies (B, N)."""
        total, parts = self.settings.queries, len(self.boundaries)
        points, occupancies = [], []
        for i, name in enumerate(self.boundaries):
            count = total * (i + 1) // parts - total * i // parts
            asked = random_index(generator, len(shapes), count, data[f"{name}.points"].shape[1])
            points.append(gather_points(data[f"{name}.points"], shapes, asked))
            occupancies.append(gather_points(data[f"{name}.occupancies"], shapes, asked).float())
        return {
            self.observed: self._observed(data, shapes, generator),
            "queries": torch.cat(points, dim=1),
            "occupancies": torch.cat(occupancies, dim=1),
        }

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Binary cross-entropy, summed over the points of a shape and averaged over shapes."""
        logits = self.network(_in_network(batch["queries"]), self._grid(batch[self.observed]))
        entropy = F.binary_cross_entropy_with_logits(logits, batch["occupancies"], reduction="sum")
        return {"loss": entropy / len(logits)}

    @torch.no_grad()
    def encode(self, observations: dict[str, Tensor], seeds: Sequence[int]) -> dict[str, Tensor]:
        """{"level_0": (B, 1, R, R, R), "level_1": …}: the grid and the pyramid.

        Raises ValueError where the observations are of another kind or size.
        """
        if self.observed == "points":
            seen = observed_cloud(observations)
        else:
            seen = observed_voxels(observations, self.settings.observation.resolution)
        levels = self.network.encode(self._grid(seen))
        return {f"level_{i}": level for i, level in enumerate(levels)}

    def field(self, code: dict[str, Tensor], queries: Tensor) -> Tensor:
        """Logits of the occupancy."""
        return self.network.decode(_in_network(queries), [code[f"level_{i}"] for i in range(len(code))])

    def _voxels(self, arrays: ShapeArrays) -> np.ndarray:
        resolution = self.settings.observation.resolution
        return checked_grid(arrays[f"voxels.{resolution}"], resolution)

    def _first_points(self, points: np.ndarray) -> np.ndarray:
        wanted = self.settings.observation.points
        if len(points) < wanted:
            raise Rejected(
                f"the shape has {len(points)} surface points, fewer than the {wanted} of model.observation; raise the "
                "count of sample_surface or set model.observation.redraw"
            )
        return points[:wanted]

    def _grid(self, seen: Tensor) -> Tensor:
        """What the network observes, (B, R, R, R)."""
        return seen if self.observed == "voxels" else rasterised(seen, self.settings.observation.resolution)

    def _observed(self, data: ResidentData, shapes: Tensor, generator: torch.Generator) -> Tensor:
        observation, device = self.settings.observation, generator.device
        if self.observed == "voxels":
            return gathered_grids(data["voxels"], shapes, observation.resolution)
        surface = data["surface.points"]
        if observation.redraw:
            seen = random_index(generator, len(shapes), observation.points, surface.shape[1])
        else:
            seen = torch.arange(observation.points, device=device).expand(len(shapes), -1)
        noise = torch.randn((*seen.shape, 3), generator=generator, device=device)
        return gather_points(surface, shapes, seen) + observation.noise * noise


def _in_network(queries: Tensor) -> Tensor:
    """Canonical queries (B, N, 3) in the network's frame."""
    return (2 * queries).flip(-1)


def from_published(tensors: dict[str, Tensor], settings: ModelSettings) -> dict[str, Tensor]:
    """Tensors under the network's names, which are the original's; AIR-Nets' re-run saved them in two halves."""
    return {name.removeprefix("encoder.").removeprefix("decoder."): tensor for name, tensor in tensors.items()}


def build(settings: ModelSettings, inference: InferenceSettings, train_shapes: int) -> IfNet:
    return IfNet(settings)
