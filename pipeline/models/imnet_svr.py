"""IM-SVR: shapes from one picture, by an image encoder that learns the codes of a trained IM-AE.

Chen and Zhang: Learning Implicit Fields for Generative Shape Modeling, CVPR 2019, arXiv 1812.02822; numbers as in the
author's PyTorch code ("v2"). The picture is grey on white, its centre cropped as 128 of 137 pixels are; the loss is
the mean squared error to the code of the shape's voxels; the decoder is the parent's.

Deviations:
- In v2 a preview every 10 epochs leaves batch normalisation with frozen statistics, from epoch 10 on. Here statistics
  go on; `frozen_after: 10` reproduces it.
- Pictures of the own renderer have ShapeNet's shapes but not its colours.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from pipeline.models.declaration import Declaration
from pipeline.models.stage_checks import missing_view
from pipeline.settings import Settings


class ModelSettings(Settings):
    """Width, pictures and training batch. The defaults are v2's (17,462,976 parameters)."""

    width: PositiveInt = 64
    """Channels of the first convolution; the stages have 1, 2, 4 and 8 times as many."""

    size: Annotated[int, Field(ge=32, multiple_of=32)] = 128
    """Pixels along an edge of the picture the network sees; the crop is resized where it has another size."""

    view: NonNegativeInt | None = None
    """Number of the view seen at inference, from 0; null: the last (23 of 24, as the original)."""

    same_view: bool = True
    """One random view number for all shapes of a training batch (v2), or one for each (v1)."""

    flip: bool = False
    """Mirror every second training picture left to right, at random (v1)."""

    frozen_after: NonNegativeInt | None = None
    """Passes over the training shapes after which batch normalisation keeps its statistics; null: never."""

    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Decay of Adam's mean of gradients."""

    grid: Literal[64, 128, 256] = 64
    """Voxels along an edge of the grid the parent encodes; as in the parent."""


class InferenceSettings(Settings):
    """Encoding is one pass of the encoder; nothing to set."""


DECLARATION = Declaration(
    trains="gradient",
    observes="view",
    quantity="occupancy",
    training_stages=("voxelize/64", "render_views", "sample_volume"),
    observation_stages=("render_views",),
    validates=True,
    papers=("Chen and Zhang, Learning Implicit Fields for Generative Shape Modeling, CVPR 2019",),
    parent="imnet",
)


def declare(settings: ModelSettings) -> Declaration:
    """The facts for a grid; the volume's points serve the validation."""
    return replace(DECLARATION, training_stages=(f"voxelize/{settings.grid}", "render_views", "sample_volume"))


def check_parent(settings: ModelSettings, parent: Settings) -> str | None:
    """What is wrong with the parent's model settings, or None."""
    if parent.grid != settings.grid:
        return f"model.grid is {settings.grid}, but the parent encodes grids of {parent.grid}; use the same"
    return None


def check_stages(settings: ModelSettings, inference: InferenceSettings, stages: Settings) -> str | None:
    """What the data stages do not give of what is observed, or None."""
    return None if settings.view is None else missing_view(settings.view, stages, "model.view")


from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.arrays import Rejected
from pipeline.models.contract import ShapeArrays, observed_entry
from pipeline.models.encoders import on_white
from pipeline.models.imnet import SLOPE, ImNet
from pipeline.models.imnet_codes import OnCodes
from pipeline.training.data import ResidentData

LUMINANCE = (0.299, 0.587, 0.114)


class ResidualBlock(nn.Module):
    """Two normalised convolutions beside a shortcut, which is projected where the number of channels changes."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.projects = channels_in != channels
        stride = 2 if self.projects else 1
        self.conv_1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn_1 = nn.BatchNorm2d(channels)
        self.conv_2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn_2 = nn.BatchNorm2d(channels)
        if self.projects:
            self.conv_s = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.bn_s = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        kept = self.bn_s(self.conv_s(x)) if self.projects else x
        hidden = F.leaky_relu(self.bn_1(self.conv_1(x)), SLOPE, inplace=True)
        return F.leaky_relu(self.bn_2(self.conv_2(hidden)) + kept, SLOPE, inplace=True)


class ImageEncoder(nn.Module):
    """Grey pictures (B, 1, S, S) in [0, 1], white background, to codes (B, code) in (0, 1). No pooling."""

    def __init__(self, width: int, size: int, code: int) -> None:
        super().__init__()
        self.conv_0 = nn.Conv2d(1, width, 7, 2, 3, bias=False)
        self.bn_0 = nn.BatchNorm2d(width)
        channels = [width * factor for factor in (1, 1, 1, 2, 2, 4, 4, 8, 8)]
        for k in range(1, 9):
            self.add_module(f"res_{k}", ResidualBlock(channels[k - 1], channels[k]))
        self.conv_9 = nn.Conv2d(channels[-1], channels[-1], 4, 2, 1, bias=False)
        self.bn_9 = nn.BatchNorm2d(channels[-1])
        self.conv_10 = nn.Conv2d(channels[-1], code, size // 32)  # as wide as what the strides leave
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)  # the one bias, of conv_10, stays as torch draws it

    def forward(self, images: Tensor) -> Tensor:
        x = F.leaky_relu(self.bn_0(self.conv_0(1 - images)), SLOPE, inplace=True)
        for k in range(1, 9):
            x = getattr(self, f"res_{k}")(x)
        x = F.leaky_relu(self.bn_9(self.conv_9(x)), SLOPE, inplace=True)
        return torch.sigmoid(self.conv_10(x).flatten(1))


class ImNetSvr(OnCodes):
    """An image encoder before the decoder of an IM-AE."""

    def __init__(self, settings: ModelSettings, parent: ImNet) -> None:
        super().__init__(parent)
        self.settings = settings
        self.declaration = declare(settings)
        self.network = ImageEncoder(settings.width, settings.size, parent.settings.code)

    def prepare(self, arrays: ShapeArrays) -> dict[str, np.ndarray]:
        """{"views": (V, size, size) uint8 grey, "code": (L,) float32}. Raises Rejected for an empty voxel grid."""
        views = grey_crops(torch.from_numpy(on_white(arrays["views.images"])), self.settings.size)
        return {"views": views.numpy(), "code": self.code_of(arrays)}

    def observe(self, arrays: ShapeArrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """{"image": (3, S, S) uint8}: one view on white. Raises Rejected where the shape has no view of that number."""
        images, number = arrays["views.images"], self.settings.view
        if number is not None and number >= len(images):
            raise Rejected(f"there is no view {number}, only 0 to {len(images) - 1}; change model.view or render more")
        chosen = len(images) - 1 if number is None else number
        return {"image": on_white(images[chosen : chosen + 1])[0]}

    def draw(self, data: ResidentData, shapes: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """One grey view (B, 1, size, size) uint8 and the code (B, L) of each shape."""
        views, device, batch = data["views"], generator.device, len(shapes)
        numbers = 1 if self.settings.same_view else batch
        number = torch.randint(views.shape[1], (numbers,), generator=generator, device=device).expand(batch)
        rows = (shapes * views.shape[1] + number).to(views.device)
        images = views.flatten(0, 1).index_select(0, rows).to(device)
        if self.settings.flip:
            mirrored = torch.rand(batch, generator=generator, device=device) < 0.5
            images = torch.where(mirrored[:, None, None], images.flip(-1), images)
        codes = data["code"].index_select(0, shapes.to(data["code"].device)).to(device)
        return {"images": images[:, None], "codes": codes}

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Mean squared error of the codes."""
        if self.settings.frozen_after is not None and self.epoch > self.settings.frozen_after:
            self.network.eval()
        return {"loss": F.mse_loss(self.network(batch["images"].float() / 255), batch["codes"])}

    def parameter_groups(self, learning_rate: float) -> list[dict]:
        """The image encoder's, with the original's decay of moments."""
        weights = list(self.network.parameters())
        return [{"params": weights, "lr": learning_rate, "betas": (self.settings.beta1, 0.999)}]

    @torch.no_grad()
    def encode(self, observations: dict[str, Tensor], seeds: Sequence[int]) -> dict[str, Tensor]:
        """{"code": (B, L)} of pictures (B, 3, S, S) uint8 on white. Raises ValueError for other pictures."""
        crops = grey_crops(observed_entry(observations, "image", "pictures"), self.settings.size)
        return {"code": self.network(crops[:, None].float() / 255)}


def grey_crops(images: Tensor, size: int) -> Tensor:
    """Luminance of pictures (B, 3, S, S) uint8, the centre of 128 of 137 pixels: (B, size, size) uint8.

    Where the crop has another size it is resized, bilinearly and without aliasing. Raises ValueError where the
    pictures are not square, of three channels and bytes.
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3] or images.dtype != torch.uint8:
        raise ValueError(
            f"IM-SVR sees square pictures (B, 3, S, S) of bytes, red green blue on white; these are "
            f"{tuple(images.shape)} {images.dtype}"
        )
    weights = torch.tensor(LUMINANCE, device=images.device)
    grey = torch.einsum("bchw,c->bhw", images.float(), weights).round()
    edge = round(images.shape[-1] * 128 / 137)
    offset = (images.shape[-1] - edge) // 2
    crops = grey[:, offset : offset + edge, offset : offset + edge]
    if edge != size:
        crops = F.interpolate(crops[:, None], (size, size), mode="bilinear", antialias=True)[:, 0].round()
    return crops.clamp(0, 255).to(torch.uint8)


def build(settings: ModelSettings, inference: InferenceSettings, train_shapes: int, parent: ImNet) -> ImNetSvr:
    return ImNetSvr(settings, parent)
