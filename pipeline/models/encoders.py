"""Encoders of pictures and voxels that several models share, and what turns stored views into their input.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016 (table 1, 18 layers). Tensors of the
picture encoder have torchvision's names, so that its ImageNet weights fit.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.foreign import read_checkpoint

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class BasicBlock(nn.Module):
    """Two convolutions beside a shortcut, which is projected where the size or the number of channels changes."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1 or channels_in != channels:
            projection = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        kept = x if self.downsample is None else self.downsample(x)
        hidden = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(hidden)) + kept, inplace=True)


class ResNet18(nn.Module):
    """Pictures (B, 3, H, W) to features (B, 8 * width), or (B, classes) where classes is given.

    width: channels of the first stage, 64 in the paper (11,176,512 parameters without the last layer). Nothing is
    normalised here.
    """

    def __init__(self, width: int = 64, classes: int | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        channels = width
        for stage in range(4):
            before, channels = channels, width * 2**stage
            first = BasicBlock(before, channels, 1 if stage == 0 else 2)
            self.add_module(f"layer{stage + 1}", nn.Sequential(first, BasicBlock(channels, channels, 1)))
        self.fc = nn.Identity() if classes is None else nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        features = F.relu(self.bn1(self.conv1(images)), inplace=True)
        features = F.max_pool2d(features, 3, 2, 1)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            features = stage(features)
        return self.fc(features.mean(dim=(2, 3)))


class ImageEncoder(nn.Module):
    """Pictures (B, 3, H, W) with values in [0, 1] to codes (B, code): normalised as for ImageNet, ResNet-18, linear.

    `features` alone gives the 8 * width features of normalised pictures.
    """

    def __init__(self, code: int, width: int = 64) -> None:
        super().__init__()
        self.features = ResNet18(width)
        self.fc = nn.Linear(8 * width, code)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.features(normalised(images)))


class VoxelEncoder(nn.Module):
    """Occupancies (B, R, R, R) to codes (B, code) by five convolutions, the last four halving the resolution.

    channels: of the first convolution, 32 in Occupancy Networks; every further one doubles them. R is a multiple of 16.
    """

    def __init__(self, code: int, resolution: int = 32, channels: int = 32) -> None:
        super().__init__()
        self.conv_in = nn.Conv3d(1, channels, 3, padding=1)
        for i in range(4):
            halving = nn.Conv3d(channels * 2**i, channels * 2 ** (i + 1), 3, stride=2, padding=1)
            self.add_module(f"conv_{i}", halving)
        self.fc = nn.Linear(16 * channels * (resolution // 16) ** 3, code)

    def forward(self, voxels: Tensor) -> Tensor:
        features = self.conv_in(voxels[:, None].to(self.conv_in.weight.dtype))
        for convolution in (self.conv_0, self.conv_1, self.conv_2, self.conv_3):
            features = convolution(F.relu(features, inplace=True))
        return self.fc(F.relu(features.flatten(1), inplace=True))


def normalised(images: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) in [0, 1] with ImageNet's mean taken off and its deviation divided out, per channel."""
    mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (images - mean) / std


def on_white(images: np.ndarray) -> np.ndarray:
    """Views (V, S, S, 4) uint8, colour not premultiplied, laid on white: (V, 3, S, S) uint8, rounded to nearest.

    Raises ValueError where the array is another.
    """
    if images.ndim != 4 or images.shape[-1] != 4 or images.shape[1] != images.shape[2] or images.dtype != np.uint8:
        raise ValueError(f"views are (V, S, S, 4) uint8 with square pictures, these are {images.shape} {images.dtype}")
    colour, alpha = images[..., :3].astype(np.uint16), images[..., 3:].astype(np.uint16)
    laid = (colour * alpha + np.uint16(255) * (255 - alpha) + 127) // 255  # at most 255^2 + 127, so 16 bits hold it
    return np.ascontiguousarray(laid.astype(np.uint8).transpose(0, 3, 1, 2))


def resized(images: Tensor, size: int) -> Tensor:
    """Pictures (B, 3, S, S) uint8 as values in [0, 1], (B, 3, size, size), bilinear and without aliasing.

    Raises ValueError where they are not square pictures of three channels.
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise ValueError(f"pictures are (B, 3, S, S), red green blue and square; these are {tuple(images.shape)}")
    if images.dtype != torch.uint8:
        raise ValueError(f"pictures hold bytes from 0 to 255, these are {images.dtype}")
    images = images.float() / 255
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)


def random_crops(images: Tensor, smallest: float, generator: torch.Generator) -> Tensor:
    """A random square of each picture (B, C, S, S), at the picture's own size, bilinear.

    The square's share of the area is uniform between `smallest` and 1, its place uniform among those inside.
    """
    draws = torch.rand((3, len(images)), generator=generator, device=generator.device)
    side = (smallest + (1 - smallest) * draws[0]).sqrt()
    transform = images.new_zeros((len(images), 2, 3))
    transform[:, 0, 0] = transform[:, 1, 1] = side
    transform[:, :, 2] = ((1 - side) * (2 * draws[1:] - 1)).T
    grid = F.affine_grid(transform, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def load_imagenet(network: ResNet18, path: str | Path) -> None:
    """Give a ResNet-18 torchvision's ImageNet weights from the user's .safetensors or .pth file.

    The last layer is left out where the network has none. Raises ValueError where the file is missing, holds more than
    tensors (`models.foreign`), or lacks tensors of the network.
    """
    tensors, own = read_checkpoint(Path(path)), network.state_dict()
    needed = [name for name in own if not name.endswith("num_batches_tracked")]
    wrong = [name for name in needed if name not in tensors or tensors[name].shape != own[name].shape]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError(
            f"{path} does not hold the weights of this ResNet-18; missing or of another shape: {', '.join(wrong[:5])}"
            f"{more}. It should be torchvision's resnet18, whose width is 64"
        )
    network.load_state_dict({name: tensors[name] for name in needed}, strict=False)
