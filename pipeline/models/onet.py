"""Occupancy Networks, point-cloud mode: a global code of the cloud conditions an occupancy classifier of points.

Mescheder, Oechsle, Niemeyer, Nowozin, Geiger: Occupancy Networks, CVPR 2019, arXiv 1812.03828. The encoder is
`pointnet_resnet`, the decoder `cbatchnorm`; at the default widths every tensor has the original's name and shape.

Deviations: queries are not moved by the N(0, 1e-4^2) that breaks the ties of float16 coordinates, ours being finer;
the points observed at inference are distinct (in training drawn with replacement, as there); everything is seeded.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt

from pipeline.models.declaration import Declaration
from pipeline.samples.observation import PointCloudSettings
from pipeline.settings import Settings


class ModelSettings(Settings):
    """Widths, observation and training batch. The defaults are the original's (10,373,889 parameters)."""

    hidden: PositiveInt = 256
    """Width of the decoder."""

    blocks: PositiveInt = 5
    """Residual blocks of the decoder."""

    code: PositiveInt = 512
    """Length of a shape's code."""

    encoder_hidden: PositiveInt = 512
    """Width of the encoder."""

    encoder_blocks: PositiveInt = 5
    """Residual blocks of the encoder; all but the first see each point beside the maximum over the cloud."""

    queries: PositiveInt = 2048
    """Labelled points per shape in a training step, drawn with replacement."""

    observation: PointCloudSettings = PointCloudSettings()
    """The cloud that training and inference see."""

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Occupancy probability on the surface, in validation and as default of extraction."""


class InferenceSettings(Settings):
    """Encoding is one pass of the encoder; nothing to set."""


DECLARATION = Declaration(
    trains="gradient",
    observes="point_cloud",
    quantity="occupancy_logit",
    training_stages=("sample_surface", "sample_volume"),
    observation_stages=("sample_surface",),
    validates=True,
    papers=("Mescheder et al., Occupancy Networks: Learning 3D Reconstruction in Function Space, CVPR 2019",),
)

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.contract import Model, ShapeArrays
from pipeline.models.layers import CBatchNorm1d, CResnetBlockConv1d, PointwiseConv, ResnetBlockFC
from pipeline.samples.observation import observe_point_cloud
from pipeline.training.data import ResidentData, gather_points, random_index


class PointEncoder(nn.Module):
    """A cloud (B, M, 3) to a code (B, code): residual blocks on points, each shown the maximum over its cloud."""

    def __init__(self, hidden: int, code: int, blocks: int) -> None:
        super().__init__()
        self.fc_pos = nn.Linear(3, 2 * hidden)
        self.depth = blocks
        for i in range(blocks):
            self.add_module(f"block_{i}", ResnetBlockFC(2 * hidden, hidden))
        self.fc_c = nn.Linear(hidden, code)

    def forward(self, points: Tensor) -> Tensor:
        features = self.block_0(self.fc_pos(points))  # (B, M, hidden)
        for i in range(1, self.depth):
            features = getattr(self, f"block_{i}")(features, features.amax(dim=1, keepdim=True))
        return self.fc_c(F.relu(features.amax(dim=1)))


class Decoder(nn.Module):
    """Logits (B, N) of queries (B, N, 3) under codes (B, code)."""

    def __init__(self, hidden: int, code: int, blocks: int) -> None:
        super().__init__()
        self.fc_p = PointwiseConv(3, hidden)
        self.depth = blocks
        for i in range(blocks):
            self.add_module(f"block{i}", CResnetBlockConv1d(code, hidden))
        self.bn = CBatchNorm1d(code, hidden)
        self.fc_out = PointwiseConv(hidden, 1)

    def forward(self, queries: Tensor, code: Tensor) -> Tensor:
        features = self.fc_p(queries)  # (B, N, hidden)
        for i in range(self.depth):
            features = getattr(self, f"block{i}")(features, code)
        return self.fc_out(F.relu(self.bn(features, code))).squeeze(-1)


class OccupancyNetwork(nn.Module):
    """Encoder and decoder under the original's names."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.decoder = Decoder(settings.hidden, settings.code, settings.blocks)
        self.encoder = PointEncoder(settings.encoder_hidden, settings.code, settings.encoder_blocks)

    def forward(self, queries: Tensor, cloud: Tensor) -> Tensor:
        """Logits (B, N) of queries (B, N, 3) given clouds (B, M, 3)."""
        return self.decoder(queries, self.encoder(cloud))


class Onet(Model):
    """Occupancy Networks on point clouds; its frame is the canonical one."""

    declaration = DECLARATION

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.network = OccupancyNetwork(settings)

    @property
    def level(self) -> float:
        return self.settings.threshold

    def prepare(self, arrays: ShapeArrays) -> dict[str, np.ndarray]:
        """Surface points, and the volume's points with their occupancies."""
        return {key: arrays[key] for key in ("surface.points", "volume.points", "volume.occupancies")}

    def observe(self, arrays: ShapeArrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """{"points": (M, 3)}: the noisy cloud."""
        seen = observe_point_cloud(arrays["surface.points"], arrays["surface.normals"], self.settings.observation, rng)
        return {"points": seen["points"]}

    def draw(self, data: ResidentData, shapes: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Clouds (B, M, 3) with fresh noise, queries (B, N, 3) and their occupancies (B, N)."""
        surface, volume = data["surface.points"], data["volume.points"]
        observation = self.settings.observation
        seen = random_index(generator, len(shapes), observation.points, surface.shape[1])
        asked = random_index(generator, len(shapes), self.settings.queries, volume.shape[1])
        noise = torch.randn((*seen.shape, 3), generator=generator, device=generator.device)
        return {
            "points": gather_points(surface, shapes, seen) + observation.noise * noise,
            "queries": gather_points(volume, shapes, asked),
            "occupancies": gather_points(data["volume.occupancies"], shapes, asked).float(),
        }

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Binary cross-entropy, summed over the points of a shape and averaged over shapes."""
        logits = self.network(batch["queries"], batch["points"])
        entropy = F.binary_cross_entropy_with_logits(logits, batch["occupancies"], reduction="sum")
        return {"loss": entropy / len(logits)}

    @torch.no_grad()
    def encode(self, observations: dict[str, Tensor], seeds: Sequence[int]) -> dict[str, Tensor]:
        """{"code": (B, code)}."""
        return {"code": self.network.encoder(observations["points"])}

    def field(self, code: dict[str, Tensor], queries: Tensor) -> Tensor:
        """Logits of the occupancy."""
        return self.network.decoder(queries, code["code"])


def build(settings: ModelSettings, inference: InferenceSettings, train_shapes: int) -> Onet:
    return Onet(settings)
