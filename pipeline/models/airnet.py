"""AIR-Net: anchors with local features, found by vector attention on the cloud, condition an occupancy classifier.

Giebenhain, Goldluecke: AIR-Nets: An Attention-Based Framework for Locally Conditioned Implicit Representations, 3DV
2021. With its ablations: features of the anchors blended by a Gaussian kernel in place of the attending decoder
(`interpolation`), and max-pooled PointNet++ layers on absolute coordinates in place of the attending encoder
(`pointnet`). Every tensor has the original's name and shape at the default widths.

Deviations:
- Farthest points are chosen among all points; the original's kernel never takes one near the origin. Its rule is the
  setting `skip_near_origin`, which the presets switch on.
- The points observed at inference are distinct (in training drawn with replacement, as there).
- Tensors that cannot change the result (the first block's queries, keys and values; the global code's layers where
  the decoder interpolates) are not trained, but kept.
- The blend of anchors stays finite however far the query; the original divides zero by zero there.
- The "ldif" decoder, an ablation of the paper, is left out.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pipeline.models.declaration import Declaration
from pipeline.models.stage_checks import missing_points
from pipeline.samples.observation import PointCloudSettings
from pipeline.settings import Settings


class ModelSettings(Settings):
    """Encoder, decoder, observation and training batch. The defaults are airnet300's (5,847,225 parameters)."""

    encoder: Literal["attention", "pointnet"] = "attention"
    """attention: vector attention among neighbours, independent of where the shape lies. pointnet: max-pooling of
    neighbours' features, made from absolute coordinates."""

    levels: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (200, 100)
    """Points kept at each of the encoder's levels; the last are the anchors."""

    width: PositiveInt = 256
    """Features of an anchor, and length of the global code."""

    first_width: PositiveInt = 256
    """Features of a point up to the first level (attention only)."""

    neighbours: PositiveInt = 16
    """Points around each point of a level that it sees, itself among them."""

    first_neighbours: PositiveInt = 16
    """The same among the observed points (attention only)."""

    full_blocks: PositiveInt = 3
    """Blocks in which all anchors see each other."""

    decoder: Literal["attention", "interpolation"] = "attention"
    """attention: a query attends to its nearest anchors and the global code. interpolation: it sees the mean of the
    anchors' features under a Gaussian kernel."""

    decoder_width: PositiveInt = 200
    """Features of a query."""

    decoder_neighbours: PositiveInt = 7
    """Anchors that a query attends to (attention only)."""

    kernel: PositiveFloat = 0.2
    """Width of the Gaussian kernel, the network's units (interpolation only)."""

    hidden: PositiveInt = 128
    """Width of the decoder's residual blocks."""

    blocks: PositiveInt = 5
    """Residual blocks of the decoder; each sees the query's features again."""

    skip_near_origin: bool = False
    """Never choose a point within 0.0316 of the origin (the network's units) as an anchor, as the original's sampling
    does: needed for its weights, and it drops geometry of centred shapes."""

    scale: PositiveFloat = 1.0
    """Canonical coordinates are multiplied by this on their way into the network; 1 in the original. Small networks
    learn much faster from larger offsets."""

    supervision: Literal["boundary", "volume"] = "boundary"
    """Labelled points of training: near the surface, as many of every sigma of sample_boundary, or uniform in the
    volume."""

    queries: PositiveInt = 1000
    """Labelled points per shape in a training step, drawn with replacement."""

    observation: PointCloudSettings = PointCloudSettings(points=300, noise=0.0)
    """The cloud that training and inference see."""

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Occupancy probability on the surface, in validation and as default of extraction."""

    @model_validator(mode="after")
    def _levels_fit(self) -> Self:
        sizes = (self.observation.points, *self.levels)
        if any(larger < smaller for larger, smaller in itertools.pairwise(sizes)):
            raise ValueError(f"levels: {self.levels} may not grow, nor start above observation.points, {sizes[0]}")
        if self.encoder == "attention" and self.first_neighbours > sizes[0]:
            raise ValueError(f"first_neighbours: {self.first_neighbours} of only {sizes[0]} observed points")
        if self.decoder == "attention" and self.decoder_neighbours > sizes[-1]:
            raise ValueError(f"decoder_neighbours: {self.decoder_neighbours} of only {sizes[-1]} anchors")
        return self


class InferenceSettings(Settings):
    """Encoding is one pass of the encoder; nothing to set."""


DECLARATION = Declaration(
    trains="gradient",
    observes="point_cloud",
    quantity="occupancy_logit",
    training_stages=("sample_surface", "sample_boundary", "sample_volume"),
    observation_stages=("sample_surface",),
    validates=True,
    papers=(
        "Giebenhain, Goldluecke, AIR-Nets: An Attention-Based Framework for Locally Conditioned Implicit "
        "Representations, 3DV 2021",
    ),
    start_point=True,
)


def declare(settings: ModelSettings) -> Declaration:
    """The facts under the settings; validation looks at the volume in either case."""
    if settings.supervision == "boundary":
        return DECLARATION
    return replace(DECLARATION, training_stages=("sample_surface", "sample_volume"))


def check_stages(settings: ModelSettings, inference: InferenceSettings, stages: Settings) -> str | None:
    """What the data stages do not give of what is observed, or None."""
    return missing_points(settings.observation.points, stages)


from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.contract import Model, ShapeArrays, observed_cloud
from pipeline.models.layers import PointwiseConv, ResnetBlockFC
from pipeline.models.point_ops import farthest_points, gather, kernel_interpolation, nearest
from pipeline.samples.observation import observe_point_cloud
from pipeline.training.data import ResidentData, gather_points, random_index


def mlp(features_in: int, features: int) -> nn.Sequential:
    """Two layers with a rectifier between: (..., features_in) to (..., features)."""
    return nn.Sequential(nn.Linear(features_in, features), nn.ReLU(inplace=True), nn.Linear(features, features))


def projection(features_in: int, features: int) -> nn.Linear:
    """A layer without bias: (..., features_in) to (..., features)."""
    return nn.Linear(features_in, features, bias=False)


def normalised(norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
    """Batch normalisation of x (B, N, C) over shapes and points."""
    return norm(x.flatten(0, 1)).view_as(x)


def attend(query: Tensor, keys: Tensor, values: Tensor, offsets: Tensor, gamma: nn.Module) -> Tensor:
    """Vector attention (B, N, C) of queries (B, N, C) to their k neighbours' keys and values (B, N, k, C).

    Weights are a softmax over the neighbours for every channel by itself. offsets (B, N, k, C): encodings of the
    neighbours' places.
    """
    weights = gamma(query[:, :, None] - keys + offsets).softmax(dim=2)
    return (weights * (values + offsets)).sum(dim=2)


class PositionBlock(nn.Module):
    """Features (B, N, C) of points (B, N, 3) from the places of their k neighbours alone.

    The projections w_qs, w_ks and w_vs are the original's, which never uses them.
    """

    def __init__(self, features: int, k: int) -> None:
        super().__init__()
        self.k = k
        self.fc_delta, self.fc_gamma = mlp(3, features), mlp(features, features)
        self.w_qs, self.w_ks, self.w_vs = (projection(features, features).requires_grad_(False) for _ in range(3))
        self.bn = nn.BatchNorm1d(features)

    def forward(self, points: Tensor) -> Tensor:
        around = nearest(points, points, self.k)
        offsets = self.fc_delta(points[:, :, None] - gather(points, around))
        weights = self.fc_gamma(offsets).softmax(dim=2)
        return normalised(self.bn, (weights * offsets).sum(dim=2))


class TransformerBlock(nn.Module):
    """Features (B, N, C) after attention among the k nearest points, or among all where k is None."""

    def __init__(self, features: int, k: int | None) -> None:
        super().__init__()
        self.k = k
        self.fc_delta, self.fc_gamma = mlp(3, features), mlp(features, features)
        self.w_qs, self.w_ks, self.w_vs = (projection(features, features) for _ in range(3))
        self.bn = nn.BatchNorm1d(features)

    def forward(self, points: Tensor, features: Tensor) -> Tensor:
        keys, values = self.w_ks(features), self.w_vs(features)
        if self.k is None:
            keys, values, others = keys[:, None], values[:, None], points[:, None]
        else:
            around = nearest(points, points, self.k)
            keys, values, others = gather(keys, around), gather(values, around), gather(points, around)
        offsets = self.fc_delta(points[:, :, None] - others)
        seen = attend(self.w_qs(features), keys, values, offsets, self.fc_gamma)
        return normalised(self.bn, features + seen)


class ElementwiseMlp(nn.Module):
    """bn3(x + relu(bn2(conv2(relu(bn1(conv1(x))))))) of every point's features (B, N, C)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = PointwiseConv(features, features), PointwiseConv(features, features)
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm1d(features) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(normalised(self.bn1, self.conv1(x)), inplace=True)
        return normalised(self.bn3, x + F.relu(normalised(self.bn2, self.conv2(hidden)), inplace=True))


class AttentionAbstraction(nn.Module):
    """Features (B, n, C) of the centres among features (B, N, C): two rounds of attention to their neighbours."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.fc_delta1 = mlp(3, features)
        self.fc_gamma1, self.fc_gamma2 = mlp(features, features), mlp(features, features)
        self.w_qs, self.w_ks, self.w_vs = (projection(features, features) for _ in range(3))
        self.w_qs2, self.w_ks2, self.w_vs2 = (projection(features, features) for _ in range(3))
        self.conv1, self.conv2 = PointwiseConv(features, features), PointwiseConv(features, features)
        self.bn1 = nn.BatchNorm1d(features)
        self.bnorm0, self.bnorm1, self.bnorm2 = (nn.BatchNorm1d(features) for _ in range(3))

    def forward(self, points: Tensor, features: Tensor, centres: Tensor, around: Tensor) -> Tensor:
        """points (B, N, 3), centres (B, n) and their neighbours `around` (B, n, k) as indices."""
        kept = gather(features, centres)
        # Neighbour minus centre, where all other blocks take it the other way round.
        offsets = self.fc_delta1(gather(points, around) - gather(points, centres)[:, :, None])

        def look(query: Tensor, keys: nn.Linear, values: nn.Linear, gamma: nn.Module) -> Tensor:
            return attend(query, gather(keys(features), around), gather(values(features), around), offsets, gamma)

        first = look(self.w_qs(kept), self.w_ks, self.w_vs, self.fc_gamma1)
        hidden = F.relu(normalised(self.bn1, self.conv1(first)), inplace=True)
        first = normalised(self.bnorm0, first + self.conv2(hidden))
        second = look(self.w_qs2(first), self.w_ks2, self.w_vs2, self.fc_gamma2)
        return normalised(self.bnorm2, normalised(self.bnorm1, first + second) + kept)


class PoolingAbstraction(nn.Module):
    """Features (B, n, C) of the centres among features (B, N, C): the largest around them beside their own."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(features, features)
        self.conv1, self.conv2 = PointwiseConv(features, features), PointwiseConv(features, features)
        self.bn1, self.bn2, self.bn = (nn.BatchNorm1d(features) for _ in range(3))

    def forward(self, points: Tensor, features: Tensor, centres: Tensor, around: Tensor) -> Tensor:
        """centres (B, n) and their neighbours `around` (B, n, k) as indices; the places of the points do not matter."""
        features = self.fc1(features)
        hidden = F.relu(normalised(self.bn1, self.conv1(features)), inplace=True)
        hidden = features + F.relu(normalised(self.bn2, self.conv2(hidden)), inplace=True)
        return normalised(self.bn, gather(features, centres) + gather(hidden, around).amax(dim=2))


class Abstraction(nn.Module):
    """A part of the points, far apart from each other, with features from their neighbours."""

    def __init__(self, layer: nn.Module, count: int, k: int, skip_near_origin: bool) -> None:
        super().__init__()
        self.sa = layer
        self.count, self.k, self.skip_near_origin = count, k, skip_near_origin

    def forward(self, points: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        centres = farthest_points(points, self.count, self.skip_near_origin)
        kept = gather(points, centres)
        return kept, self.sa(points, features, centres, nearest(kept, points, self.k))


def abstractions(settings: ModelSettings, layers: Sequence[nn.Module]) -> nn.ModuleList:
    """The abstraction of every level, around its layer."""
    sizes = itertools.pairwise((settings.observation.points, *settings.levels))
    return nn.ModuleList(
        Abstraction(layer, count, min(settings.neighbours, before), settings.skip_near_origin)
        for layer, (before, count) in zip(layers, sizes, strict=True)
    )


class Encoder(nn.Module):
    """A cloud (B, M, 3) to {"z": (B, C), "anchors": (B, A, 3), "anchor_feats": (B, A, C)}."""

    transition_downs: nn.ModuleList

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        width, blocks = settings.width, range(settings.full_blocks)
        self.fc_middle = mlp(width, width)
        self.elementwise = nn.ModuleList(ElementwiseMlp(width) for _ in settings.levels)
        self.final_transformers = nn.ModuleList(TransformerBlock(width, None) for _ in blocks)
        self.final_elementwise = nn.ModuleList(ElementwiseMlp(width) for _ in blocks)

    def features(self, points: Tensor) -> Tensor:
        """Features (B, M, C) of the observed points."""
        raise NotImplementedError

    def after_level(self, level: int, points: Tensor, features: Tensor) -> Tensor:
        """What follows a level's abstraction: features (B, N, C) of its points (B, N, 3), turned to (B, N, C')."""
        raise NotImplementedError

    def forward(self, cloud: Tensor) -> dict[str, Tensor]:
        points, features = cloud, self.features(cloud)
        for level, down in enumerate(self.transition_downs):
            points, features = down(points, features)
            features = self.after_level(level, points, features)
        for block, elementwise in zip(self.final_transformers, self.final_elementwise, strict=True):
            features = elementwise(block(points, features))
        return {"z": self.fc_middle(features.amax(dim=1)), "anchors": points, "anchor_feats": features}


class AttentionEncoder(Encoder):
    """Vector attention at every level; features do not change when the cloud is moved."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        k, widths = settings.neighbours, [settings.first_width, *(settings.width for _ in settings.levels[1:])]
        self.transformer_begin = PositionBlock(settings.first_width, settings.first_neighbours)
        self.transition_downs = abstractions(settings, [AttentionAbstraction(width) for width in widths])
        self.elementwise_extras = nn.ModuleList(ElementwiseMlp(width) for width in widths)
        self.transformer_downs = nn.ModuleList(
            TransformerBlock(width, min(k, count)) for width, count in zip(widths, settings.levels, strict=True)
        )
        same = settings.first_width == settings.width
        self.fc1 = nn.Identity() if same else nn.Linear(settings.first_width, settings.width)

    def features(self, points: Tensor) -> Tensor:
        """Features (B, M, first_width) of points (B, M, 3), from their neighbours' places."""
        return self.transformer_begin(points)

    def after_level(self, level: int, points: Tensor, features: Tensor) -> Tensor:
        """Attention among the level's points (B, N, 3): features (B, N, C), after the first level `width` wide."""
        features = self.transformer_downs[level](points, self.elementwise_extras[level](features))
        return self.elementwise[level](features if level else self.fc1(features))


class PointNetEncoder(Encoder):
    """Max-pooling at every level, of features made from the points' coordinates."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self.fc_begin = mlp(3, settings.width)
        self.transition_downs = abstractions(settings, [PoolingAbstraction(settings.width) for _ in settings.levels])

    def features(self, points: Tensor) -> Tensor:
        """Features (B, M, width) of points (B, M, 3), of each by itself."""
        return self.fc_begin(points)

    def after_level(self, level: int, points: Tensor, features: Tensor) -> Tensor:
        """The level's layers on each point's features (B, N, width)."""
        return self.elementwise[level](features)


class CrossAttention(nn.Module):
    """Features (B, N, C) of queries that attend to their k nearest anchors and to one global token."""

    def __init__(self, features_in: int, features: int, k: int) -> None:
        super().__init__()
        self.k = k
        self.fc_delta, self.fc_gamma = mlp(3, features), mlp(features, features)
        self.w_k_global, self.w_v_global = projection(features_in, features), projection(features_in, features)
        self.w_qs, self.w_ks, self.w_vs = (projection(features_in, features) for _ in range(3))

    def forward(self, queries: Tensor, code: dict[str, Tensor]) -> Tensor:
        anchors, z = code["anchors"], code["z"][:, None, None]
        around = nearest(queries, anchors, self.k)
        offsets = self.fc_delta(queries[:, :, None] - gather(anchors, around))
        keys, values = self.w_ks(code["anchor_feats"]), self.w_vs(code["anchor_feats"])
        query, values = self.w_qs(z), gather(values, around) + offsets
        local = self.fc_gamma(query - gather(keys, around) + offsets)
        # The global token has no place, so all queries of a shape give it one and the same logit.
        overall = self.fc_gamma(query - self.w_k_global(z)).expand(-1, local.shape[1], -1, -1)
        weights = torch.cat([local, overall], dim=2).softmax(dim=2)
        return (weights[:, :, :-1] * values).sum(dim=2) + weights[:, :, -1] * self.w_v_global(z).squeeze(2)


class Decoder(nn.Module):
    """Logits (B, N) from the features of the queries: residual blocks that see these before each."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.fc_c = nn.ModuleList(nn.Linear(settings.decoder_width, settings.hidden) for _ in range(settings.blocks))
        self.blocks = nn.ModuleList(ResnetBlockFC(settings.hidden, settings.hidden) for _ in range(settings.blocks))
        self.fc_out = nn.Linear(settings.hidden, 1)

    def _classified(self, hidden: Tensor, features: Tensor) -> Tensor:
        for look, block in zip(self.fc_c, self.blocks, strict=True):
            hidden = block(hidden + look(features))
        return self.fc_out(F.relu(hidden)).squeeze(-1)


class AttentionDecoder(Decoder):
    """Logits (B, N) of queries (B, N, 3), which attend to anchors near them."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self.ct1 = CrossAttention(settings.width, settings.decoder_width, settings.decoder_neighbours)
        self.init_enc = nn.Linear(settings.decoder_width, settings.hidden)

    def forward(self, queries: Tensor, code: dict[str, Tensor]) -> Tensor:
        features = self.ct1(queries, code)
        return self._classified(self.init_enc(features), features)


class InterpolationDecoder(Decoder):
    """Logits (B, N) of queries (B, N, 3), which see the anchors' features under a Gaussian kernel."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self.kernel = settings.kernel
        self.fc0 = nn.Linear(settings.width, settings.decoder_width)
        self.fc1 = nn.Linear(settings.decoder_width, settings.hidden)

    def forward(self, queries: Tensor, code: dict[str, Tensor]) -> Tensor:
        blended = kernel_interpolation(queries, code["anchors"], code["anchor_feats"], self.kernel)
        features = self.fc0(blended)
        return self._classified(self.fc1(F.relu(features)), features)


class AirNetwork(nn.Module):
    """Encoder and decoder under the original's names."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.encoder = (AttentionEncoder if settings.encoder == "attention" else PointNetEncoder)(settings)
        self.decoder = (AttentionDecoder if settings.decoder == "attention" else InterpolationDecoder)(settings)
        if settings.decoder == "interpolation":
            self.encoder.fc_middle.requires_grad_(False)  # it has no use for the global code

    def forward(self, queries: Tensor, cloud: Tensor) -> Tensor:
        """Logits (B, N) of queries (B, N, 3) given clouds (B, M, 3)."""
        return self.decoder(queries, self.encoder(cloud))


class AirNet(Model):
    """AIR-Net; its frame is the canonical one, but for the scale of its settings."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.declaration = declare(settings)
        self.network = AirNetwork(settings)

    @property
    def level(self) -> float:
        return self.settings.threshold

    def prepare(self, arrays: ShapeArrays) -> dict[str, np.ndarray]:
        """Surface points, and the points with occupancies of the supervision's sets."""
        kept = {"surface.points": arrays["surface.points"]}
        for name in self._supervising(arrays):
            kept |= {f"{name}.{part}": arrays[f"{name}.{part}"] for part in ("points", "occupancies")}
        return kept

    def _supervising(self, arrays: Mapping[str, object]) -> list[str]:
        """Names of the labelled point sets that training draws from. Raises ValueError where there is none."""
        sets = sorted(key.removesuffix(".points") for key in arrays if key.endswith(".points"))
        sets = [name for name in sets if name.partition("-")[0] == self.settings.supervision]
        if not sets:
            raise ValueError(f"there are no labelled points of the kind {self.settings.supervision!r} to train on")
        return sets

    def observe(self, arrays: ShapeArrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """{"points": (M, 3)}: the cloud, noisy where the settings say so."""
        seen = observe_point_cloud(arrays["surface.points"], arrays["surface.normals"], self.settings.observation, rng)
        return {"points": seen["points"]}

    def draw(self, data: ResidentData, shapes: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Clouds (B, M, 3) with fresh noise, queries (B, N, 3) and their occupancies (B, N)."""
        surface, observation = data["surface.points"], self.settings.observation
        seen = random_index(generator, len(shapes), observation.points, surface.shape[1])
        noise = torch.randn((*seen.shape, 3), generator=generator, device=generator.device)
        shares = self._shares(self._supervising(data.tensors)).items()
        parts = [self._labelled(data, name, shapes, count, generator) for name, count in shares]
        return {
            "points": gather_points(surface, shapes, seen) + observation.noise * noise,
            "queries": torch.cat([points for points, _ in parts], dim=1),
            "occupancies": torch.cat([occupancies for _, occupancies in parts], dim=1),
        }

    def _shares(self, sets: list[str]) -> dict[str, int]:
        """How many queries come from each set: equal parts, the first ones taking what is left over."""
        each, left = divmod(self.settings.queries, len(sets))
        return {name: each + (i < left) for i, name in enumerate(sets)}

    @staticmethod
    def _labelled(
        data: ResidentData, name: str, shapes: Tensor, count: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Points (B, count, 3) of a set and their occupancies (B, count)."""
        points = data[f"{name}.points"]
        asked = random_index(generator, len(shapes), count, points.shape[1])
        occupancies = gather_points(data[f"{name}.occupancies"], shapes, asked)
        return gather_points(points, shapes, asked), occupancies.float()

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Binary cross-entropy, averaged over all points."""
        scale = self.settings.scale
        logits = self.network(batch["queries"] * scale, batch["points"] * scale)
        return {"loss": F.binary_cross_entropy_with_logits(logits, batch["occupancies"])}

    def parameter_groups(self, learning_rate: float) -> list[dict]:
        """The encoder's, then the decoder's, whose gradients the original bounds apart."""
        sides = (self.network.encoder, self.network.decoder)
        trained = [[weight for weight in side.parameters() if weight.requires_grad] for side in sides]
        return [{"params": weights, "lr": learning_rate} for weights in trained]

    @torch.no_grad()
    def encode(self, observations: dict[str, Tensor], seeds: Sequence[int]) -> dict[str, Tensor]:
        """{"z": (B, C), "anchors": (B, A, 3), "anchor_feats": (B, A, C)}, the anchors in the network's units.

        Raises ValueError where the cloud is not one of points, or has fewer than the settings need.
        """
        return self.network.encoder(self._checked(observations) * self.settings.scale)

    def _checked(self, observations: dict[str, Tensor]) -> Tensor:
        cloud, least = observed_cloud(observations), self._least()
        if cloud.shape[1] < least:
            raise ValueError(f"a cloud of {cloud.shape[1]} points is too small; these settings need at least {least}")
        return cloud

    def _least(self) -> int:
        """Points a cloud must have for every level to find its points and neighbours."""
        settings = self.settings
        first = settings.first_neighbours if settings.encoder == "attention" else 1
        return max(settings.levels[0], first, min(settings.neighbours, settings.observation.points))

    def field(self, code: dict[str, Tensor], queries: Tensor) -> Tensor:
        """Logits of the occupancy."""
        return self.network.decoder(queries * self.settings.scale, code)


def build(settings: ModelSettings, inference: InferenceSettings, train_shapes: int) -> AirNet:
    return AirNet(settings)
