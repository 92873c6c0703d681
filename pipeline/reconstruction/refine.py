"""Extracted vertices moved onto their field's level set, and normals from its gradient. The faces stay as they are.

newton  along the gradient, by the distance at which a linear field would reach the level
imnet   the best of 27 places around each vertex, in three rounds of halved steps (IM-NET, Chen and Zhang, CVPR 2019;
        sheet imnet.md 4.2; its README calls it smoothing; it may fold the surface)
onet    gradient descent on values and normals at random points of the faces (Occupancy Networks, Mescheder et al., CVPR
        2019; sheet onet.md 5.3)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from pipeline.arrays import Mesh

if TYPE_CHECKING:
    import torch

TorchField = Callable[["torch.Tensor"], "torch.Tensor"]
"""A shape's field as torch has it: points (n, 3) float32 on the CPU to values (n,), differentiable."""

NEWTON_STEPS, IMNET_ROUNDS, ONET_STEPS = 3, 3, 30
SEARCH_SHARE = 1 / 6  # of a cell: the first step of IM-NET's search
LEARNING_RATE, NORMAL_WEIGHT, CONCENTRATION = 1e-4, 0.01, 0.5  # ONet's


def value_and_gradient(field: TorchField, points: np.ndarray, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Values (n,) and gradients (n, 3) float64 of a field at points (n, 3), `batch` points at a time."""
    import torch

    values, gradients = np.empty(len(points)), np.empty((len(points), 3))
    for start in range(0, len(points), batch):
        part = slice(start, start + batch)
        with torch.inference_mode(False), torch.enable_grad():
            queries = torch.tensor(points[part], dtype=torch.float32, requires_grad=True)
            answers = field(queries)
            (slope,) = torch.autograd.grad(answers.sum(), queries)
        values[part], gradients[part] = answers.detach().cpu().numpy(), slope.cpu().numpy()
    return values, gradients


def newton(mesh: Mesh, field: TorchField, level: float, reach: float, batch: int, steps: int | None = None) -> Mesh:
    """The mesh with each vertex moved along the gradient to where a linear field has the level, `steps` times.

    reach: the longest step, half a cell or so. Of all places a vertex passes it keeps the one nearest to the level, so
    none ends worse than it began.
    """
    place = best = mesh.vertices
    least = np.full(len(place), np.inf)
    for step in range((steps or NEWTON_STEPS) + 1):
        values, gradients = value_and_gradient(field, place, batch)
        off = np.abs(values - level)
        best = np.where((off < least)[:, None], place, best)
        least = np.minimum(off, least)
        if step < (steps or NEWTON_STEPS):
            place = place + _newton_step(values - level, gradients, reach)
    return Mesh(best, mesh.faces)


def _newton_step(excess: np.ndarray, gradients: np.ndarray, reach: float) -> np.ndarray:
    squared = (gradients**2).sum(axis=1)
    factor = np.divide(-excess, squared, out=np.zeros_like(excess), where=squared > 0)
    step = factor[:, None] * gradients
    length = np.linalg.norm(step, axis=1)
    return step * np.divide(reach, length, out=np.ones_like(length), where=length > reach)[:, None]


def search(
    mesh: Mesh, values_at: Callable[[np.ndarray], np.ndarray], level: float, cell: float, rounds: int | None = None
) -> Mesh:
    """The mesh after IM-NET's search: `rounds` times the best of 27 places around each vertex.

    values_at: maps points (n, 3) float64 to values (n,). cell: edge of a voxel; the first round steps by a sixth of it
    along each axis, each further one by half as much. A place is better where its value is nearer to the level.
    """
    best = mesh.vertices
    least = np.abs(values_at(best) - level)
    offsets = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    for turn in range(rounds or IMNET_ROUNDS):
        start = best
        for offset in offsets[offsets.any(axis=1)]:
            place = start + offset * (cell * SEARCH_SHARE / 2**turn)
            off = np.abs(values_at(place) - level)
            best = np.where((off < least)[:, None], place, best)
            least = np.minimum(off, least)
    return Mesh(best, mesh.faces)


def descend(
    mesh: Mesh,
    field: TorchField,
    level: float,
    outward: float,
    rng: np.random.Generator,
    batch: int,
    steps: int | None = None,
) -> Mesh:
    """The mesh after Occupancy Networks' refinement: `steps` of RMSprop on all vertices.

    Each step draws a point on each face and lowers the mean of (value - level)^2 + 0.01 |n - m|^2, n being the face's
    normal and m the field's. field: for occupancies the probability, so that level is one; outward: -1 where the field
    falls outwards (occupancies), 1 where it rises. batch: points per call of the field, which changes rounding only.
    """
    import torch
    from torch.nn.functional import normalize

    with torch.inference_mode(False), torch.enable_grad():
        vertices = torch.tensor(mesh.vertices, dtype=torch.float32, requires_grad=True)
        faces = torch.from_numpy(mesh.faces.astype(np.int64))
        optimiser = torch.optim.RMSprop([vertices], lr=LEARNING_RATE)
        for _ in range(steps or ONET_STEPS):
            weights = torch.from_numpy(rng.dirichlet((CONCENTRATION,) * 3, len(faces))).float()
            optimiser.zero_grad()
            for part in torch.split(torch.arange(len(faces)), batch):
                a, b, c = vertices[faces[part]].unbind(dim=1)
                points = torch.einsum("fi,ifk->fk", weights[part], torch.stack([a, b, c]))
                values = field(points)
                (slope,) = torch.autograd.grad(values.sum(), points, create_graph=True)
                target = outward * slope / (slope.norm(dim=1, keepdim=True) + 1e-10)
                normals = normalize(torch.linalg.cross(b - a, c - b), dim=1, eps=1e-10)
                loss = (values - level).square().sum() + NORMAL_WEIGHT * (normals - target).square().sum()
                loss.div(len(faces)).backward(inputs=[vertices])
            optimiser.step()
    return Mesh(vertices.detach().double().numpy(), mesh.faces)


def with_field_normals(mesh: Mesh, field: TorchField, outward: float, batch: int) -> Mesh:
    """The mesh with the field's unit normal at each vertex, pointing outward; zero where the field has no slope.

    outward: -1 where the field falls outwards (occupancies), 1 where it rises (signed distances).
    """
    _, gradients = value_and_gradient(field, mesh.vertices, batch)
    length = np.linalg.norm(gradients, axis=1, keepdims=True)
    normals = outward * np.divide(gradients, length, out=np.zeros_like(gradients), where=length > 0)
    return Mesh(mesh.vertices, mesh.faces, normals)
