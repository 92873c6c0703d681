"""Neural-Pull: the signed distance of one shape from its bare points, by pulling points of space onto them.

Ma, Han, Liu, Zwicker: Neural-Pull, ICML 2021, arXiv 2011.13495. Nothing is learnt from other shapes: every test shape
gets a network of its own, and the networks of a batch are optimised together, each as if it were alone. Queries around
the points are moved by the network's value against its gradient; the loss is how far they end from their nearest point.
Two recipes of the authors: the PyTorch port (the defaults) and the TensorFlow code of the paper's tables (preset
neuralpull-tf).

Sign and level: f, -f and |f| pull alike, so the loss cannot tell them apart. Here the field is turned so that its mean
far outside is positive (the port's initial weights are a sphere with that sign already). Then a twentieth of the
queries near the surface must be inside; a field without an inside gets the first of the levels 0, 0.0025, 0.005, 0.01
at which that many are, as a shift of the field. Where none is enough, the last one stands and extraction rejects the
shape if there is no surface. `extraction.level` comes on top.

Deviations:
- Vertices stand where the lattice points stand; the original's meshes are 0.8 % too large and moved by 0.004.
- Clouds are centred and scaled to a longest edge of 1 before (as the port does) and the field is brought back after.
- A step takes a window of the shuffled queries, as the TensorFlow code does; the port draws indices afresh.
- Nearest points come from a k-d tree and everything is seeded. The order of the observed points does not matter.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from pipeline.models.declaration import Declaration
from pipeline.models.stage_checks import missing_points
from pipeline.samples.observation import PointCloudSettings
from pipeline.settings import Settings


class ModelSettings(Settings):
    """Observation, queries and network of one shape. The defaults are the port's (463,100 parameters)."""

    observation: PointCloudSettings = PointCloudSettings(points=19_980, noise=0.0)
    """The cloud that is reconstructed. The port cuts one of 20,000 points to a multiple of 60; TensorFlow code: all
    20,000."""

    neighbours: PositiveInt = 50
    """Queries spread around a point in proportion to the distance of this neighbour, the point itself not counted."""

    queries: Annotated[tuple[tuple[PositiveFloat, PositiveInt], ...], Field(min_length=1)] = ((0.25, 50),)
    """Pairs of a spread and a number of rounds. Each round makes one query per point, moved by N(0, s^2) on each axis,
    s being the spread times the distance of the neighbour. The port makes as many rounds as a million queries allow,
    50 of 19,980. TensorFlow code: [[2.0, 25], [1.0, 15]], 800,000 queries."""

    reference_density: PositiveInt | None = 20_000
    """Spreads hold for this many points and grow with the root of the number, so that the queries do not move closer
    when the points do; null: they hold for any number (TensorFlow code)."""

    architecture: Literal["port", "tf"] = "port"
    """port: weight normalisation, a skip, a sphere as start. tf: plain layers beside one constant input."""

    hidden: PositiveInt = 256
    """Width of the hidden layers; 512 in the TensorFlow code."""

    layers: PositiveInt = 8
    """Hidden layers; those of tf come after a first one."""

    skip: PositiveInt | None = 4
    """Layer of the port, counted from 0, that sees the coordinates again; null: none."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.observation.points <= self.neighbours:
            raise ValueError(
                f"neighbours: the distance to neighbour {self.neighbours} needs more than {self.neighbours} observed "
                f"points, and observation.points is {self.observation.points}; observe more or lower neighbours"
            )
        skip = self.skip if self.architecture == "port" else None
        if skip is not None and (skip > self.layers or self.hidden <= 3):
            raise ValueError(f"skip: layer {skip} needs at least as many layers, and a width above 3")
        return self


class InferenceSettings(Settings):
    """Optimisation of the networks. The defaults are the port's."""

    iterations: PositiveInt = 40_000
    """Steps of Adam."""

    batch_queries: PositiveInt = 5000
    """Queries per shape and step."""

    learning_rate: PositiveFloat = 1e-3
    """Peak rate; 1e-4 in the TensorFlow code."""

    warmup: NonNegativeInt = 1000
    """Steps over which the rate rises linearly from zero; 0 in the TensorFlow code."""

    schedule: Literal["cosine", "constant"] = "cosine"
    """After the warm-up; cosine falls to zero at the end."""

    adam_epsilon: Literal["corrected", "uncorrected"] = "corrected"
    """Of Adam, as for trainings: corrected as torch has it, uncorrected as the TensorFlow code."""

    def rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.learning_rate * step / self.warmup
        if self.schedule == "constant":
            return self.learning_rate
        rest = max(self.iterations - self.warmup, 1)
        return self.learning_rate * 0.5 * (math.cos(math.pi * (step - self.warmup) / rest) + 1)


DECLARATION = Declaration(
    trains="nothing",
    observes="point_cloud",
    quantity="signed_distance",
    training_stages=(),
    observation_stages=("sample_surface",),
    validates=False,
    papers=("Ma et al., Neural-Pull: Learning Signed Distance Functions from Point Clouds, ICML 2021",),
    batched=True,
)


def check_stages(settings: ModelSettings, inference: InferenceSettings, stages: Settings) -> str | None:
    """What the data stages do not give of what is observed, or None."""
    return missing_points(settings.observation.points, stages)


from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor, nn
from torch.func import functional_call

from pipeline.arrays import Rejected
from pipeline.models.contract import Model, ShapeArrays, observed_cloud, seeded_init
from pipeline.models.descent import descend
from pipeline.models.layers import WeightNormLinear
from pipeline.samples.observation import observe_point_cloud
from pipeline.training.data import gather_points

FEATURES = 128  # width of the TensorFlow code's second input
LEVELS = (0.0, 0.0025, 0.005, 0.01)
LEAST_INSIDE = 0.05  # share of the queries near the surface; an untroubled field has about half of them inside
NEAR_QUERIES = 5000
FAR = 0.6  # half edge of a cube around the shape, whose longest half edge is 0.5

# --- networks: one for all shapes, or, where every tensor leads with B, one for each


class PortNetwork(nn.Module):
    """Distances (B, N) of points (B, N, 3): weight normalisation, ReLU, the points again at one layer.

    Starts as the distance to a sphere of radius 0.5, roughly; exactly -0.5 at the origin.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.depth, self.skip = settings.layers, settings.skip
        width = settings.hidden
        for k in range(self.depth + 1):
            features_out = 1 if k == self.depth else width - 3 if k + 1 == self.skip else width
            self.add_module(f"lin{k}", WeightNormLinear(3 if k == 0 else width, features_out))
        self._start_as_sphere()

    @torch.no_grad()
    def _start_as_sphere(self) -> None:
        for k in range(self.depth + 1):
            layer = getattr(self, f"lin{k}")
            rows, columns = layer.weight_v.shape
            if k == self.depth:
                nn.init.normal_(layer.weight_v, math.sqrt(math.pi) / math.sqrt(columns), 1e-4)
                nn.init.constant_(layer.bias, -0.5)
            else:
                nn.init.normal_(layer.weight_v, 0.0, math.sqrt(2) / math.sqrt(rows))
                nn.init.zeros_(layer.bias)
            layer.weight_g.copy_(layer.weight_v.norm(dim=-1, keepdim=True))

    def forward(self, queries: Tensor) -> Tensor:
        x = queries
        for k in range(self.depth + 1):
            if k == self.skip:
                x = torch.cat([x, queries], dim=-1) / math.sqrt(2)
            layer = getattr(self, f"lin{k}")
            x = _linear(x, layer.weight, layer.bias)
            x = F.relu(x) if k < self.depth else x
        return x[..., 0]


class TfNetwork(nn.Module):
    """Distances (B, N) of points (B, N, 3) and a code (B, code) of each shape, a one where it is left out.

    Positive everywhere at the start.
    """

    def __init__(self, hidden: int, layers: int, code: int = 1) -> None:
        super().__init__()
        self.feature = nn.Linear(code, FEATURES)
        self.point = nn.Linear(3, hidden)
        self.block = nn.ModuleList(nn.Linear(hidden + (0 if k else FEATURES), hidden) for k in range(layers))
        self.out = nn.Linear(hidden, 1)
        for layer in (self.feature, self.point):
            nn.init.xavier_uniform_(layer.weight)
        for layer in self.block:
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2) / math.sqrt(hidden))
        nn.init.normal_(self.out.weight, 2 * math.sqrt(math.pi) / math.sqrt(hidden), 1e-6)
        for layer in (self.feature, self.point, *self.block):
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.out.bias, -0.5)

    def forward(self, queries: Tensor, code: Tensor | None = None) -> Tensor:
        code = queries.new_ones((len(queries), 1)) if code is None else code
        feature = F.relu(_linear(code[:, None], self.feature.weight, self.feature.bias))  # (B, 1, FEATURES)
        x = F.relu(_linear(queries, self.point.weight, self.point.bias))
        first = self.block[0]
        # Put together, the two would be multiplied once per point; the code's part is the same for all points.
        of_points, of_feature = first.weight.split([x.shape[-1], FEATURES], dim=-1)
        x = F.relu(_linear(x, of_points, first.bias) + feature @ of_feature.mT)
        for layer in self.block[1:]:
            x = F.relu(_linear(x, layer.weight, layer.bias))
        return _linear(x, self.out.weight, self.out.bias)[..., 0]


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer on (B, N, in) with one weight (out, in) for all shapes, or (B, out, in) with one for each."""
    return F.linear(x, weight, bias) if weight.ndim == 2 else torch.baddbmm(bias[:, None], x, weight.mT)


def single_network(settings: ModelSettings) -> nn.Module:
    """The network of one shape."""
    return PortNetwork(settings) if settings.architecture == "port" else TfNetwork(settings.hidden, settings.layers)


# --- pulling


def pull(field: Callable[[Tensor], Tensor], queries: Tensor) -> Tensor:
    """Queries (..., 3) moved by the field's values (...,) against its gradient's direction (sheet neuralpull.md 2).

    The result can be differentiated by the field's parameters, through the value and the direction.
    """
    queries = queries.detach().requires_grad_()
    with torch.enable_grad():
        values = field(queries)
        (gradient,) = torch.autograd.grad(values.sum(), queries, create_graph=True)
        length = (gradient.square().sum(dim=-1, keepdim=True) + 1e-12).sqrt()
        return queries - values[..., None] * gradient / length


def spreads(points: np.ndarray, neighbours: int) -> np.ndarray:
    """Distance of each point (M, 3) to its neighbour of this number among the others, (M,)."""
    return cKDTree(points).query(points, neighbours + 1)[0][:, -1]


@dataclass(frozen=True)
class Attraction:
    """Normalised clouds (B, M, 3), queries (B, Q, 3) around them, and the number (B, Q) of the point nearest to each.

    A cloud times `scale` (B,) plus `centre` (B, 3) is the observed one.
    """

    points: Tensor
    queries: Tensor
    nearest: Tensor
    centre: Tensor
    scale: Tensor

    def window(self, places: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Queries (B, count, 3) in a row from the places (B,) in [0, 1), wrapping around, and their nearest points."""
        total = self.queries.shape[1]
        index = ((places * total).long()[:, None] + torch.arange(count, device=places.device)) % total
        shapes = torch.arange(len(index), device=index.device)
        nearest = gather_points(self.nearest, shapes, index).long()
        return gather_points(self.queries, shapes, index), gather_points(self.points, shapes, nearest)


def attract(points: Tensor, settings: ModelSettings, seeds: Sequence[int]) -> Attraction:
    """Clouds (B, M, 3) with queries drawn from each shape's seed, in random order."""
    device, observed = points.device, points.cpu().numpy().astype(np.float64)
    low, high = observed.min(axis=1), observed.max(axis=1)
    centre, scale = (low + high) / 2, (high - low).max(axis=1)
    clouds, queries, nearest = [], [], []
    for cloud, middle, edge, seed in zip(observed, centre, scale, seeds, strict=True):
        # In an order that does not depend on the one given, so that what is drawn does not either.
        cloud = (cloud[np.lexsort(cloud.T)] - middle) / edge
        drawn = _draw_queries(cloud, settings, np.random.default_rng(seed))
        clouds.append(cloud.astype(np.float32))
        queries.append(drawn)
        nearest.append(cKDTree(clouds[-1]).query(drawn)[1].astype(np.int32))
    on_device = [torch.from_numpy(np.stack(parts)).to(device) for parts in (clouds, queries, nearest)]
    frame = [torch.from_numpy(part.astype(np.float32)).to(device) for part in (centre, scale)]
    return Attraction(*on_device, *frame)


def _draw_queries(cloud: np.ndarray, settings: ModelSettings, rng: np.random.Generator) -> np.ndarray:
    """All queries (Q, 3) float32 of a normalised cloud (M, 3), shuffled."""
    base = spreads(cloud, settings.neighbours)
    if settings.reference_density is not None:
        base = base * math.sqrt(len(cloud) / settings.reference_density)
    sigma = np.concatenate([np.full(rounds, spread) for spread, rounds in settings.queries])[:, None] * base
    queries = cloud + sigma[..., None] * rng.standard_normal((*sigma.shape, 3))
    return rng.permutation(queries.reshape(-1, 3)).astype(np.float32)


# --- the model


class NeuralPull(Model):
    """A network per shape, optimised in `encode`; `network` is a fresh one."""

    declaration = DECLARATION

    def __init__(self, settings: ModelSettings, inference: InferenceSettings) -> None:
        super().__init__()
        self.settings, self.inference = settings, inference
        self.network = single_network(settings)

    def observe(self, arrays: ShapeArrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """{"points": (M, 3)}. Raises Rejected where they are not finite or too few of them differ."""
        seen = observe_point_cloud(arrays["surface.points"], arrays["surface.normals"], self.settings.observation, rng)
        require_neighbours(seen["points"], self.settings.neighbours)
        return {"points": seen["points"]}

    def encode(self, observations: dict[str, Tensor], seeds: Sequence[int]) -> dict[str, Tensor]:
        """The weights of each shape's network under their names, and what makes its values canonical distances.

        "sign", "shift", "scale" (B,) and "centre" (B, 3): distance = scale * (sign * network((q - centre) / scale) -
        shift). Raises ValueError where the observation is no cloud of points.
        """
        points = observed_cloud(observations)
        attraction = attract(points, self.settings, seeds)
        weights = self._first_weights(seeds, points.device)
        places = self._places(seeds).to(points.device)

        def cost(step: int) -> Tensor:
            queries, targets = attraction.window(places[:, step], self.inference.batch_queries)
            return pull_error(lambda at: self._values(weights, at), queries, targets).sum()

        how = self.inference
        descend(weights, cost, how.rate_at, how.iterations, self.keeper, seeds, how.adam_epsilon)
        weights = {name: tensor.detach() for name, tensor in weights.items()}
        near, _ = attraction.window(torch.zeros_like(places[:, 0]), min(NEAR_QUERIES, attraction.queries.shape[1]))
        sign, shift = turned(lambda at: self._values(weights, at), near)
        return {**weights, "sign": sign, "shift": shift, "centre": attraction.centre, "scale": attraction.scale}

    def _first_weights(self, seeds: Sequence[int], device: torch.device) -> dict[str, Tensor]:
        """Initial tensors with leading B, each shape's from its own seed."""
        networks = []
        for seed in seeds:
            with seeded_init(seed):
                networks.append(single_network(self.settings).state_dict())
        stacked = {name: torch.stack([tensors[name] for tensors in networks]) for name in networks[0]}
        return {name: tensor.to(device).requires_grad_() for name, tensor in stacked.items()}

    def _places(self, seeds: Sequence[int]) -> Tensor:
        """Where the windows of queries begin, (B, iterations) in [0, 1)."""
        generators = (torch.Generator().manual_seed(seed) for seed in seeds)
        return torch.stack([torch.rand(self.inference.iterations, generator=one) for one in generators])

    def _values(self, weights: Mapping[str, Tensor], queries: Tensor) -> Tensor:
        return functional_call(self.network, dict(weights), (queries,))

    def field(self, code: dict[str, Tensor], queries: Tensor) -> Tensor:
        """Signed distance in canonical units."""
        weights = {name: code[name] for name in self.network.state_dict()}
        scale = code["scale"][:, None]
        values = self._values(weights, (queries - code["centre"][:, None]) / scale[..., None])
        return scale * (code["sign"][:, None] * values - code["shift"][:, None])

    def figures(self, code: dict[str, Tensor]) -> list[dict[str, float]]:
        """How the surface was decided upon: the "sign" and the "level" of the network's values that it lies at."""
        return surface_figures(code)


def surface_figures(code: dict[str, Tensor]) -> list[dict[str, float]]:
    """{"sign": 1 or -1, "level": normalised units} of each shape of a code with "sign" and "shift" (B,)."""
    rows = zip(code["sign"].tolist(), code["shift"].tolist(), strict=True)
    return [{"sign": int(sign), "level": float(f"{sign * shift + 0.0:.3g}")} for sign, shift in rows]


def pull_error(field: Callable[[Tensor], Tensor], queries: Tensor, targets: Tensor) -> Tensor:
    """Mean distance (B,) between pulled queries (B, N, 3) and their nearest points (B, N, 3)."""
    return (targets - pull(field, queries)).norm(dim=-1).mean(dim=1)


@torch.no_grad()
def turned(
    field: Callable[[Tensor], Tensor], near: Tensor, least_inside: float = LEAST_INSIDE
) -> tuple[Tensor, Tensor]:
    """Sign and shift (B,) that make sign * field - shift negative inside.

    field: of points (B, N, 3), normalised to a longest edge of 1. near: points (B, N, 3), of which a share of at least
    least_inside must be inside.
    """
    far = _cube_faces(near.device).expand(len(near), -1, -1)
    sign = torch.where(field(far).mean(dim=1) < 0, -1.0, 1.0)
    values = sign[:, None] * field(near)
    levels = torch.tensor(LEVELS, device=near.device)
    inside = (values[:, None] < levels[:, None]).float().mean(dim=-1)  # (B, levels)
    enough = (inside >= least_inside).float()
    first = torch.where(enough.any(dim=1), enough.argmax(dim=1), len(LEVELS) - 1)
    return sign, levels[first]


def _cube_faces(device: torch.device) -> Tensor:
    """Points on the faces of the cube of half edge FAR, (1, n, 3)."""
    axis = torch.linspace(-FAR, FAR, 9, device=device)
    lattice = torch.cartesian_prod(axis, axis, axis)
    return lattice[lattice.abs().amax(dim=1) == FAR][None]


def require_neighbours(points: np.ndarray, neighbours: int) -> None:
    """Raises Rejected where points (M, 3) do not have so many different neighbours, or are not finite."""
    if not np.isfinite(points).all():
        raise Rejected("the observed points are not all finite")
    distinct = len(np.unique(points, axis=0))
    if distinct == 1:
        raise Rejected(f"all {len(points)} observed points are the same, so they show no surface")
    if distinct <= neighbours:
        raise Rejected(
            f"only {distinct} different points are observed, but the distance to neighbour {neighbours} is asked for; "
            f"observe more points or lower model.neighbours"
        )


def build(settings: ModelSettings, inference: InferenceSettings, train_shapes: int) -> NeuralPull:
    return NeuralPull(settings, inference)
