"""DeepSDF: a code per shape and a shared decoder of signed distance; the code of a new shape is found by optimisation.

Park, Florence, Straub, Newcombe, Lovegrove: DeepSDF, CVPR 2019, arXiv 1901.05103; numbers as in the released code.

Deviations:
- The original scales each shape by its farthest vertex (to radius 1 / 1.03), which cannot be known from distance
  samples. Here canonical coordinates and distances are multiplied by one factor, SCALE, that brings the canonical
  cube's corners to that radius: every shape fits, and most fill less of the sphere.
- Distances are exact and no sample is dropped, unless `stages.compute_sdf.method` is votes. Training draws from all
  boundary samples and so many of the volume's that these are `volume_share`. A shape whose samples have one sign only
  gives all its draws from that sign.
- Uniform samples fill the box of `sample_volume`, the original's the cube [-1, 1]^3 of its own frame.
- Windows of samples wrap around at the end, where the original fails on few samples. Everything is seeded.
- The last layer starts within half the clamp, which changes decoders narrower than the released ones only.
- Dropout of the code, off in every released setting, is left out.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from pipeline.models.declaration import Declaration
from pipeline.settings import Settings


class ModelSettings(Settings):
    """Decoder, codes, loss and training batch. The defaults are the released ones (1,843,195 in the decoder)."""

    dims: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (512,) * 8
    """Widths of the hidden layers."""

    code: PositiveInt = 256
    """Length of a shape's code."""

    latent_in: tuple[PositiveInt, ...] = (4,)
    """Layers, counted from 0, that see code and coordinates again beside the features."""

    xyz_in_all: bool = False
    """Every layer but the first sees the coordinates again."""

    normalisation: Literal["weight", "layer", "none"] = "weight"
    """Of all hidden layers: weight normalisation, layer normalisation of their outputs, or none."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Probability of dropping an output of a hidden layer in training."""

    use_tanh: bool = False
    """A second tanh on the output, which always passes one."""

    clamp: PositiveFloat = 0.1
    """Distances are compared after clamping to plus or minus this, in the network's frame (canonical times 1.12)."""

    code_regularisation: NonNegativeFloat = 1e-4
    """Weight of the mean norm of the codes in the loss."""

    code_ramp: NonNegativeInt = 100
    """Passes over the training shapes until that weight is full; it grows linearly from the first."""

    code_bound: PositiveFloat = 1.0
    """Largest norm of a training code."""

    code_init_std: PositiveFloat = 1.0
    """Training codes start at N(0, (this / sqrt(code))^2)."""

    code_learning_rate_scale: PositiveFloat = 2.0
    """First learning rate of the codes over that of the decoder."""

    code_decay_every: PositiveInt | None = None
    """Of the codes' learning rate, under training.schedule step; null: training.decay_every, as the decoder's."""

    code_decay_factor: Annotated[float, Field(gt=0, le=1)] | None = None
    """Of the codes' learning rate, under training.schedule step; null: training.decay_factor."""

    samples: PositiveInt = 16384
    """Samples per shape in a training step, half of them inside."""

    volume_share: Annotated[float, Field(ge=0, lt=1)] = 0.06
    """Share of the samples that are uniform in the volume, the rest being near the surface."""

    sigmas: tuple[PositiveFloat, ...] | None = None
    """Sets of samples near the surface that training draws from, among `stages.sample_boundary.sigmas`; null: all."""

    @model_validator(mode="after")
    def _skips_fit(self) -> Self:
        widths = (self.code + 3, *self.dims, 1)
        for layer in self.latent_in:
            if layer > len(self.dims) or widths[layer] <= widths[0]:
                raise ValueError(f"latent_in: layer {layer} needs an input wider than code + 3 = {widths[0]}")
        return self


class InferenceSettings(Settings):
    """Optimisation of the code of an unseen shape, decoder fixed."""

    iterations: PositiveInt = 800
    """Steps of Adam; the learning rate falls to a tenth at half of them."""

    learning_rate: PositiveFloat = 5e-3
    """Of the first half."""

    samples: PositiveInt = 8000
    """Samples per shape and step, half of them inside."""

    sigmas: tuple[PositiveFloat, ...] | None = None
    """Sets of samples near the surface that are observed, among `stages.sample_boundary.sigmas`; null: all. The
    original observes a wider spread than it trains on."""

    init_std: NonNegativeFloat = 0.01
    """The code starts at N(0, this^2)."""

    code_regularisation: NonNegativeFloat = 1e-4
    """Weight of the mean square of the code's entries."""

    def rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        return self.learning_rate * (0.1 if 2 * step >= self.iterations else 1.0)


DECLARATION = Declaration(
    trains="gradient",
    observes="sdf_samples",
    quantity="signed_distance",
    training_stages=("sample_boundary", "sample_volume", "compute_sdf"),
    observation_stages=("sample_boundary", "sample_volume", "compute_sdf"),
    validates=False,
    papers=("Park et al., DeepSDF: Learning Continuous Signed Distance Functions for Shape Representation, CVPR 2019",),
)


def check_stages(settings: ModelSettings, inference: InferenceSettings, stages: Settings) -> str | None:
    """Which samples that are asked for the data stages do not make, or None."""
    near = [f"{sigma:g}" for sigma in stages.sample_boundary.sigmas]
    measured = stages.compute_sdf.of or ("volume", *(f"boundary-{sigma}" for sigma in near))
    for key, sigmas in (("model.sigmas", settings.sigmas), ("inference.sigmas", inference.sigmas)):
        for sigma in (f"{sigma:g}" for sigma in sigmas or ()):
            if sigma not in near:
                return f"{key} names {sigma}, which is not among stages.sample_boundary.sigmas: {', '.join(near)}"
            if f"boundary-{sigma}" not in measured:
                return f"{key} names {sigma}, but stages.compute_sdf.of leaves out boundary-{sigma}; add it"
    if "volume" not in measured:
        return "it takes samples of the volume too, which stages.compute_sdf.of leaves out; add volume"
    return None


import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.arrays import Rejected
from pipeline.models.contract import Model, ShapeArrays, observed_cloud, observed_entry
from pipeline.models.descent import descend
from pipeline.models.layers import WeightNormLinear, linear_of_parts
from pipeline.training.data import ResidentData, gather_points, random_index

# The canonical cube's corners lie at sqrt(3) / 2; DeepSDF puts the farthest point of a shape at 1 / 1.03.
SCALE = 2 / math.sqrt(3) / 1.03


class Decoder(nn.Module):
    """tanh-bounded signed distance (B, N) of points (B, N, 3) under codes (B, L), in DeepSDF's frame."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.layers = len(settings.dims) + 1
        widths = (settings.code + 3, *settings.dims, 1)
        for k in range(self.layers):
            hidden = k < self.layers - 1
            width = widths[k + 1]
            if k + 1 in settings.latent_in:
                width -= widths[0]  # room for what joins before the next layer
            elif settings.xyz_in_all and hidden:
                width -= 3
            normed = hidden and settings.normalisation == "weight"
            self.add_module(f"lin{k}", (WeightNormLinear if normed else nn.Linear)(widths[k], width))
            if hidden and settings.normalisation == "layer":
                self.add_module(f"bn{k}", nn.LayerNorm(width))  # the original's name; it is no batch normalisation

    def forward(self, queries: Tensor, code: Tensor) -> Tensor:
        given = (code[:, None], queries)
        x = self._hidden(0, linear_of_parts(self.lin0, given))
        for k in range(1, self.layers):
            again = given if k in self.settings.latent_in else given[1:] if self.settings.xyz_in_all else ()
            x = self._hidden(k, linear_of_parts(getattr(self, f"lin{k}"), (x, *again)))
        x = torch.tanh(x) if self.settings.use_tanh else x
        return torch.tanh(x).squeeze(-1)

    def _hidden(self, k: int, x: Tensor) -> Tensor:
        if k == self.layers - 1:
            return x
        if self.settings.normalisation == "layer":
            x = getattr(self, f"bn{k}")(x)
        return F.dropout(F.relu(x, inplace=True), self.settings.dropout, self.training)


class DeepSdf(Model):
    """Decoder and the codes of the training shapes."""

    declaration = DECLARATION

    def __init__(self, settings: ModelSettings, inference: InferenceSettings, train_shapes: int) -> None:
        super().__init__()
        self.settings, self.inference = settings, inference
        self.network = Decoder(settings)
        self._start_within_clamp()
        self.codes = nn.Embedding(train_shapes, settings.code, max_norm=settings.code_bound)
        nn.init.normal_(self.codes.weight, std=settings.code_init_std / math.sqrt(settings.code))

    @torch.no_grad()
    def _start_within_clamp(self) -> None:
        """Outside the clamp there is no gradient, so a decoder that starts there never learns.

        A released decoder starts within a third of it; of those with 32 hidden units every second one would not.
        """
        last = getattr(self.network, f"lin{self.network.layers - 1}")
        shrink = min(1.0, self.settings.clamp / 2 * math.sqrt(last.in_features))
        last.weight.mul_(shrink)
        last.bias.mul_(shrink)

    def prepare(self, arrays: ShapeArrays) -> dict[str, np.ndarray]:
        """{"points": (n, 3), "sdf": (n,), "inside": (), "kept": ()}: the `kept` samples whose distances count first.

        Of these the `inside` ones at or below zero stand first. The others, of disputed sign, are never drawn: they
        only make the arrays of all shapes equally long. Raises Rejected where a shape has no samples, ValueError where
        a set that is asked for was not made.
        """
        return self._sorted(arrays, self.settings.sigmas)

    def _sorted(self, arrays: ShapeArrays, sigmas: Sequence[float] | None) -> dict[str, np.ndarray]:
        points, distances, kept = self._samples(arrays, sigmas)
        if not kept.any():
            raise Rejected("the shape has no signed distance samples")
        order = np.argsort(np.where(kept, distances > 0, 2), kind="stable")
        counts = {"inside": kept & (distances <= 0), "kept": kept}
        sizes = {name: np.array(np.count_nonzero(flags), np.int64) for name, flags in counts.items()}
        return {"points": points[order], "sdf": distances[order], **sizes}

    def _samples(
        self, arrays: ShapeArrays, sigmas: Sequence[float] | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points (n, 3) and distances (n,) of the sets, and which distances count (n,) bool.

        A prepared set has all samples of a shape in one, which sigmas do not choose among.
        """
        if "sdf.points" in arrays:
            return arrays["sdf.points"], arrays["sdf.samples"], arrays["sdf.kept.samples"]
        made = sorted(key.removeprefix("sdf.") for key in arrays if key.startswith("sdf.boundary-"))
        sets = made if sigmas is None else [f"boundary-{sigma:g}" for sigma in sigmas]
        if missing := set(sets) - set(made):
            raise ValueError(f"no samples {', '.join(sorted(missing))}, only {', '.join(made)}; change sigmas")
        near = sum(len(arrays[f"sdf.{name}"]) for name in sets)
        share = self.settings.volume_share
        uniform = math.ceil(near * share / (1 - share)) if sets else None  # any prefix is a uniform sample too
        parts = [*((name, None) for name in sets), ("volume", uniform)]
        points = np.concatenate([arrays[f"{name}.points"][:end] for name, end in parts], dtype=np.float32)
        distances = np.concatenate([arrays[f"sdf.{name}"][:end] for name, end in parts], dtype=np.float32)
        marks = [arrays.get(f"sdf.kept.{name}", np.ones(len(arrays[f"sdf.{name}"]), bool))[:end] for name, end in parts]
        return points, distances, np.concatenate(marks)

    def draw(self, data: ResidentData, shapes: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Points (B, N, 3) and distances (B, N), half of them inside, canonical; with the shapes' numbers."""
        inside, kept = (data[name].to(generator.device)[shapes] for name in ("inside", "kept"))
        below, start = _sides(inside, kept)
        half = self.settings.samples // 2
        negative = random_index(generator, len(shapes), half, below)
        positive = random_index(generator, len(shapes), self.settings.samples - half, kept - start)
        index = torch.cat([negative, start[:, None] + positive], dim=1)
        points, distances = gather_points(data["points"], shapes, index), gather_points(data["sdf"], shapes, index)
        return {"shapes": shapes, "points": points, "sdf": distances}

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Clamped L1 distance, and the codes' mean norm under its ramped weight."""
        codes = self.codes(batch["shapes"])
        data = self.clamped_l1(codes, batch["points"], batch["sdf"]).mean()
        norm = codes.norm(dim=1).mean()
        ramp = min(1.0, self.epoch / self.settings.code_ramp) if self.settings.code_ramp else 1.0
        return {"loss": data + self.settings.code_regularisation * ramp * norm, "data": data, "code_norm": norm}

    def clamped_l1(self, codes: Tensor, points: Tensor, distances: Tensor) -> Tensor:
        """Errors (B, N) of the distances at canonical points (B, N, 3), both clamped, in the decoder's frame."""
        clamp = self.settings.clamp
        predicted = self.network(points * SCALE, codes).clamp(-clamp, clamp)
        return (predicted - (distances * SCALE).clamp(-clamp, clamp)).abs()

    def parameter_groups(self, learning_rate: float) -> list[dict]:
        """Decoder and codes, each with its own learning rate and steps of its decay."""
        own = {"decay_every": self.settings.code_decay_every, "decay_factor": self.settings.code_decay_factor}
        codes = {"lr": learning_rate * self.settings.code_learning_rate_scale}
        codes |= {name: value for name, value in own.items() if value is not None}
        return [
            {"params": list(self.network.parameters()), "lr": learning_rate},
            {"params": list(self.codes.parameters()), **codes},
        ]

    def observe(self, arrays: ShapeArrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """The samples as `prepare` gives them, of the sets that inference names, shuffled among those of one sign."""
        samples = self._sorted(arrays, self.inference.sigmas)
        inside, kept, total = int(samples["inside"]), int(samples["kept"]), len(samples["sdf"])
        order = [rng.permutation(inside), inside + rng.permutation(kept - inside), np.arange(kept, total)]
        order = np.concatenate(order)
        return {**samples, "points": samples["points"][order], "sdf": samples["sdf"][order]}

    def encode(self, observations: dict[str, Tensor], seeds: Sequence[int]) -> dict[str, Tensor]:
        """{"code": (B, L), "error": (B,)}: the codes that explain the observed samples best, and how well they do.

        Each step looks at a window of the shuffled samples of either sign, at a place drawn from the shape's seed; the
        error is the mean clamped L1 distance on the last one, without the regularisation, in the decoder's frame.
        Raises ValueError where the observations are no samples as `observe` gives them.
        """
        distances = _checked_samples(observations)
        code, places = self._beginnings(seeds, distances)
        settings = self.inference

        def error(step: int) -> Tensor:
            points, distances = sample_window(observations, places[:, step], settings.samples)
            return self.clamped_l1(code, points, distances).mean(dim=1)

        def cost(step: int) -> Tensor:
            return error(step).sum() + settings.code_regularisation * code.square().mean(dim=1).sum()

        code.requires_grad_()
        descend({"code": code}, cost, settings.rate_at, settings.iterations, self.keeper, seeds)
        code = code.detach()
        with torch.no_grad():
            return {"code": code, "error": error(settings.iterations - 1)}

    def figures(self, code: dict[str, Tensor]) -> list[dict[str, float]]:
        """{"fit_error": how well the code explains the samples, in the decoder's frame, "code_norm": its length}."""
        return fit_figures(code)

    def _beginnings(self, seeds: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
        """First codes (B, L) and the places of all windows (B, iterations, 2) in [0, 1), each from its own seed."""
        codes, places = [], []
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            codes.append(self.inference.init_std * torch.randn(self.settings.code, generator=generator))
            places.append(torch.rand((self.inference.iterations, 2), generator=generator))
        return torch.stack(codes).to(like.device), torch.stack(places).to(like.device)

    def field(self, code: dict[str, Tensor], queries: Tensor) -> Tensor:
        """Signed distance in canonical units, within plus or minus 1 / SCALE."""
        return self.network(queries * SCALE, code["code"]) / SCALE


def fit_figures(code: dict[str, Tensor]) -> list[dict[str, float]]:
    """Of codes {"code": (B, L), "error": (B,)} that were fitted: {"fit_error", "code_norm"} of each; none of others."""
    if "error" not in code:
        return [{} for _ in code["code"]]
    rows = zip(code["error"].tolist(), code["code"].norm(dim=1).tolist(), strict=True)
    return [{"fit_error": float(f"{error:.3g}"), "code_norm": float(f"{norm:.3g}")} for error, norm in rows]


def _sides(inside: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Where the samples inside end and where those outside begin; both cover everything where one side is empty."""
    return torch.where(inside > 0, inside, kept), torch.where(inside < kept, inside, 0)


def _checked_samples(observations: dict[str, Tensor]) -> Tensor:
    """The observed distances (B, N). Raises ValueError where they or what belongs to them is missing or another."""
    points = observed_cloud(observations)
    distances, *_ = (
        observed_entry(observations, name, "samples of signed distance") for name in ("sdf", "inside", "kept")
    )
    if distances.shape != points.shape[:2]:
        raise ValueError(
            f"observed distances are (B, N), one for each of the points; these are {tuple(distances.shape)} for points "
            f"{tuple(points.shape)}"
        )
    return distances


def sample_window(observations: dict[str, Tensor], places: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Points (B, count, 3) and distances (B, count) in a row from the places (B, 2) of either side, wrapping around."""
    distances, kept = observations["sdf"], observations["kept"]
    below, start = _sides(observations["inside"], kept)
    above = kept - start
    steps = torch.arange(count, device=distances.device)
    half = count // 2
    negative = ((places[:, :1] * below[:, None]).long() + steps[:half]) % below[:, None]
    positive = start[:, None] + ((places[:, 1:] * above[:, None]).long() + steps[: count - half]) % above[:, None]
    index = torch.cat([negative, positive], dim=1)
    shapes = torch.arange(len(index), device=index.device)
    return gather_points(observations["points"], shapes, index), gather_points(distances, shapes, index)


def build(settings: ModelSettings, inference: InferenceSettings, train_shapes: int) -> DeepSdf:
    return DeepSdf(settings, inference, train_shapes)
