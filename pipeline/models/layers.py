"""Blocks that several models share. Features come last: (B, N, C)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


def linear_of_parts(layer: nn.Module, parts: Sequence[Tensor]) -> Tensor:
    """A linear layer on features that stand side by side, without putting them together.

    A part (B, 1, C) that all points of a shape share is multiplied once per shape, not once per point.
    """
    columns = layer.weight.split([part.shape[-1] for part in parts], dim=1)
    result = F.linear(parts[0], columns[0], layer.bias)
    for part, weight in zip(parts[1:], columns[1:], strict=True):
        result = result + F.linear(part, weight)
    return result


class ResnetBlockFC(nn.Module):
    """y = shortcut(x) + fc_1(relu(fc_0(relu(x)))), without normalisation; the branch starts at zero weight.

    The shortcut is the identity, or a linear map without bias where the widths differ. Hidden width: the smaller of
    input and output unless given. The input may come in parts, as for `linear_of_parts`, where the widths differ.
    """

    def __init__(self, features_in: int, features_out: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = hidden or min(features_in, features_out)
        self.fc_0 = nn.Linear(features_in, hidden)
        self.fc_1 = nn.Linear(hidden, features_out)
        same = features_in == features_out
        self.shortcut = nn.Identity() if same else nn.Linear(features_in, features_out, bias=False)
        nn.init.zeros_(self.fc_1.weight)

    def forward(self, *parts: Tensor) -> Tensor:
        hidden = linear_of_parts(self.fc_0, [F.relu(part) for part in parts])
        kept = linear_of_parts(self.shortcut, parts) if isinstance(self.shortcut, nn.Linear) else parts[0]
        return kept + self.fc_1(F.relu(hidden, inplace=True))


class WeightNormLinear(nn.Module):
    """A linear layer whose rows have a length weight_g (out, 1) and a direction weight_v (out, in)."""

    def __init__(self, features_in: int, features_out: int) -> None:
        super().__init__()
        start = nn.Linear(features_in, features_out)
        self.bias = start.bias
        self.weight_g = nn.Parameter(start.weight.detach().norm(dim=1, keepdim=True))
        self.weight_v = start.weight

    @property
    def weight(self) -> Tensor:
        """The weights that act, (out, in), or (B, out, in) where the tensors lead with a batch of networks."""
        return self.weight_v * (self.weight_g / self.weight_v.norm(dim=-1, keepdim=True))


class PointwiseConv(nn.Conv1d):
    """A convolution of width 1 with Conv1d's tensors (out, in, 1), applied to features (..., in) as a matrix."""

    def __init__(self, features_in: int, features_out: int) -> None:
        super().__init__(features_in, features_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.squeeze(-1), self.bias)


class CBatchNorm1d(nn.Module):
    """Batch normalisation over shapes and points, scaled by gamma(c) and shifted by beta(c) of each shape's code.

    Starts as plain normalisation: gamma 1, beta 0 whatever the code. legacy: the two maps are linear layers and bear
    other names, as in the oldest released weights; the values are the same.
    """

    def __init__(self, code: int, features: int, legacy: bool = False) -> None:
        super().__init__()
        layer, self.prefix = (nn.Linear, "fc") if legacy else (PointwiseConv, "conv")
        for name, start in (("gamma", 1.0), ("beta", 0.0)):
            affine = layer(code, features)
            nn.init.zeros_(affine.weight)
            nn.init.constant_(affine.bias, start)
            self.add_module(f"{self.prefix}_{name}", affine)
        self.bn = nn.BatchNorm1d(features, affine=False)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """x (B, N, features), c (B, code)."""
        gamma, beta = (getattr(self, f"{self.prefix}_{name}") for name in ("gamma", "beta"))
        normalised = self.bn(x.flatten(0, 1)).view_as(x)
        return normalised * gamma(c)[:, None] + beta(c)[:, None]


class CResnetBlockConv1d(nn.Module):
    """x + fc_1(relu(bn_1(fc_0(relu(bn_0(x, c))), c))) with conditional normalisation; the branch starts at zero."""

    def __init__(self, code: int, features: int, legacy: bool = False) -> None:
        super().__init__()
        self.bn_0 = CBatchNorm1d(code, features, legacy)
        self.bn_1 = CBatchNorm1d(code, features, legacy)
        self.fc_0 = PointwiseConv(features, features)
        self.fc_1 = PointwiseConv(features, features)
        nn.init.zeros_(self.fc_1.weight)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        hidden = self.fc_0(F.relu(self.bn_0(x, c), inplace=True))
        return x + self.fc_1(F.relu(self.bn_1(hidden, c), inplace=True))
