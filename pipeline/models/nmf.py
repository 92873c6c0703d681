"""Neural Mesh Flow, auto-encoder: a sphere carried onto a shape by flows, so that the mesh stays a closed 2-manifold.

Gupta and Chandraker: Neural Mesh Flow: 3D Manifold Mesh Generation via Diffeomorphic Flows, NeurIPS 2020, arXiv
2007.10973. The flows are neural ordinary differential equations (Chen et al., NeurIPS 2018) solved by torchdiffeq.

Deviations:
- The code is no part of the flow's state: what the dynamics take of it is computed once per flow. The error norm of
  the adaptive solver is that of the original all the same, whose state had the code in every point.
- The network's frame is one for all shapes, the ball around the canonical cube taking the unit ball's place; the
  original scales each shape by its farthest point, which is not known of a picture.
- The observed points are centred and the mesh is moved back by as much (`centred`): the last normalisation centres the
  vertices, and the original's evaluation centres every mesh, which is not done here.
- At inference an adaptive solver chooses its steps for each shape alone, so that a mesh does not depend on its batch.
- The observed points are distinct at inference; in training they are drawn with replacement, as in the original.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from pipeline.models.declaration import Declaration
from pipeline.models.stage_checks import missing_points
from pipeline.samples.observation import PointCloudSettings
from pipeline.settings import Settings


class ModelSettings(Settings):
    """Network, solver, observation and training batch. The defaults are the paper's (8,005,566 parameters)."""

    observation: PointCloudSettings = PointCloudSettings(points=2562, noise=0.0)
    """The observed cloud."""

    code: PositiveInt = 1000
    """Length of a shape's code."""

    encoder: tuple[PositiveInt, PositiveInt] = (128, 256)
    """Features of a point in the encoder's first two layers and in its third; turned round after the maximum."""

    hidden: PositiveInt = 512
    """Features of a point in the dynamics."""

    norm_hidden: PositiveInt = 256
    """Features between a code and the factors of a normalisation."""

    duration: PositiveFloat = 0.2
    """Time of one flow; there are six, and in each a coordinate moves by less than that."""

    solver: Literal["dopri5", "rk4"] = "dopri5"
    """dopri5: order 5 by Dormand and Prince, steps as the tolerance asks. rk4: order 4, fixed steps."""

    tolerance: PositiveFloat = 1e-5
    """Absolute and relative tolerance of dopri5, of the error's root mean square over points and 3 + code channels."""

    solver_steps: PositiveInt = 4
    """Steps of rk4 in one flow, each of four evaluations."""

    adjoint: bool = True
    """Gradients by the adjoint equation solved backwards, with memory that does not grow with the steps; false:
    through the solver's steps, faster for few of them."""

    subdivision: Annotated[int, Field(ge=0, le=6)] = 3
    """Subdivisions of the icosahedron that is the template in training: 3 gives 642 vertices."""

    targets: PositiveInt = 2562
    """Points of the shape, and of each mesh, that a training step compares."""

    centred: bool = True
    """Move the observed points' mean to the origin, and the mesh back; false: as the original does, with vertices
    whose mean is the origin."""


class InferenceSettings(Settings):
    """The mesh."""

    subdivision: Annotated[int, Field(ge=0, le=7)] = 4
    """Subdivisions of the icosahedron that is carried onto the shape: 4 gives 2,562 vertices and 5,120 faces."""


DECLARATION = Declaration(
    trains="gradient",
    observes="point_cloud",
    quantity="surface",
    training_stages=("sample_surface",),
    observation_stages=("sample_surface",),
    validates=False,
    papers=(
        "Gupta and Chandraker, Neural Mesh Flow: 3D Manifold Mesh Generation via Diffeomorphic Flows, NeurIPS 2020",
    ),
)


def check_stages(settings: ModelSettings, inference: InferenceSettings, stages: Settings) -> str | None:
    """What the data stages do not give of what is observed, or None."""
    return missing_points(settings.observation.points, stages)


import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint

from pipeline.arrays import Mesh
from pipeline.models.contract import Model, ShapeArrays, observed_cloud
from pipeline.models.layers import PointwiseConv
from pipeline.models.point_ops import gather
from pipeline.models.sphere import icosphere
from pipeline.samples.observation import observe_point_cloud
from pipeline.training.data import ResidentData, gather_points, random_index

SCALE = 2 / math.sqrt(3)  # canonical to network units: the cube's corners come to the unit sphere
WEIGHTS = (0.1, 0.2, 0.7)  # of the three deformations in the loss
MOST_PAIRS = 2**26  # of points whose distances are held at a time


class PointEncoder(nn.Module):
    """Points (B, M, 3) to codes (B, code), whatever their order: PointNet with batch normalisation."""

    def __init__(self, code: int, narrow: int, wide: int) -> None:
        super().__init__()
        widths = (3, narrow, narrow, wide, code)
        self.convs = nn.ModuleList(PointwiseConv(i, o) for i, o in itertools.pairwise(widths))
        self.conv_norms = nn.ModuleList(nn.BatchNorm1d(width) for width in widths[1:])
        widths = (code, wide, narrow, code)
        self.fcs = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(widths))
        self.fc_norms = nn.ModuleList(nn.BatchNorm1d(width) for width in widths[1:-1])

    def forward(self, points: Tensor) -> Tensor:
        x = points
        for number, (conv, norm) in enumerate(zip(self.convs, self.conv_norms, strict=True)):
            x = F.relu(x) if number else x
            x = norm(conv(x).flatten(0, 1)).unflatten(0, points.shape[:2])
        x = x.amax(dim=1)
        for fc, norm in zip(self.fcs, self.fc_norms, strict=False):
            x = F.relu(norm(fc(x)))
        return self.fcs[-1](x)


class Dynamics(nn.Module):
    """Velocities (B, P, 3) of points (B, P, 3), each coordinate within (-1, 1), under a code; the time is ignored."""

    def __init__(self, code: int, hidden: int) -> None:
        super().__init__()
        self.fc_1 = nn.Linear(3, hidden)
        self.fc_code = nn.Linear(code, hidden)
        self.fc_2 = nn.Linear(hidden, hidden)
        self.fc_3 = nn.Linear(hidden, hidden)
        self.fc_4 = nn.Linear(hidden, 3)

    def gate(self, code: Tensor) -> Tensor:
        """What the velocities take of codes (B, code), as (B, 1, hidden)."""
        return torch.tanh(self.fc_code(code))[:, None]

    def forward(self, points: Tensor, gate: Tensor) -> Tensor:
        h = F.relu(self.fc_1(points)) * gate
        h = F.relu(self.fc_2(h)) + h
        h = F.relu(self.fc_3(h)) + h
        return torch.tanh(self.fc_4(h))

    def point_parameters(self) -> list[nn.Parameter]:
        """All but those of the gate."""
        return [parameter for layer in (self.fc_1, self.fc_2, self.fc_3, self.fc_4) for parameter in layer.parameters()]


class Flow(nn.Module):
    """Points (B, P, 3) carried by the dynamics for the settings' duration, or back."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.dynamics = Dynamics(settings.code, settings.hidden)

    def forward(self, points: Tensor, code: Tensor) -> Tensor:
        return self._carried(points, code, 0.0, self.settings.duration)

    def inverse(self, points: Tensor, code: Tensor) -> Tensor:
        """Where the flow brings `points` from."""
        return self._carried(points, code, self.settings.duration, 0.0)

    def _carried(self, points: Tensor, code: Tensor, start: float, end: float) -> Tensor:
        gate, adaptive = self.dynamics.gate(code), self.settings.solver == "dopri5"
        # Fixed steps lie between the times asked for.
        times = torch.linspace(start, end, 2 if adaptive else self.settings.solver_steps + 1, device=points.device)
        options = {"rtol": self.settings.tolerance, "atol": self.settings.tolerance, "method": self.settings.solver}
        if adaptive:
            options["options"] = {"norm": self._norm}
        solve = odeint
        if self.settings.adjoint and torch.is_grad_enabled():
            solve = odeint_adjoint
            wanted = (*self.dynamics.point_parameters(), gate)
            options["adjoint_params"] = tuple(tensor for tensor in wanted if tensor.requires_grad)
        return solve(lambda _, x: self.dynamics(x, gate), points, times, **options)[-1]

    def _norm(self, state: Tensor) -> Tensor:
        """Root mean square over the channels of the original's state, of which the code's are without error."""
        return state.square().mean().sqrt() * math.sqrt(3 / (3 + self.settings.code))


class Normalisation(nn.Module):
    """Points (B, P, 3) with their mean at the origin, each axis shrunk by a factor in (0, 1) that the code decides."""

    def __init__(self, code: int, hidden: int) -> None:
        super().__init__()
        self.fc_1 = nn.Linear(code, hidden)
        self.fc_2 = nn.Linear(hidden, 3)

    def forward(self, points: Tensor, code: Tensor) -> Tensor:
        shrink = 1 - torch.sigmoid(self.fc_2(F.relu(self.fc_1(code))))
        return (points - points.mean(dim=1, keepdim=True)) * shrink[:, None]


class MeshFlow(nn.Module):
    """network(template (B, P, 3), points (B, M, 3)): the vertices (B, P, 3) after each of the three deformations."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.encoder = PointEncoder(settings.code, *settings.encoder)
        self.flows = nn.ModuleList(nn.ModuleList(Flow(settings) for _ in range(2)) for _ in range(3))
        self.norms = nn.ModuleList(Normalisation(settings.code, settings.norm_hidden) for _ in range(4))

    def forward(self, template: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.deform(template, self.encoder(points))

    def deform(self, template: Tensor, code: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The vertices (B, P, 3) after each deformation of a template (B, P, 3) under codes (B, code)."""
        x, stages = self.norms[0](template, code), []
        for block, norm in zip(self.flows, self.norms[1:], strict=True):
            for flow in block:
                x = flow(x, code)
            x = norm(x, code)
            stages.append(x)
        return tuple(stages)

    @torch.no_grad()
    def inverse_error(self, template: Tensor, code: Tensor) -> Tensor:
        """Largest distance along an axis (B,) by which a point misses its place after any flow and its inverse."""
        x, worst = self.norms[0](template, code), code.new_zeros(len(code))
        for block, norm in zip(self.flows, self.norms[1:], strict=True):
            for flow in block:
                moved = flow(x, code)
                missed = (flow.inverse(moved, code) - x).abs().flatten(1).amax(dim=1)
                worst, x = torch.maximum(worst, missed), moved
            x = norm(x, code)
        return worst


class NeuralMeshFlow(Model):
    """Encoder and flows; canonical coordinates outside, the network's inside."""

    declaration = DECLARATION

    def __init__(self, settings: ModelSettings, inference: InferenceSettings) -> None:
        super().__init__()
        self.settings, self.inference = settings, inference
        self.network = MeshFlow(settings)
        vertices, faces = icosphere(settings.subdivision)
        self.register_buffer("sphere", torch.from_numpy(vertices).float(), persistent=False)
        self.register_buffer("faces", torch.from_numpy(faces).long(), persistent=False)

    def prepare(self, arrays: ShapeArrays) -> dict[str, np.ndarray]:
        """{"points": (n, 3)}, of the surface."""
        return {"points": arrays["surface.points"]}

    def observe(self, arrays: ShapeArrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """{"points": (M, 3)}, the noisy cloud."""
        seen = observe_point_cloud(arrays["surface.points"], arrays["surface.normals"], self.settings.observation, rng)
        return {"points": seen["points"]}

    def draw(self, data: ResidentData, shapes: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The observed cloud (B, M, 3), true points (B, T, 3), and what chooses the meshes' points (B, 2, T, 3).

        The first points of both are the same but for the noise: equally many without noise are compared with
        themselves, as in the original.
        """
        seen, targets, points = self.settings.observation, self.settings.targets, data["points"]
        index = random_index(generator, len(shapes), max(seen.points, targets), points.shape[1])
        drawn = gather_points(points, shapes, index)
        observed = drawn[:, : seen.points]
        noise = torch.randn(observed.shape, generator=generator, device=generator.device)
        uniform = torch.rand((len(shapes), 2, targets, 3), generator=generator, device=generator.device)
        return {"points": observed + seen.noise * noise, "targets": drawn[:, :targets], "uniform": uniform}

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Chamfer distances of the three deformations in the network's units, and their weighted mean.

        The first deformation is compared by its vertices, the others by points drawn evenly on their faces.
        """
        require_batch(len(batch["points"]))
        points, centre = self._centred(batch["points"])
        code = self.network.encoder(points * SCALE)
        template = self.sphere.expand(len(code), -1, -1)
        first, second, third = self.network.deform(template, code)
        clouds = [first]
        for vertices, uniform in zip((second, third), batch["uniform"].unbind(1), strict=True):
            clouds.append(points_on_mesh(vertices, self.faces, uniform))
        targets = (batch["targets"] - centre) * SCALE
        parts = [chamfer(cloud, targets) for cloud in clouds]
        total = sum(weight * part for weight, part in zip(WEIGHTS, parts, strict=True))
        named = {f"chamfer_{number}": part for number, part in enumerate(parts, start=1)}
        return {"loss": total, **named}

    @torch.no_grad()
    def encode(self, observations: dict[str, Tensor], seeds: Sequence[int]) -> dict[str, Tensor]:
        """{"code": (B, code), "centre": (B, 1, 3) canonical} of clouds (B, M, 3). ValueError for other arrays."""
        points, centre = self._centred(observed_cloud(observations))
        return {"code": self.network.encoder(points * SCALE), "centre": centre}

    def surface(self, code: dict[str, Tensor]) -> list[Mesh]:
        """The carried spheres: closed 2-manifolds of genus 0 with the template's faces, outward."""
        return self.meshes(code, self.inference.subdivision)

    @torch.no_grad()
    def meshes(self, code: dict[str, Tensor], subdivision: int) -> list[Mesh]:
        """Spheres of so many subdivisions carried by codes and centres."""
        sphere, faces = icosphere(subdivision)
        template = torch.from_numpy(sphere).to(code["code"])
        carried = [
            self.network.deform(template.expand(len(part), -1, -1), part)[-1] for part in self._parts(code["code"])
        ]
        vertices = torch.cat(carried) / SCALE + code["centre"]
        return [Mesh(shape, faces) for shape in vertices.double().cpu().numpy()]

    def figures(self, code: dict[str, Tensor], subdivision: int | None = None) -> list[dict[str, float]]:
        """{"inverse_error": e} of each shape: how far the solver is from an invertible flow, in the network's units."""
        subdivision = self.inference.subdivision if subdivision is None else subdivision
        sphere = torch.from_numpy(icosphere(subdivision)[0]).to(code["code"])
        errors = [
            self.network.inverse_error(sphere.expand(len(part), -1, -1), part) for part in self._parts(code["code"])
        ]
        return [{"inverse_error": float(f"{error:.3g}")} for error in torch.cat(errors).tolist()]

    def _parts(self, code: Tensor) -> Sequence[Tensor]:
        """Codes (B, code) in parts that may be solved together: adaptive steps suit the worst of a batch."""
        return code.split(1) if self.settings.solver == "dopri5" else [code]

    def _centred(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Points (B, M, 3) as the network sees them, and where their origin lies (B, 1, 3)."""
        centre = points.mean(dim=1, keepdim=True)
        if not self.settings.centred:
            centre = torch.zeros_like(centre)
        return points - centre, centre


def require_batch(shapes: int) -> None:
    """Raise ValueError for a training batch without spread between its shapes."""
    if shapes < 2:
        raise ValueError(
            "batch normalisation needs two shapes at once; train on two or more, set training.batch_shapes to 2 or "
            "more, and training.accumulate so that no part holds a single one"
        )


def points_on_mesh(vertices: Tensor, faces: Tensor, uniform: Tensor) -> Tensor:
    """Points (B, T, 3) evenly on meshes of vertices (B, P, 3) and common faces (f, 3), which gradients pass through.

    uniform: (B, T, 3) in [0, 1), of which the first chooses the face by its area and the others the place on it.
    """
    corners = vertices[:, faces]
    a, b, c = corners.unbind(2)
    with torch.no_grad():
        areas = torch.linalg.cross(b - a, c - a).norm(dim=-1).cumsum(dim=1)
        chosen = torch.searchsorted(areas, uniform[..., 0].contiguous() * areas[:, -1:])
        chosen = chosen.clamp_(max=len(faces) - 1)  # rounding may lead beyond the last
    root, along = uniform[..., 1].sqrt(), uniform[..., 2]
    weights = torch.stack([1 - root, root * (1 - along), root * along], dim=-1)
    picked = corners.flatten(2).gather(1, chosen[..., None].expand(-1, -1, 9)).unflatten(2, (3, 3))
    return (picked * weights[..., None]).sum(dim=2)


def chamfer(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared distance of points (B, N, 3) to the nearest of (B, M, 3), plus that of the other direction."""
    to_b, to_a = _nearest(a, b)
    return (a - gather(b, to_b)).square().sum(-1).mean() + (b - gather(a, to_a)).square().sum(-1).mean()


@torch.no_grad()
def _nearest(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """For each point of a (B, N, 3) its nearest of b (B, M, 3), and the reverse: indices (B, N) and (B, M).

    Among points that are as near but for rounding any may be chosen; distances are taken of the pairs themselves.
    """
    together = max(1, MOST_PAIRS // (a.shape[1] * b.shape[1]))
    found = []
    for some_a, some_b in zip(a.split(together), b.split(together), strict=True):
        squares_a, squares_b = (part.square().sum(-1) for part in (some_a, some_b))
        distances = torch.baddbmm(squares_b[:, None], some_a, some_b.transpose(1, 2), alpha=-2)
        to_b = distances.argmin(dim=2)
        found.append((to_b, distances.add_(squares_a[..., None]).argmin(dim=1)))
    to_b, to_a = zip(*found, strict=True)
    return torch.cat(to_b), torch.cat(to_a)


def build(settings: ModelSettings, inference: InferenceSettings, train_shapes: int) -> NeuralMeshFlow:
    return NeuralMeshFlow(settings, inference)
