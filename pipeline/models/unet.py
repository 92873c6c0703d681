"""U-Nets on feature planes and feature grids, with the tensor names of Convolutional Occupancy Networks' copies.

Ronneberger, Fischer, Brox: U-Net, MICCAI 2015, arXiv 1505.04597; Çiçek et al.: 3D U-Net, MICCAI 2016, arXiv 1606.06650.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 8  # of the group normalisation; one group where there are fewer features


class Down(nn.Module):
    """Two convolutions, each followed by ReLU."""

    def __init__(self, features_in: int, features_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features_in, features_out, 3, padding=1)
        self.conv2 = nn.Conv2d(features_out, features_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))))


class Up(nn.Module):
    """Doubled resolution and halved features, then the finer level's features beside them, then two convolutions."""

    def __init__(self, features_in: int, features_out: int) -> None:
        super().__init__()
        self.upconv = nn.ConvTranspose2d(features_in, features_out, 2, stride=2)
        self.conv1 = nn.Conv2d(2 * features_out, features_out, 3, padding=1)
        self.conv2 = nn.Conv2d(features_out, features_out, 3, padding=1)

    def forward(self, kept: Tensor, x: Tensor) -> Tensor:
        x = torch.cat([self.upconv(x), kept], dim=1)
        return F.relu(self.conv2(F.relu(self.conv1(x))))


class UNet(nn.Module):
    """Planes (B, features_in, R, R) to (B, features_out, R, R), without normalisation; 2^(depth - 1) divides R.

    Level k has width * 2^k features. Convolutions start Xavier-normal with zero bias, the up-convolutions as torch
    starts them.
    """

    def __init__(self, features_in: int, features_out: int, depth: int, width: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth)]
        self.down_convs = nn.ModuleList(map(Down, [features_in, *widths], widths))
        self.up_convs = nn.ModuleList(map(Up, widths[:0:-1], widths[-2::-1]))
        self.conv_final = nn.Conv2d(width, features_out, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_normal_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for i, down in enumerate(self.down_convs):
            x = down(x if i == 0 else F.max_pool2d(x, 2))
            kept.append(x)
        for up, finer in zip(self.up_convs, kept[-2::-1], strict=True):
            x = up(finer, x)
        return self.conv_final(x)


class NormConv(nn.Module):
    """Group normalisation, 3 x 3 x 3 convolution without bias, ReLU."""

    def __init__(self, features_in: int, features_out: int) -> None:
        super().__init__()
        self.groupnorm = nn.GroupNorm(GROUPS if features_in >= GROUPS else 1, features_in)
        self.conv = nn.Conv3d(features_in, features_out, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(self.groupnorm(x)))


class Level(nn.Module):
    """Two convolutions with `features_middle` between them."""

    def __init__(self, features_in: int, features_middle: int, features_out: int) -> None:
        super().__init__()
        self.basic_module = nn.Sequential()
        self.basic_module.add_module("SingleConv1", NormConv(features_in, features_middle))
        self.basic_module.add_module("SingleConv2", NormConv(features_middle, features_out))

    def forward(self, x: Tensor) -> Tensor:
        return self.basic_module(x)


class UNet3D(nn.Module):
    """Grids (B, features_in, R, R, R) to (B, features_out, R, R, R); R is at least 2^(levels - 1).

    Level k has width * 2^k features, 8 dividing width and, where it is not smaller, features_in. Levels come up by
    nearest neighbour.
    """

    def __init__(self, features_in: int, features_out: int, levels: int, width: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(levels)]
        before = [features_in, *widths]
        self.encoders = nn.ModuleList(
            Level(below, max(below, above // 2), above) for below, above in zip(before, widths, strict=False)
        )
        self.decoders = nn.ModuleList(
            Level(coarse + fine, fine, fine) for coarse, fine in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.final_conv = nn.Conv3d(width, features_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for i, encoder in enumerate(self.encoders):
            x = encoder(x if i == 0 else F.max_pool3d(x, 2))
            kept.append(x)
        for decoder, finer in zip(self.decoders, kept[-2::-1], strict=True):
            x = decoder(torch.cat([finer, F.interpolate(x, size=finer.shape[2:], mode="nearest")], dim=1))
        return self.final_conv(x)
