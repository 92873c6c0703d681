"""Neighbourhoods and subsets of point clouds, batched over shapes, in plain torch.

Letters: B shapes, N and M points, k neighbours, C features. Everything works on the device of its arguments, and ties
are settled by index, so that results repeat.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Points whose squared norm is not above this are never chosen by the CUDA kernel that most PointNet++ code shares.
NEAR_ORIGIN = 1e-3
KERNEL_THREADS = 512
FAR = 1e10  # beyond any squared distance


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances (B, N, M) between points (B, N, 3) and (B, M, 3).

    From differences, axis by axis: products of coordinates would lose the digits that decide between neighbours.
    """
    a, b = a.permute(2, 0, 1).contiguous(), b.permute(2, 0, 1).contiguous()  # runs of one axis are read faster
    x, y, z = ((mine[:, :, None] - theirs[:, None]).square_() for mine, theirs in zip(a, b, strict=True))
    return x.add_(y).add_(z)


@torch.no_grad()
def nearest(queries: Tensor, points: Tensor, k: int) -> Tensor:
    """Indices (B, N, k) of the k points (B, M, 3) nearest to each query (B, N, 3), nearest first.

    A query that is itself among the points is its own neighbour. Raises ValueError where there are fewer than k.
    """
    if k > points.shape[1]:
        raise ValueError(f"{k} neighbours asked for of a cloud of {points.shape[1]} points")
    return squared_distances(queries, points).topk(k, dim=-1, largest=False).indices


def gather(features: Tensor, index: Tensor) -> Tensor:
    """Rows `index` (B, ...) of features (B, N, C), as (B, ..., C)."""
    shapes, points = features.shape[:2]
    first = torch.arange(0, shapes * points, points, device=index.device)
    return features.flatten(0, 1)[index + first.view(-1, *(1,) * (index.dim() - 1))]


@torch.no_grad()
def farthest_points(points: Tensor, count: int, skip_near_origin: bool = False) -> Tensor:
    """Indices (B, count) of a well spread part of points (B, N, 3): the first, then each time the one farthest from
    those already chosen, the lowest index where several are.

    skip_near_origin: as the CUDA kernel of PointNet++ does it. Points within sqrt(1e-3) of the origin are never chosen
    (but for point 0, where it starts and to which it returns when nothing else is left), and ties go as its threads
    meet. Right for weights trained with it; it breaks translation invariance and leaves holes around the origin.

    Eldar et al., The Farthest Point Strategy for Progressive Image Sampling, 1997. Raises ValueError where count
    exceeds N.
    """
    if count > points.shape[1]:
        raise ValueError(f"{count} points asked for of a cloud of {points.shape[1]}")
    order = None
    if skip_near_origin:
        order = _kernel_order(points.shape[1], points.device)
        points = points[:, order]
    chosen = _farthest_in_turn(points, count, skip_near_origin)
    return chosen if order is None else order[chosen]


def _farthest_in_turn(points: Tensor, count: int, skip_near_origin: bool) -> Tensor:
    shapes, total = points.shape[:2]
    axes = points.permute(2, 0, 1).contiguous()
    apart = torch.full((shapes, total), FAR, dtype=points.dtype, device=points.device)
    if skip_near_origin:
        apart[axes.square().sum(0).double() <= NEAR_ORIGIN] = -1  # compared in double precision, as there
    chosen = torch.zeros((count, shapes, 1), dtype=torch.long, device=points.device)
    for i in range(1, count):
        last = axes.gather(2, chosen[i - 1].expand(3, -1, -1))
        torch.minimum(apart, (axes - last).square_().sum(0), out=apart)
        torch.argmax(apart, dim=1, keepdim=True, out=chosen[i])
    return chosen.squeeze(-1).t().contiguous()


def _kernel_order(total: int, device: torch.device) -> Tensor:
    """The points (total,) in the order in which the kernel prefers them where distances are equal.

    Point i belongs to thread i modulo the number of threads, the largest power of two that is not above the number of
    points and 512; a thread keeps its first. Threads then meet in pairs half as far apart each time, the lower one
    winning, so that the thread whose bits read backwards are least wins in the end.
    """
    bits = min(total, KERNEL_THREADS).bit_length() - 1
    index = torch.arange(total, device=device)
    thread, backwards = index % (1 << bits), torch.zeros_like(index)
    for bit in range(bits):
        backwards |= (thread >> bit & 1) << (bits - 1 - bit)
    return (backwards * total + index).argsort()


def kernel_interpolation(queries: Tensor, points: Tensor, features: Tensor, width: float) -> Tensor:
    """Features (B, N, C) at queries (B, N, 3): the mean of those (B, M, C) of points (B, M, 3) under Gaussian weights.

    The weight is exp(-((d + 1e-5) / width)^2) of the distance d, normalised over all points; far from all of them the
    nearest point's features remain.
    """
    distances = squared_distances(queries, points).sqrt_() + 1e-5
    weights = torch.softmax(-(distances / width).square(), dim=-1)
    return weights @ features
