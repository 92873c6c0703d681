"""Occupancy Networks: a global code of what is observed conditions an occupancy classifier of points.

Mescheder, Oechsle, Niemeyer, Nowozin, Geiger: Occupancy Networks, CVPR 2019, arXiv 1812.03828. Four modes by what is
observed: a point cloud, a picture, voxels, or nothing; without an observation the model is a variational autoencoder
of labelled points that draws new shapes. With the numbers of the presets every tensor has the original's name and
shape; these numbers are the defaults in point-cloud mode.

Deviations:
- Queries are not moved by the N(0, 1e-4^2) that breaks the ties of float16 coordinates, ours being finer.
- The points observed at inference are distinct (in training drawn with replacement, as there); everything is seeded.
- Without an observation, validation takes the IoU of held-out shapes decoded from the mean of their posterior, where
  the original takes the loss.
- The picture encoder starts from ImageNet weights only where a file of them is named.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, NonNegativeInt, PositiveInt, Tag, model_validator

from pipeline.models.declaration import Declaration
from pipeline.models.stage_checks import missing_points, missing_view
from pipeline.samples.observation import CloudObservation, VoxelObservation, observation_kind
from pipeline.settings import Settings

IMAGENET_WIDTH = 512


class ViewObservation(Settings):
    """One picture on a white background."""

    kind: Literal["view"]
    """Rendered views."""

    size: Annotated[int, Field(ge=32)] = 224
    """Edge of the pictures that the encoder sees, pixels; views of another size are interpolated."""

    view: NonNegativeInt = 0
    """Number of the view shown in validation and inference; in training it is drawn."""

    smallest_crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Training pictures are cropped to a random square of at least this share of their area; 1: not cropped. The
    original's legacy weights were trained with 0.75."""

    imagenet: str | None = None
    """File (.safetensors or .pth) with torchvision's ImageNet weights of ResNet-18, from which training starts; null:
    it starts from random weights."""


class HalvedVoxels(VoxelObservation):
    """A solid occupancy grid over the cube [-0.5, 0.5]^3, which the encoder halves four times."""

    resolution: Annotated[int, Field(ge=16, le=128, multiple_of=16)] = 32
    """Cells along each edge; 32 in the original."""


class NoObservation(Settings):
    """Nothing: new shapes are drawn."""

    kind: Literal["nothing"]
    """Unconditional."""


Observation = Annotated[
    Annotated[CloudObservation, Tag("point_cloud")]
    | Annotated[ViewObservation, Tag("view")]
    | Annotated[HalvedVoxels, Tag("voxels")]
    | Annotated[NoObservation, Tag("nothing")],
    Discriminator(observation_kind),
]


class ModelSettings(Settings):
    """Mode, widths and training batch. The defaults are the original's for point clouds (10,373,889 parameters)."""

    observation: Observation = CloudObservation()
    """What training and inference see; its `kind` is the mode."""

    decoder: Literal["cbatchnorm", "cbatchnorm_legacy", "cbatchnorm2", "cbatchnorm_noresnet", "batchnorm", "simple"] = (
        "cbatchnorm"
    )
    """How the code conditions the decoder. cbatchnorm: every normalisation is scaled and shifted by the code (legacy:
    the same under the names of the oldest weights; 2: the latent is added to the code, not to the features; noresnet:
    without residual branches). batchnorm, simple: the code is added once, with and without batch normalisation."""

    hidden: PositiveInt = 256
    """Width of the decoder."""

    blocks: PositiveInt = 5
    """Residual blocks of the decoder; its plain layers where it has no residual branches."""

    code: PositiveInt = 512
    """Length of a shape's code. Unused where nothing is observed."""

    latent: NonNegativeInt = 0
    """Length of the latent that training infers from labelled points and generation draws; 0: none."""

    encoder_hidden: PositiveInt = 512
    """Width of the encoder: of all its layers for point clouds, of its last convolutions for pictures and voxels."""

    encoder_blocks: PositiveInt = 5
    """Residual blocks of the point-cloud encoder; all but the first see each point beside the maximum over the
    cloud."""

    latent_hidden: PositiveInt = 128
    """Width of the encoder that infers the latent."""

    queries: PositiveInt = 2048
    """Labelled points per shape in a training step, drawn with replacement."""

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Occupancy probability on the surface, in validation and as default of extraction."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        kind = self.observation.kind
        if kind == "nothing" and (self.latent == 0 or self.decoder not in ("simple", "batchnorm")):
            raise ValueError(
                "where nothing is observed, shapes differ by their latent alone: give `latent` (128 in the original) "
                "and a decoder that needs no code, `simple` or `batchnorm`"
            )
        halvings = {"view": 8, "voxels": 16}.get(kind, 1)
        if self.encoder_hidden % halvings:
            raise ValueError(
                f"encoder_hidden: the encoder of {kind} starts with a {halvings}th of its width, so "
                f"{self.encoder_hidden} must be a multiple of {halvings}"
            )
        if kind == "view" and self.observation.imagenet and self.encoder_hidden != IMAGENET_WIDTH:
            raise ValueError(
                f"observation.imagenet: these weights are of width {IMAGENET_WIDTH}, so encoder_hidden cannot be "
                f"{self.encoder_hidden}"
            )
        return self


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


def declare(settings: ModelSettings) -> Declaration:
    """The declaration of the mode. Without an observation codes are inferred from labelled points, if asked for."""
    seen = settings.observation
    if seen.kind == "nothing":
        volume = ("sample_volume",)
        return replace(
            DECLARATION, observes="nothing", training_stages=volume, observation_stages=volume, generates=True
        )
    stage = {"point_cloud": "sample_surface", "view": "render_views"}.get(seen.kind) or f"voxelize/{seen.resolution}"
    return replace(
        DECLARATION,
        observes=seen.kind,
        training_stages=(stage, "sample_volume"),
        observation_stages=(stage,),
        starts_from=seen.imagenet if seen.kind == "view" else None,
    )


def check_stages(settings: ModelSettings, inference: InferenceSettings, stages: Settings) -> str | None:
    """What the data stages do not give of what is observed, or None."""
    seen = settings.observation
    if seen.kind == "view":
        return missing_view(seen.view, stages, "model.observation.view")
    return missing_points(seen.points, stages) if seen.kind == "point_cloud" else None


from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.arrays import Rejected
from pipeline.models import encoders
from pipeline.models.contract import Model, ShapeArrays, observed_cloud, observed_entry, observed_voxels
from pipeline.models.layers import CBatchNorm1d, CResnetBlockConv1d, PointwiseConv, ResnetBlockFC, linear_of_parts
from pipeline.samples.observation import observe_point_cloud
from pipeline.training.data import ResidentData, gather_points, random_index

# --- encoders


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


class LatentEncoder(nn.Module):
    """Labelled points to the posterior of the latent: mean and log standard deviation, (B, latent) each."""

    def __init__(self, hidden: int, code: int, latent: int) -> None:
        super().__init__()
        self.fc_0 = nn.Linear(1, hidden)
        self.fc_pos = nn.Linear(3, hidden)
        self.fc_c = nn.Linear(code, hidden) if code else None
        self.fc_1 = nn.Linear(hidden, hidden)
        self.fc_2 = nn.Linear(2 * hidden, hidden)
        self.fc_3 = nn.Linear(2 * hidden, hidden)
        self.fc_mean = nn.Linear(hidden, latent)
        self.fc_logstd = nn.Linear(hidden, latent)

    def forward(self, points: Tensor, occupancies: Tensor, code: Tensor | None) -> tuple[Tensor, Tensor]:
        """points (B, N, 3), occupancies (B, N), code (B, code) where the latent stands beside one."""
        features = self.fc_0(occupancies[..., None]) + self.fc_pos(points)  # (B, N, hidden)
        if self.fc_c is not None:
            features = features + self.fc_c(code)[:, None]
        features = self.fc_1(F.relu(features, inplace=True))
        for layer in (self.fc_2, self.fc_3):
            active = F.relu(features, inplace=True)
            features = linear_of_parts(layer, (active, active.amax(dim=1, keepdim=True)))
        pooled = features.amax(dim=1)
        return self.fc_mean(pooled), self.fc_logstd(pooled)


# --- decoders: logits (B, N) of queries (B, N, 3) under codes (B, code) and latents (B, latent), each perhaps absent


class CBatchNormDecoder(nn.Module):
    """Residual blocks under conditional normalisation; a latent is added to the first features."""

    legacy = False

    def __init__(self, hidden: int, code: int, blocks: int, latent: int) -> None:
        super().__init__()
        self.fc_z = nn.Linear(latent, hidden) if latent else None
        self.fc_p = PointwiseConv(3, hidden)
        self.depth = blocks
        for i in range(blocks):
            self.add_module(f"block{i}", CResnetBlockConv1d(code, hidden, self.legacy))
        self.bn = CBatchNorm1d(code, hidden, self.legacy)
        self.fc_out = PointwiseConv(hidden, 1)

    def forward(self, queries: Tensor, code: Tensor, latent: Tensor | None = None) -> Tensor:
        features = _plus(self.fc_p(queries), (self.fc_z, latent))  # (B, N, hidden)
        for i in range(self.depth):
            features = getattr(self, f"block{i}")(features, code)
        return self.fc_out(F.relu(self.bn(features, code), inplace=True)).squeeze(-1)


class LegacyDecoder(CBatchNormDecoder):
    """The same under the names of the oldest released weights."""

    legacy = True


class CBatchNorm2Decoder(nn.Module):
    """As `CBatchNormDecoder`, but a latent is added to the code."""

    def __init__(self, hidden: int, code: int, blocks: int, latent: int) -> None:
        super().__init__()
        self.fc_z = nn.Linear(latent, code) if latent else None
        self.conv_p = PointwiseConv(3, hidden)
        self.blocks = nn.ModuleList(CResnetBlockConv1d(code, hidden) for _ in range(blocks))
        self.bn = CBatchNorm1d(code, hidden)
        self.conv_out = PointwiseConv(hidden, 1)

    def forward(self, queries: Tensor, code: Tensor, latent: Tensor | None = None) -> Tensor:
        features = self.conv_p(queries)
        if self.fc_z is not None:
            code = code + self.fc_z(latent)
        for block in self.blocks:
            features = block(features, code)
        return self.conv_out(F.relu(self.bn(features, code), inplace=True)).squeeze(-1)


class NoResnetDecoder(nn.Module):
    """Plain layers, each after a conditional normalisation."""

    def __init__(self, hidden: int, code: int, blocks: int, latent: int) -> None:
        super().__init__()
        self.fc_z = nn.Linear(latent, hidden) if latent else None
        self.fc_p = PointwiseConv(3, hidden)
        self.depth = blocks
        for i in range(blocks):
            self.add_module(f"bn_{i}", CBatchNorm1d(code, hidden))
            self.add_module(f"fc_{i}", PointwiseConv(hidden, hidden))
        self.add_module(f"bn_{blocks}", CBatchNorm1d(code, hidden))
        self.fc_out = PointwiseConv(hidden, 1)

    def forward(self, queries: Tensor, code: Tensor, latent: Tensor | None = None) -> Tensor:
        features = _plus(self.fc_p(queries), (self.fc_z, latent))
        for i in range(self.depth):
            active = F.relu(getattr(self, f"bn_{i}")(features, code), inplace=True)
            features = getattr(self, f"fc_{i}")(active)
        last = getattr(self, f"bn_{self.depth}")
        return self.fc_out(F.relu(last(features, code), inplace=True)).squeeze(-1)


class BatchNormBlock(nn.Module):
    """x + fc_1(relu(bn_1(fc_0(relu(bn_0(x)))))); the branch starts at zero weight."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.bn_0, self.bn_1 = nn.BatchNorm1d(features), nn.BatchNorm1d(features)
        self.fc_0, self.fc_1 = PointwiseConv(features, features), PointwiseConv(features, features)
        nn.init.zeros_(self.fc_1.weight)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc_0(F.relu(_normalised(self.bn_0, x), inplace=True))
        return x + self.fc_1(F.relu(_normalised(self.bn_1, hidden), inplace=True))


class BatchNormDecoder(nn.Module):
    """Residual blocks under plain normalisation; code and latent are added to the first features."""

    def __init__(self, hidden: int, code: int, blocks: int, latent: int) -> None:
        super().__init__()
        self.fc_z = nn.Linear(latent, hidden) if latent else None
        self.fc_c = nn.Linear(code, hidden) if code else None
        self.fc_p = PointwiseConv(3, hidden)
        self.depth = blocks
        for i in range(blocks):
            self.add_module(f"block{i}", BatchNormBlock(hidden))
        self.bn = nn.BatchNorm1d(hidden)
        self.fc_out = PointwiseConv(hidden, 1)

    def forward(self, queries: Tensor, code: Tensor | None, latent: Tensor | None = None) -> Tensor:
        features = _plus(self.fc_p(queries), (self.fc_z, latent), (self.fc_c, code))
        for i in range(self.depth):
            features = getattr(self, f"block{i}")(features)
        return self.fc_out(F.relu(_normalised(self.bn, features), inplace=True)).squeeze(-1)


class SimpleDecoder(nn.Module):
    """Residual blocks without normalisation; code and latent are added to the first features."""

    def __init__(self, hidden: int, code: int, blocks: int, latent: int) -> None:
        super().__init__()
        self.fc_z = nn.Linear(latent, hidden) if latent else None
        self.fc_c = nn.Linear(code, hidden) if code else None
        self.fc_p = nn.Linear(3, hidden)
        self.depth = blocks
        for i in range(blocks):
            self.add_module(f"block{i}", ResnetBlockFC(hidden, hidden))
        self.fc_out = nn.Linear(hidden, 1)

    def forward(self, queries: Tensor, code: Tensor | None, latent: Tensor | None = None) -> Tensor:
        features = _plus(self.fc_p(queries), (self.fc_z, latent), (self.fc_c, code))
        for i in range(self.depth):
            features = getattr(self, f"block{i}")(features)
        return self.fc_out(F.relu(features)).squeeze(-1)


def _plus(features: Tensor, *added: tuple[nn.Linear | None, Tensor | None]) -> Tensor:
    """Features (B, N, C) and the layers' values of one vector per shape, (B, length) each, where there is a layer."""
    for layer, vector in added:
        if layer is not None:
            features = features + layer(vector)[:, None]
    return features


def _normalised(norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
    return norm(x.flatten(0, 1)).view_as(x)


DECODERS = {
    "cbatchnorm": CBatchNormDecoder,
    "cbatchnorm_legacy": LegacyDecoder,
    "cbatchnorm2": CBatchNorm2Decoder,
    "cbatchnorm_noresnet": NoResnetDecoder,
    "batchnorm": BatchNormDecoder,
    "simple": SimpleDecoder,
}


class OccupancyNetwork(nn.Module):
    """Encoder, decoder and encoder of the latent under the original's names; absent ones are None."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.latent = settings.latent
        code = 0 if settings.observation.kind == "nothing" else settings.code
        self.decoder = DECODERS[settings.decoder](settings.hidden, code, settings.blocks, settings.latent)
        self.encoder_latent = LatentEncoder(settings.latent_hidden, code, settings.latent) if settings.latent else None
        self.encoder = _encoder(settings)

    def forward(self, queries: Tensor, observation: Tensor) -> Tensor:
        """Logits (B, N) of queries (B, N, 3).

        observation: clouds (B, M, 3), pictures (B, 3, H, W) in [0, 1], voxels (B, R, R, R), or latents (B, latent)
        where nothing is observed. Beside a code, the latent is the prior's mean.
        """
        if self.encoder is None:
            return self.decoder(queries, None, observation)
        code = self.encoder(observation)
        return self.decoder(queries, code, self.prior_mean(code))

    def prior_mean(self, code: Tensor) -> Tensor | None:
        """Zeros (B, latent), None where there is no latent."""
        return code.new_zeros((len(code), self.latent)) if self.latent else None


def _encoder(settings: ModelSettings) -> nn.Module | None:
    seen, hidden, code = settings.observation, settings.encoder_hidden, settings.code
    if seen.kind == "point_cloud":
        return PointEncoder(hidden, code, settings.encoder_blocks)
    if seen.kind == "view":
        return encoders.ImageEncoder(code, hidden // 8)
    if seen.kind == "voxels":
        return encoders.VoxelEncoder(code, seen.resolution, hidden // 16)
    return None


# --- what is observed: the arrays kept for training, what is seen at inference and in a batch, the encoder's input


class CloudSight:
    """A noisy cloud: "points" (B, M, 3)."""

    def __init__(self, settings: CloudObservation) -> None:
        self.settings = settings

    def prepare(self, arrays: ShapeArrays) -> dict[str, np.ndarray]:
        """{"surface.points": (n, 3)}."""
        return {"surface.points": arrays["surface.points"]}

    def observe(self, arrays: ShapeArrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """{"points": (M, 3)}, distinct ones with noise."""
        seen = observe_point_cloud(arrays["surface.points"], arrays["surface.normals"], self.settings, rng)
        return {"points": seen["points"]}

    def draw(self, data: ResidentData, shapes: Tensor, generator: torch.Generator, train: bool) -> dict[str, Tensor]:
        """{"points": (B, M, 3)}, drawn with replacement, with fresh noise."""
        surface = data["surface.points"]
        index = random_index(generator, len(shapes), self.settings.points, surface.shape[1])
        noise = torch.randn((*index.shape, 3), generator=generator, device=generator.device)
        return {"points": gather_points(surface, shapes, index) + self.settings.noise * noise}

    def input(self, seen: Mapping[str, Tensor]) -> Tensor:
        """Clouds (B, M, 3). Raises ValueError for other arrays."""
        return observed_cloud(seen)


class ViewSight:
    """A picture on white: "image" (B, 3, S, S) uint8."""

    def __init__(self, settings: ViewObservation) -> None:
        self.settings = settings

    def prepare(self, arrays: ShapeArrays) -> dict[str, np.ndarray]:
        """{"views": (V, 3, S, S) uint8} on white."""
        return {"views": encoders.on_white(arrays["views.images"])}

    def observe(self, arrays: ShapeArrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """{"image": (3, S, S) uint8} on white. Raises Rejected where there is no view of that number."""
        view, views = self.settings.view, arrays["views.images"]
        if view >= len(views):
            raise Rejected(
                f"there is no view {view}, only 0 to {len(views) - 1}; change observation.view or render more"
            )
        return {"image": encoders.on_white(views[view : view + 1])[0]}

    def draw(self, data: ResidentData, shapes: Tensor, generator: torch.Generator, train: bool) -> dict[str, Tensor]:
        """{"image": (B, 3, size, size)} in [0, 1]: random views, cropped as the settings say; else the one shown."""
        views = data["views"]
        shown = torch.full((len(shapes), 1), self.settings.view, device=generator.device)
        index = random_index(generator, len(shapes), 1, views.shape[1]) if train else shown
        images = encoders.resized(gather_points(views, shapes, index)[:, 0], self.settings.size)
        if train and self.settings.smallest_crop < 1:
            images = encoders.random_crops(images, self.settings.smallest_crop, generator)
        return {"image": images}

    def input(self, seen: Mapping[str, Tensor]) -> Tensor:
        """Pictures (B, 3, S, S) in [0, 1]: bytes are resized, floats are taken as they are. Raises ValueError for
        other arrays."""
        images = observed_entry(seen, "image", "pictures")
        if not images.is_floating_point():
            return encoders.resized(images, self.settings.size)
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"pictures are (B, 3, S, S), red green blue; these are {tuple(images.shape)}")
        return images


class VoxelSight:
    """Occupied cells: "voxels" (B, R, R, R) bool, index order x, y, z."""

    def __init__(self, settings: VoxelObservation) -> None:
        self.resolution, self.key = settings.resolution, f"voxels.{settings.resolution}"

    def prepare(self, arrays: ShapeArrays) -> dict[str, np.ndarray]:
        """{"voxels.R": (R, R, R) bool}."""
        return {self.key: arrays[self.key]}

    def observe(self, arrays: ShapeArrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """{"voxels": (R, R, R) bool}."""
        return {"voxels": arrays[self.key]}

    def draw(self, data: ResidentData, shapes: Tensor, generator: torch.Generator, train: bool) -> dict[str, Tensor]:
        """{"voxels": (B, R, R, R) bool}."""
        voxels = data[self.key]
        return {"voxels": voxels[shapes.to(voxels.device)].to(generator.device)}

    def input(self, seen: Mapping[str, Tensor]) -> Tensor:
        """Voxels (B, R, R, R). Raises ValueError for other arrays and resolutions."""
        return observed_voxels(seen, self.resolution)


class NoSight:
    """Nothing."""

    def __init__(self, settings: NoObservation) -> None:
        pass

    def prepare(self, arrays: ShapeArrays) -> dict[str, np.ndarray]:
        """No arrays."""
        return {}

    def observe(self, arrays: ShapeArrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """No arrays."""
        return {}

    def draw(self, data: ResidentData, shapes: Tensor, generator: torch.Generator, train: bool) -> dict[str, Tensor]:
        """No tensors."""
        return {}

    def input(self, seen: Mapping[str, Tensor]) -> None:
        """There is no encoder."""
        return None


SIGHTS = {"point_cloud": CloudSight, "view": ViewSight, "voxels": VoxelSight, "nothing": NoSight}


# --- the model


class Onet(Model):
    """Occupancy Networks; the frame is the canonical one."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.declaration = declare(settings)
        self.settings = settings
        self.sight = SIGHTS[settings.observation.kind](settings.observation)
        self.network = OccupancyNetwork(settings)

    @property
    def level(self) -> float:
        return self.settings.threshold

    def prepare(self, arrays: ShapeArrays) -> dict[str, np.ndarray]:
        """What is observed, and the volume's points with their occupancies."""
        return {**self.sight.prepare(arrays), **{key: arrays[key] for key in ("volume.points", "volume.occupancies")}}

    def observe(self, arrays: ShapeArrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """{"points": (M, 3)}, the noisy cloud; {"image": (3, S, S) uint8}, one view on white; or {"voxels": (R, R, R)}.

        Raises Rejected where a shape lacks the view asked for.
        """
        return self.sight.observe(arrays, rng)

    def draw(self, data: ResidentData, shapes: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """What is observed, queries (B, N, 3), their occupancies (B, N), and the latent's noise (B, latent) if any.

        Pictures are random views; in evaluation mode the one that inference is shown.
        """
        volume = data["volume.points"]
        seen = self.sight.draw(data, shapes, generator, self.training)
        asked = random_index(generator, len(shapes), self.settings.queries, volume.shape[1])
        size, device = (len(shapes), self.settings.latent), generator.device
        noise = {"noise": torch.randn(size, generator=generator, device=device)} if self.settings.latent else {}
        return {
            **seen,
            **noise,
            "queries": gather_points(volume, shapes, asked),
            "occupancies": gather_points(data["volume.occupancies"], shapes, asked).float(),
        }

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Binary cross-entropy, summed over the points of a shape and averaged over shapes.

        With a latent this is the "reconstruction", and "kl", the divergence of the posterior from N(0, 1) summed over
        the latent's entries and averaged over shapes, is added.
        """
        code = self._code(batch)
        if not self.settings.latent:
            return {"loss": self._entropy(batch, code, None)}
        mean, logstd = self.network.encoder_latent(batch["queries"], batch["occupancies"], code)
        reconstruction = self._entropy(batch, code, mean + logstd.exp() * batch["noise"])
        kl = divergence(mean, logstd).mean()
        return {"loss": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}

    def _code(self, seen: Mapping[str, Tensor]) -> Tensor | None:
        return self.network.encoder(self.sight.input(seen)) if self.network.encoder is not None else None

    def _entropy(self, batch: dict[str, Tensor], code: Tensor | None, latent: Tensor | None) -> Tensor:
        logits = self.network.decoder(batch["queries"], code, latent)
        return F.binary_cross_entropy_with_logits(logits, batch["occupancies"], reduction="sum") / len(logits)

    @torch.no_grad()
    def encode(self, observations: dict[str, Tensor], seeds: Sequence[int]) -> dict[str, Tensor]:
        """{"code": (B, code)}, and the prior's mean "latent" (B, latent) if there is one.

        Raises ValueError where the observations are of another kind or size.
        """
        code = self._code(observations)
        latent = self.network.prior_mean(code)
        return {"code": code} if latent is None else {"code": code, "latent": latent}

    def field(self, code: dict[str, Tensor], queries: Tensor) -> Tensor:
        """Logits of the occupancy."""
        return self.network.decoder(queries, code.get("code"), code.get("latent"))


class UnconditionalOnet(Onet):
    """Draws latents of new shapes; those of given shapes are inferred from labelled points."""

    def observe(self, arrays: ShapeArrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """{"points": (N, 3), "occupancies": (N,)}: as many labelled points as a training step takes."""
        points, count = arrays["volume.points"], self.settings.queries
        chosen = rng.choice(len(points), count, replace=len(points) < count)
        return {"points": points[chosen], "occupancies": arrays["volume.occupancies"][chosen]}

    @torch.no_grad()
    def encode(self, observations: dict[str, Tensor], seeds: Sequence[int]) -> dict[str, Tensor]:
        """{"latent": (B, latent), "kl": (B,)}: the posterior's mean, and its divergence from the prior.

        Raises ValueError where there are no labelled points.
        """
        parts = ("points", "occupancies")
        points, occupancies = (observed_entry(observations, name, "labelled points") for name in parts)
        mean, logstd = self.network.encoder_latent(points, occupancies.float(), None)
        return {"latent": mean, "kl": divergence(mean, logstd)}

    def sample(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """{"latent": (count, latent)}, standard normal."""
        size = (count, self.settings.latent)
        return {"latent": torch.randn(size, generator=generator, device=generator.device).to(self.device)}


def divergence(mean: Tensor, logstd: Tensor) -> Tensor:
    """Kullback-Leibler divergence (B,) of N(mean, exp(logstd)^2) from N(0, 1), summed over the entries (B, latent)."""
    return ((mean.square() + (2 * logstd).exp() - 1) / 2 - logstd).sum(dim=1)


def build(settings: ModelSettings, inference: InferenceSettings, train_shapes: int) -> Onet:
    """The model, its picture encoder with ImageNet weights where they are named (ValueError if they cannot be read)."""
    seen = settings.observation
    model = UnconditionalOnet(settings) if seen.kind == "nothing" else Onet(settings)
    if seen.kind == "view" and seen.imagenet:
        encoders.load_imagenet(model.network.encoder.features, seen.imagenet)
    return model
