"""IM-NET, the auto-encoder IM-AE: voxels to a code, and a decoder that tells inside from outside at a point.

Chen and Zhang: Learning Implicit Fields for Generative Shape Modeling, CVPR 2019, arXiv 1812.02822; numbers as in the
author's PyTorch code ("v2"; his TensorFlow code with one model for all categories is "v1"). Training shows point-value
pairs of 16^3, then of 32^3, then of 64^3 cells (`pipeline.samples.point_values`). The loss is the mean squared error;
the weights by sampling density of the paper's formula are in no released code.

Frame: the network's cube [-0.5, 0.5]^3 is the canonical one, voxel i of R at (i + 0.5) / R - 0.5 in both. The field is
0 outside the cube, where the original's extraction puts a border of zeros and nothing is ever trained.

Deviations:
- Shapes fill the cube (longest edge 1), where the original's have a bounding box of diagonal 1 and keep off its faces.
  They cross up to three times as many cells, which would leave no pairs for the empty space, so `near` bounds their
  share.
- Voxels are solid by the inside test, so the original's carving of hollow shapes has nothing to do.
- Where `grid` is 64, pairs and input come from that grid; the original takes both from 256^3, as `grid: 256` does.
- The moments of Adam go on across the three levels, where the original starts each with fresh ones.
- v1's layer norms and initial weights follow TensorFlow's; only its clip, its affine encoder, its epochs and its Adam
  (`training.adam_epsilon`) are here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from pipeline.models.declaration import Declaration
from pipeline.settings import Settings


class ModelSettings(Settings):
    """Widths, data and levels. The defaults are v2's (10,003,713 parameters)."""

    code: PositiveInt = 256
    """Length of a shape's code."""

    encoder_width: PositiveInt = 32
    """Channels of the first convolution; the next three have 2, 4 and 8 times as many."""

    decoder_width: PositiveInt = 128
    """Width of the last hidden layer; the six have 8, 8, 8, 4, 2 and 1 times this."""

    decoder_std: PositiveFloat | None = 0.02
    """Standard deviation of the decoder's initial weights; null: so that every layer keeps the spread of its input
    and coordinates weigh as much as the code, from which narrow decoders learn sooner."""

    clip: Literal["leaky", "hard"] = "leaky"
    """Of the output to [0, 1]: leaky leaves a slope of 0.01 outside (v2); hard leaves none (v1), so that some seeds
    never learn."""

    affine_encoder: bool = False
    """Convolutions with biases, and instance normalisation with scale and shift, as v1 (6,950,560 in the encoder)."""

    grid: Literal[64, 128, 256] = 64
    """Voxels along an edge of the grid that input and pairs are taken from; it must be among the data stages."""

    near: Annotated[float, Field(gt=0, le=1)] = 0.75
    """Largest share of the pairs of 32^3 and 64^3 cells that lies at the surface; the others are anywhere. 1: no bound,
    as the original."""

    points: PositiveInt = 4096
    """Pairs per shape in a training step: a random run of the level's 4096, 4096 or 16384, the same for a batch."""

    epochs_16: NonNegativeInt = 200
    """Passes over the training shapes with pairs of 16^3 cells (v2: 200, v1: 100)."""

    epochs_32: NonNegativeInt = 200
    """Further passes with pairs of 32^3 cells (v2: 200, v1: 100); all that follow have pairs of 64^3."""

    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Decay of Adam's mean of gradients."""


class InferenceSettings(Settings):
    """Encoding is one pass of the encoder; nothing to set."""


DECLARATION = Declaration(
    trains="gradient",
    observes="voxels",
    quantity="occupancy",
    training_stages=("voxelize/64", "sample_volume"),
    observation_stages=("voxelize/64",),
    validates=True,
    papers=("Chen and Zhang, Learning Implicit Fields for Generative Shape Modeling, CVPR 2019",),
)


def declare(settings: ModelSettings) -> Declaration:
    """The facts for a grid; the volume's points serve the validation."""
    voxels = f"voxelize/{settings.grid}"
    return replace(DECLARATION, training_stages=(voxels, "sample_volume"), observation_stages=(voxels,))


import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.arrays import Rejected
from pipeline.models.contract import Model, ShapeArrays, observed_voxels
from pipeline.models.layers import linear_of_parts
from pipeline.samples.point_values import PAIRS, max_pool, point_values
from pipeline.training.data import ResidentData, gather_points

INPUT = 64  # voxels along an edge that the encoder's strides lead to one
SLOPE = 0.02  # of every leaky rectifier


class VoxelEncoder(nn.Module):
    """Voxels (B, 64, 64, 64) to codes (B, code) in (0, 1)."""

    def __init__(self, width: int, code: int, affine: bool) -> None:
        super().__init__()
        channels = (1, width, 2 * width, 4 * width, 8 * width)
        for k in range(1, 5):
            conv = nn.Conv3d(channels[k - 1], channels[k], 4, stride=2, padding=1, bias=affine)
            self.add_module(f"conv_{k}", conv)
            self.add_module(f"in_{k}", nn.InstanceNorm3d(channels[k], eps=1e-6 if affine else 1e-5, affine=affine))
        self.conv_5 = nn.Conv3d(channels[4], code, 4)
        for k in range(1, 6):
            conv = getattr(self, f"conv_{k}")
            nn.init.xavier_uniform_(conv.weight)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)

    def forward(self, voxels: Tensor) -> Tensor:
        x = voxels[:, None].to(self.conv_5.weight.dtype)
        for k in range(1, 5):
            x = F.leaky_relu(getattr(self, f"in_{k}")(getattr(self, f"conv_{k}")(x)), SLOPE, inplace=True)
        return torch.sigmoid(self.conv_5(x).flatten(1))


class Decoder(nn.Module):
    """Clipped values (B, N) at points (B, N, 3) under codes (B, code)."""

    def __init__(self, width: int, code: int, std: float | None, clip: Literal["leaky", "hard"]) -> None:
        super().__init__()
        self.clip = leaky_clip if clip == "leaky" else hard_clip
        widths = (3 + code, 8 * width, 8 * width, 8 * width, 4 * width, 2 * width, width, 1)
        self.layers = len(widths) - 1
        for k in range(1, self.layers + 1):
            layer = nn.Linear(widths[k - 1], widths[k])
            spread = math.sqrt(2 / widths[k - 1]) if std is None else std
            nn.init.normal_(layer.weight, mean=1e-5 if k == self.layers else 0.0, std=spread)
            nn.init.zeros_(layer.bias)
            self.add_module(f"linear_{k}", layer)
        if std is None:
            # Three inputs by themselves, counted in half edges of the cube.
            nn.init.normal_(self.linear_1.weight[:, :3], std=2 * math.sqrt(2 / 3))

    def forward(self, queries: Tensor, code: Tensor) -> Tensor:
        x = linear_of_parts(self.linear_1, (queries, code[:, None]))
        for k in range(2, self.layers + 1):
            x = getattr(self, f"linear_{k}")(F.leaky_relu(x, SLOPE, inplace=True))
        return self.clip(x.squeeze(-1))


def leaky_clip(h: Tensor) -> Tensor:
    """h within [0, 1], with slope 0.01 beyond."""
    return torch.maximum(torch.minimum(h, 0.01 * h + 0.99), 0.01 * h)


def hard_clip(h: Tensor) -> Tensor:
    """h within [0, 1], constant beyond."""
    return h.clamp(0, 1)


class AutoEncoder(nn.Module):
    """Encoder and decoder under the original's names."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.encoder = VoxelEncoder(settings.encoder_width, settings.code, settings.affine_encoder)
        self.generator = Decoder(settings.decoder_width, settings.code, settings.decoder_std, settings.clip)

    def forward(self, queries: Tensor, voxels: Tensor) -> Tensor:
        """Values (B, N), inside above 0.5, at queries (B, N, 3) given voxels (B, 64, 64, 64) of 0 and 1."""
        return self.generator(queries, self.encoder(voxels))


class ImNet(Model):
    """IM-AE on solid voxels."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.declaration = declare(settings)
        self.network = AutoEncoder(settings)

    def prepare(self, arrays: ShapeArrays) -> dict[str, np.ndarray]:
        """{"voxels": (64^3 / 8,) uint8 bits}; of every level "points.<level>" (n, 3) uint8, "values.<level>" (n,) bool.

        The pairs depend on the grid alone, so that equal shapes have equal pairs. Raises Rejected for an empty grid.
        """
        grid = self._grid(arrays)
        digest = hashlib.blake2b(np.packbits(grid).tobytes(), digest_size=16).digest()
        rng = np.random.default_rng(int.from_bytes(digest, "big"))
        kept = {"voxels": np.packbits(max_pool(grid, self.settings.grid // INPUT))}
        for level in PAIRS:
            kept[f"points.{level}"], kept[f"values.{level}"] = point_values(grid, level, rng, self.settings.near)
        return kept

    def observe(self, arrays: ShapeArrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """{"voxels": (64, 64, 64) bool}. Raises Rejected for an empty grid."""
        return {"voxels": max_pool(self._grid(arrays), self.settings.grid // INPUT)}

    def _grid(self, arrays: ShapeArrays) -> np.ndarray:
        grid = np.asarray(arrays[f"voxels.{self.settings.grid}"], bool)
        if not grid.any():
            raise Rejected(f"none of the {self.settings.grid}^3 voxels is inside the shape; use a finer grid")
        return grid

    def level_of_detail(self) -> int:
        """Cells along an edge whose pairs the current epoch shows: 16, 32 or 64."""
        first, second = self.settings.epochs_16, self.settings.epochs_16 + self.settings.epochs_32
        return 16 if self.epoch <= first else 32 if self.epoch <= second else 64

    def draw(self, data: ResidentData, shapes: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Voxels (B, 64, 64, 64) bool, queries (B, N, 3) and their values (B, N), of the epoch's level."""
        level, device = self.level_of_detail(), generator.device
        pairs = data[f"values.{level}"].shape[1]
        start = torch.randint(pairs, (1,), generator=generator, device=device)
        run = (start + torch.arange(min(self.settings.points, pairs), device=device)) % pairs
        index = run.expand(len(shapes), -1)
        places = gather_points(data[f"points.{level}"], shapes, index)
        bits = data["voxels"].index_select(0, shapes.to(data["voxels"].device)).to(device)
        return {
            "voxels": unpack_bits(bits).view(-1, INPUT, INPUT, INPUT),
            "queries": (places.float() + 0.5) / self.settings.grid - 0.5,
            "values": gather_points(data[f"values.{level}"], shapes, index).float(),
        }

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Mean squared error over shapes and points."""
        return {"loss": F.mse_loss(self.network(batch["queries"], batch["voxels"]), batch["values"])}

    def parameter_groups(self, learning_rate: float) -> list[dict]:
        """All parameters, with the original's decay of moments."""
        return [{"params": list(self.parameters()), "lr": learning_rate, "betas": (self.settings.beta1, 0.999)}]

    @torch.no_grad()
    def encode(self, observations: dict[str, Tensor], seeds: Sequence[int]) -> dict[str, Tensor]:
        """{"code": (B, code)}, entries in (0, 1). Raises ValueError for other observations than voxels of 64^3."""
        return {"code": self.network.encoder(observed_voxels(observations, INPUT))}

    def field(self, code: dict[str, Tensor], queries: Tensor) -> Tensor:
        """The decoder's values, inside above 0.5 and not quite within [0, 1]; 0 outside the cube."""
        values = self.network.generator(queries, code["code"])
        return values.masked_fill((queries.abs() > 0.5).any(dim=-1), 0.0)


def unpack_bits(packed: Tensor) -> Tensor:
    """The bits (B, 8 n) bool of bytes (B, n) uint8, most significant first as numpy packs them."""
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)
    return (packed[..., None].bitwise_right_shift(shifts) & 1).bool().flatten(1)


def build(settings: ModelSettings, inference: InferenceSettings, train_shapes: int) -> ImNet:
    return ImNet(settings)
