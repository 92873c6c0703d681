"""Convolutional Occupancy Networks: features on planes or in a grid, read where a point is asked, classify it.

Peng, Niemeyer, Mescheder, Pollefeys, Geiger: Convolutional Occupancy Networks, ECCV 2020, arXiv 2003.04618. The
observation, a cloud (`pointnet_local_pool`) or voxels (`voxel_simple_local`, the super-resolution task), is scattered
to canonical planes, a grid or both; U-Nets spread it; the decoder (`simple_local`) sees the sum of what it reads at the
query. At the default widths every tensor has the original's name and shape.

Deviations: the local maximum passes its gradient evenly to points that tie, the original to one of them; the cloud
observed at inference is of distinct points (in training drawn with replacement, as there); voxels are of our
watertight meshes, by their cells' centres; everything is seeded. The PointNet++ encoder and the sliding window for
scenes larger than the cube are not built.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, NonNegativeFloat, PositiveInt, Tag, model_validator

from pipeline.models.declaration import Declaration
from pipeline.models.stage_checks import missing_points
from pipeline.samples.observation import CloudObservation, VoxelObservation, observation_kind
from pipeline.settings import Settings

Observation = Annotated[
    Annotated[CloudObservation, Tag("point_cloud")] | Annotated[VoxelObservation, Tag("voxels")],
    Discriminator(observation_kind),
]


class ModelSettings(Settings):
    """Observation, maps, widths and training batch. The defaults are three planes of 64^2 (1,978,209 parameters)."""

    observation: Observation = CloudObservation(points=3000)
    """What training and inference see, by its `kind` a point cloud or voxels."""

    maps: Annotated[tuple[Literal["xz", "xy", "yz", "grid"], ...], Field(min_length=1)] = ("xz", "xy", "yz")
    """Where features lie: planes through the two axes named, which share a U-Net, and the grid with its own."""

    plane_resolution: PositiveInt = 64
    """Cells along each edge of a plane."""

    plane_depth: PositiveInt = 4
    """Levels of the planes' U-Net, each of half the resolution and twice the features; 5 with planes of 128^2."""

    plane_width: PositiveInt = 32
    """Features of its first level."""

    grid_resolution: PositiveInt = 32
    """Cells along each edge of the grid."""

    grid_levels: PositiveInt = 3
    """Levels of the grid's U-Net; 4 with a grid of 64^3."""

    grid_width: PositiveInt = 32
    """Features of its first level, a multiple of 8."""

    code: PositiveInt = 32
    """Features in a cell; with a grid a multiple of 8, or fewer than 8."""

    encoder_hidden: PositiveInt = 32
    """Width of the point encoder."""

    encoder_blocks: PositiveInt = 5
    """Its residual blocks; all but the first see each point beside the maximum over its cell."""

    hidden: PositiveInt = 32
    """Width of the decoder."""

    blocks: PositiveInt = 5
    """Residual blocks of the decoder."""

    padding: NonNegativeFloat = 0.1
    """The maps cover a cube of edge 1 + padding; what lies outside is read and written at their border."""

    queries: PositiveInt = 2048
    """Labelled points per shape in a training step, drawn with replacement."""

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Occupancy probability on the surface, in validation and as default of extraction."""

    @model_validator(mode="after")
    def _fits_its_maps(self) -> Self:
        if len(set(self.maps)) < len(self.maps):
            raise ValueError(f"maps: {', '.join(self.maps)} names a map twice")
        if self.planes and self.plane_resolution % 2 ** (self.plane_depth - 1):
            raise ValueError(
                f"plane_resolution must be a multiple of 2^(plane_depth - 1) = {2 ** (self.plane_depth - 1)}"
            )
        if "grid" in self.maps:
            if self.grid_resolution < 2 ** (self.grid_levels - 1):
                raise ValueError(
                    f"grid_resolution must be at least 2^(grid_levels - 1) = {2 ** (self.grid_levels - 1)}"
                )
            if self.grid_width % 8 or (self.code >= 8 and self.code % 8):
                raise ValueError("with a grid, grid_width and a code of 8 or more must be multiples of 8")
        return self

    @property
    def planes(self) -> tuple[str, ...]:
        """The maps that are planes."""
        return tuple(name for name in self.maps if name != "grid")


class InferenceSettings(Settings):
    """Encoding is one pass of the encoder; nothing to set."""


DECLARATION = Declaration(
    trains="gradient",
    observes="point_cloud",
    quantity="occupancy_logit",
    training_stages=("sample_surface", "sample_volume"),
    observation_stages=("sample_surface",),
    validates=True,
    papers=("Peng et al., Convolutional Occupancy Networks, ECCV 2020",),
)


def declare(settings: ModelSettings) -> Declaration:
    """The facts of a model that observes a cloud, or voxels."""
    if settings.observation.kind == "point_cloud":
        return DECLARATION
    grid = f"voxelize/{settings.observation.resolution}"
    return replace(DECLARATION, observes="voxels", training_stages=(grid, "sample_volume"), observation_stages=(grid,))


def check_stages(settings: ModelSettings, inference: InferenceSettings, stages: Settings) -> str | None:
    """What the data stages do not give of what is observed, or None."""
    seen = settings.observation
    return missing_points(seen.points, stages) if seen.kind == "point_cloud" else None


from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.contract import Model, ShapeArrays, observed_cloud, observed_voxels
from pipeline.models.layers import ResnetBlockFC
from pipeline.models.occupancy_grid import checked_grid, gathered_grids, packed_grid
from pipeline.models.unet import UNet, UNet3D
from pipeline.samples.observation import observe_point_cloud
from pipeline.training.data import ResidentData, gather_points, random_index

AXES = {"xz": (0, 2), "xy": (0, 1), "yz": (1, 2), "grid": (0, 1, 2)}


def unit_coordinates(points: Tensor, name: str, padding: float) -> Tensor:
    """Points (..., 3) of the cube of edge 1 + padding in a map's coordinates (..., 2 or 3), in [0, 1).

    What lies outside goes to the border. The cube is larger by 1e-5 for planes, by 1e-3 for the grid; sheet, 2.1.
    """
    slack = 1e-3 if name == "grid" else 1e-5
    unit = points[..., AXES[name]] / (1 + padding + slack) + 0.5
    return unit.masked_fill(unit >= 1, 1 - slack).clamp(min=0)


def cell_index(unit: Tensor, resolution: int) -> Tensor:
    """Cells (...) of map coordinates (..., d) in [0, 1), int64; the first coordinate counts fastest."""
    cell = (unit * resolution).long()
    return sum(cell[..., k] * resolution**k for k in range(unit.shape[-1]))


def cell_means(features: Tensor, cells: Tensor, count: int) -> Tensor:
    """Mean of the features (B, M, C) that lie in each of `count` cells, cells (B, M), as (B, C, count); empty: 0."""
    shapes, _, width = features.shape
    rows = _rows(cells, count)
    sums = torch.zeros((shapes * count, width), device=features.device).index_add_(
        0, rows, features.flatten(0, 1).float()
    )
    found = torch.zeros(shapes * count, device=features.device).index_add_(
        0, rows, torch.ones_like(rows, dtype=sums.dtype)
    )
    return (sums / found.clamp(min=1)[:, None]).view(shapes, count, width).transpose(1, 2)


def shared_cells(cells: Tensor, count: int) -> Tensor:
    """Numbers (B * M,) below B * M, equal for points of one shape (B, M) in one of its `count` cells.

    So the memory of a local maximum follows the points, not the cells of a fine grid.
    """
    ordered, order = _rows(cells, count).sort()
    first = torch.zeros_like(ordered)
    first[1:] = ordered[1:] != ordered[:-1]
    return torch.empty_like(ordered).scatter_(0, order, first.cumsum(0))


def cell_maxima(features: Tensor, groups: Tensor) -> Tensor:
    """For each point the maximum (n, C) of the features (n, C) of its group (n,)."""
    start = torch.zeros_like(features)
    maxima = start.scatter_reduce(0, groups[:, None].expand_as(features), features, "amax", include_self=False)
    return maxima.index_select(0, groups)


def _rows(cells: Tensor, count: int) -> Tensor:
    """Cells (B, M) of shapes laid one after the other, (B * M,)."""
    return (cells + count * torch.arange(len(cells), device=cells.device)[:, None]).flatten()


class Encoder(nn.Module):
    """What both encoders share: from features of places to maps.

    Maps are {"planes": (B, P, C, R, R), "grid": (B, C, R, R, R)}, those that the settings name; the first coordinate
    of a map is its last axis.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings

    def _add_unets(self) -> None:
        """Last of all, so that tensors stand in the original's order."""
        code, s = self.settings.code, self.settings
        if s.planes:
            self.unet = UNet(code, code, s.plane_depth, s.plane_width)
        if "grid" in s.maps:
            self.unet3d = UNet3D(code, code, s.grid_levels, s.grid_width)

    def cells(self, places: Tensor) -> dict[str, tuple[Tensor, int]]:
        """For every map the cells (B, M) of places (B, M, 3), and how many cells it has."""
        found = {}
        for name in self.settings.maps:
            resolution = self.settings.grid_resolution if name == "grid" else self.settings.plane_resolution
            unit = unit_coordinates(places, name, self.settings.padding)
            found[name] = cell_index(unit, resolution), resolution ** len(AXES[name])
        return found

    def spread(self, features: Tensor, cells: Mapping[str, tuple[Tensor, int]]) -> dict[str, Tensor]:
        """Features (B, M, C) at places with these cells, averaged in the cells and carried on by the U-Nets."""
        s, maps = self.settings, {}
        means = {name: cell_means(features, *where) for name, where in cells.items()}
        if s.planes:
            size = (s.plane_resolution,) * 2
            planes = torch.stack([means[name] for name in s.planes], dim=1).unflatten(-1, size)  # (B, P, C, R, R)
            maps["planes"] = self.unet(planes.flatten(0, 1)).unflatten(0, planes.shape[:2])
        if "grid" in s.maps:
            # Laid out feature by feature: with cells first, group normalisation on the CPU loses two digits.
            grid = means["grid"].contiguous().unflatten(-1, (s.grid_resolution,) * 3)
            maps["grid"] = self.unet3d(grid)
        return maps


class PointEncoder(Encoder):
    """Clouds (B, M, 3) to maps: residual blocks on points, each shown the sum of the maxima over its cells."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        hidden = settings.encoder_hidden
        self.fc_pos = nn.Linear(3, 2 * hidden)
        self.blocks = nn.ModuleList(ResnetBlockFC(2 * hidden, hidden) for _ in range(settings.encoder_blocks))
        self.fc_c = nn.Linear(hidden, settings.code)
        self._add_unets()

    def forward(self, points: Tensor) -> dict[str, Tensor]:
        if points.ndim != 3 or points.shape[-1] != 3:
            raise ValueError(f"this model observes clouds (B, M, 3), not an array of shape {tuple(points.shape)}")
        cells = self.cells(points)
        groups = [shared_cells(*where) for where in cells.values()]
        features = self.blocks[0](self.fc_pos(points)).flatten(0, 1)  # (B * M, hidden)
        for block in self.blocks[1:]:
            features = block(features, sum(cell_maxima(features, group) for group in groups))
        return self.spread(self.fc_c(features).unflatten(0, points.shape[:2]), cells)


class VoxelEncoder(Encoder):
    """Occupancies (B, R, R, R) to maps: one convolution, whose cells then stand as points in the cube.

    The first and last cells of an axis stand at -0.5 and 0.5, not at their centres.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self.conv_in = nn.Conv3d(1, settings.code, 3, padding=1)
        self._add_unets()

    def forward(self, voxels: Tensor) -> dict[str, Tensor]:
        if voxels.ndim != 4:
            raise ValueError(f"this model observes voxels (B, R, R, R), not an array of shape {tuple(voxels.shape)}")
        features = F.relu(self.conv_in(voxels[:, None].float())).flatten(2).transpose(1, 2)  # (B, R^3, C)
        axes = [torch.linspace(-0.5, 0.5, size, device=voxels.device) for size in voxels.shape[1:]]
        places = torch.cartesian_prod(*axes)
        return self.spread(features, self.cells(places.expand(len(voxels), -1, -1)))


class Decoder(nn.Module):
    """Logits (B, N) of queries (B, N, 3) under maps as `Encoder` gives them."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        hidden, blocks = settings.hidden, range(settings.blocks)
        self.fc_c = nn.ModuleList(nn.Linear(settings.code, hidden) for _ in blocks)
        self.fc_p = nn.Linear(3, hidden)
        self.blocks = nn.ModuleList(ResnetBlockFC(hidden, hidden) for _ in blocks)
        self.fc_out = nn.Linear(hidden, 1)

    def forward(self, queries: Tensor, maps: Mapping[str, Tensor]) -> Tensor:
        read = self.read(queries, maps)
        features = self.fc_p(queries)  # (B, N, hidden)
        for fc_c, block in zip(self.fc_c, self.blocks, strict=True):
            features = block(features + fc_c(read))
        return self.fc_out(F.relu(features)).squeeze(-1)

    def read(self, queries: Tensor, maps: Mapping[str, Tensor]) -> Tensor:
        """Interpolated features (B, N, C) at the queries, summed over maps.

        Coordinate 0 reads the middle of the first cell and 1 that of the last, while cells were filled from edge to
        edge: the original's choice.
        """
        s, found = self.settings, []
        if s.planes:
            unit = torch.stack([unit_coordinates(queries, name, s.padding) for name in s.planes], dim=1)
            planes = _interpolate(maps["planes"].flatten(0, 1), unit.flatten(0, 1)[:, :, None])  # (B * P, C, N, 1)
            found.append(planes.squeeze(-1).unflatten(0, unit.shape[:2]).sum(dim=1))
        if "grid" in s.maps:
            unit = unit_coordinates(queries, "grid", s.padding)
            found.append(_interpolate(maps["grid"], unit[:, :, None, None]).flatten(2))
        return sum(found).transpose(1, 2)


def _interpolate(maps: Tensor, unit: Tensor) -> Tensor:
    """Maps (B, C, ...) at coordinates (B, ..., d) in [0, 1], linearly."""
    return F.grid_sample(maps, 2 * unit - 1, mode="bilinear", padding_mode="border", align_corners=True)


class ConvolutionalOccupancyNetwork(nn.Module):
    """Decoder and encoder under the original's names."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.decoder = Decoder(settings)
        self.encoder = PointEncoder(settings) if settings.observation.kind == "point_cloud" else VoxelEncoder(settings)

    def forward(self, queries: Tensor, observation: Tensor) -> Tensor:
        """Logits (B, N) of queries (B, N, 3) given clouds (B, M, 3) or voxels (B, R, R, R)."""
        return self.decoder(queries, self.encoder(observation))


class ConvOnet(Model):
    """Convolutional Occupancy Networks; their frame is the canonical one."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.declaration = declare(settings)
        self.observed = "points" if settings.observation.kind == "point_cloud" else "voxels"
        self.network = ConvolutionalOccupancyNetwork(settings)

    @property
    def level(self) -> float:
        return self.settings.threshold

    def prepare(self, arrays: ShapeArrays) -> dict[str, np.ndarray]:
        """The volume's points with their occupancies, and the surface points or the voxels (as bits)."""
        kept = {key: arrays[key] for key in ("volume.points", "volume.occupancies")}
        if self.observed == "points":
            return {**kept, "surface.points": arrays["surface.points"]}
        return {**kept, "voxels": packed_grid(self._voxels(arrays))}

    def observe(self, arrays: ShapeArrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """{"points": (M, 3)}, the noisy cloud, or {"voxels": (R, R, R)}."""
        if self.observed == "voxels":
            return {"voxels": self._voxels(arrays)}
        seen = observe_point_cloud(arrays["surface.points"], arrays["surface.normals"], self.settings.observation, rng)
        return {"points": seen["points"]}

    def draw(self, data: ResidentData, shapes: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Clouds (B, M, 3) with fresh noise or voxels (B, R, R, R), queries (B, N, 3), their occupancies (B, N)."""
        volume = data["volume.points"]
        asked = random_index(generator, len(shapes), self.settings.queries, volume.shape[1])
        return {
            self.observed: self._observed(data, shapes, generator),
            "queries": gather_points(volume, shapes, asked),
            "occupancies": gather_points(data["volume.occupancies"], shapes, asked).float(),
        }

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Binary cross-entropy, summed over the points of a shape and averaged over shapes."""
        logits = self.network(batch["queries"], batch[self.observed])
        entropy = F.binary_cross_entropy_with_logits(logits, batch["occupancies"], reduction="sum")
        return {"loss": entropy / len(logits)}

    @torch.no_grad()
    def encode(self, observations: dict[str, Tensor], seeds: Sequence[int]) -> dict[str, Tensor]:
        """The maps: {"planes": (B, P, C, R, R), "grid": (B, C, R, R, R)}, those that there are.

        Raises ValueError where the observations are of another kind or size.
        """
        if self.observed == "points":
            return self.network.encoder(observed_cloud(observations))
        return self.network.encoder(observed_voxels(observations, self.settings.observation.resolution))

    def field(self, code: dict[str, Tensor], queries: Tensor) -> Tensor:
        """Logits of the occupancy."""
        return self.network.decoder(queries, code)

    def _voxels(self, arrays: ShapeArrays) -> np.ndarray:
        resolution = self.settings.observation.resolution
        return checked_grid(arrays[f"voxels.{resolution}"], resolution)

    def _observed(self, data: ResidentData, shapes: Tensor, generator: torch.Generator) -> Tensor:
        observation = self.settings.observation
        if self.observed == "voxels":
            return gathered_grids(data["voxels"], shapes, observation.resolution)
        surface = data["surface.points"]
        seen = random_index(generator, len(shapes), observation.points, surface.shape[1])
        noise = torch.randn((*seen.shape, 3), generator=generator, device=generator.device)
        return gather_points(surface, shapes, seen) + observation.noise * noise


def build(settings: ModelSettings, inference: InferenceSettings, train_shapes: int) -> ConvOnet:
    return ConvOnet(settings)
