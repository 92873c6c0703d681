"""Neural-Pull from one picture: one network of signed distance for all shapes, conditioned on a picture's feature.

Ma, Han, Liu, Zwicker: Neural-Pull, ICML 2021, arXiv 2011.13495, the authors' NeuralPull_SVG (2,235,009 parameters). The
network is that of their TensorFlow code with the feature in place of its one-hot input. The feature comes from the
picture encoder of the parent, an Occupancy Network of pictures, and is not trained here. The loss is the Chamfer
distance between a shape's pulled queries and their nearest points.

`inference.view` says which view a shape is seen by: a number, or "best". The authors score the best of 24 views by the
truth, which bounds what one view could give and compares with no other method; "best" does that here, so two
experiments that differ in it alone share one training and stand in the tables under their names.

Deviations:
- The original's features are those of SoftRas's encoder, of which it is not known which weights; here they are the 512
  that Occupancy Networks' ResNet-18 has before its last layer.
- Training takes the views of the training shapes only; the original adds those of the validation shapes.
- "best" is the view whose field's surface is nearest to the truth by the Chamfer distance of points pulled onto it; the
  original extracts all 24 meshes and compares these.
- Queries are drawn afresh in every step. Sign and level of a field are decided as for Neural-Pull, but on a lattice in
  the shape's box, of which 1 in 500 points must be inside, since the surface is not known.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from pipeline.models.declaration import Declaration
from pipeline.models.stage_checks import missing_points, missing_view
from pipeline.settings import Settings


class ModelSettings(Settings):
    """Network and training batch. The defaults are the authors'."""

    hidden: PositiveInt = 512
    """Width of the hidden layers."""

    layers: PositiveInt = 8
    """Hidden layers after the first."""

    points: PositiveInt = 20_000
    """Surface points per shape that queries start from and are pulled to."""

    neighbours: PositiveInt = 50
    """Queries spread around a point in proportion to the distance of this neighbour, the point itself not counted."""

    spreads: Annotated[tuple[tuple[PositiveFloat, PositiveFloat], ...], Field(min_length=1)] = (
        (2.0, 25.0),
        (1.0, 15.0),
    )
    """Pairs of a spread, in distances of that neighbour, and its share of the queries; shares may have any sum."""

    queries: PositiveInt = 5000
    """Queries per shape in a training step. The loss compares all of them with each other."""


class InferenceSettings(Settings):
    """Which picture a shape is seen by."""

    view: NonNegativeInt | Literal["best"] = 0
    """Number of the view, from 0; or best: all are tried and the one nearest to the truth is kept, an upper bound that
    compares with no method that sees one view."""


DECLARATION = Declaration(
    trains="gradient",
    observes="view",
    quantity="signed_distance",
    training_stages=("sample_surface", "render_views", "sample_volume"),
    observation_stages=("sample_surface", "render_views"),
    validates=True,
    papers=("Ma et al., Neural-Pull: Learning Signed Distance Functions from Point Clouds, ICML 2021",),
    parent="onet",
)


def check_parent(settings: ModelSettings, parent: Settings) -> str | None:
    """What is wrong with the parent's model settings, or None."""
    kind = parent.observation.kind
    if kind != "view":
        return f"it observes {kind}, but features are taken from pictures; give its model.observation the kind view"
    return None


def check_stages(settings: ModelSettings, inference: InferenceSettings, stages: Settings) -> str | None:
    """What the data stages do not give of what is observed and trained on, or None."""
    fault = missing_points(settings.points, stages, "model.points")
    if fault is None and inference.view != "best":
        fault = missing_view(inference.view, stages, "inference.view")
    return fault


from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.arrays import Rejected
from pipeline.models.contract import Model, ShapeArrays, frozen, observed_cloud, observed_entry
from pipeline.models.encoders import normalised, on_white, resized
from pipeline.models.neuralpull import TfNetwork, pull, require_neighbours, spreads, surface_figures, turned
from pipeline.models.onet import Onet
from pipeline.training.data import ResidentData, gather_points, random_index

TRUTH = 2048  # surface points that views are compared by
LEAST_SOLID = 0.002  # of the shape's box
PULLS = 3  # after which queries around the truth lie on the field's surface, where it has one nearby


class NeuralPullImage(Model):
    """A network of distances under features (B, F) of pictures."""

    declaration = DECLARATION

    def __init__(self, settings: ModelSettings, inference: InferenceSettings, parent: Onet) -> None:
        super().__init__()
        self.settings, self.inference = settings, inference
        self.parent = frozen(parent)
        self.network = TfNetwork(settings.hidden, settings.layers, parent.settings.encoder_hidden)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Features (B, F) of pictures (B, 3, S, S) uint8 on white. Raises ValueError for other pictures."""
        seen = resized(images, self.parent.settings.observation.size)
        return self.parent.network.encoder.features(normalised(seen))

    def prepare(self, arrays: ShapeArrays) -> dict[str, np.ndarray]:
        """{"features": (V, F), "points": (M, 3), "base": (M,)}, float32, the last the distance of the neighbour.

        Raises Rejected where too few of the points differ.
        """
        points = arrays["surface.points"][: self.settings.points].astype(np.float32)
        require_neighbours(points, self.settings.neighbours)
        views = torch.from_numpy(on_white(arrays["views.images"])).to(self.device)
        base = spreads(points, self.settings.neighbours).astype(np.float32)
        return {"features": self.features(views).cpu().numpy(), "points": points, "base": base}

    def draw(self, data: ResidentData, shapes: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The feature (B, F) of a random view, queries (B, N, 3), and the nearest point (B, N, 3) of each query."""
        views = random_index(generator, len(shapes), 1, data["features"].shape[1])
        index = random_index(generator, len(shapes), self.settings.queries, data["points"].shape[1])
        near, base = (gather_points(data[key], shapes, index) for key in ("points", "base"))
        noise = torch.randn(near.shape, generator=generator, device=generator.device)
        queries = near + (self._spreads(index.shape, generator) * base)[..., None] * noise
        clouds = data["points"].index_select(0, shapes.to(data["points"].device)).to(generator.device)
        targets = _rows(clouds, torch.cdist(queries, clouds).argmin(dim=2))
        return {
            "features": gather_points(data["features"], shapes, views)[:, 0],
            "queries": queries,
            "targets": targets,
        }

    def _spreads(self, size: Sequence[int], generator: torch.Generator) -> Tensor:
        factors, shares = torch.tensor(self.settings.spreads, device=generator.device).T
        steps = (shares / shares.sum()).cumsum(dim=0)[:-1]
        return factors[torch.bucketize(torch.rand(size, generator=generator, device=generator.device), steps)]

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Chamfer distance between pulled queries and nearest points: the sum of both mean distances, not squared."""
        pulled = pull(lambda at: self.network(at, batch["features"]), batch["queries"])
        return {"loss": chamfer(pulled, batch["targets"]).mean()}

    def parameter_groups(self, learning_rate: float) -> list[dict]:
        """Those of the network of distances; the parent's do not move."""
        return [{"params": list(self.network.parameters()), "lr": learning_rate}]

    def observe(self, arrays: ShapeArrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """{"images": (1, 3, S, S) uint8}, one view on white; for the best view all of them, with "truth" (n, 3).

        Raises Rejected where the shape has no view of that number.
        """
        images, view = arrays["views.images"], self.inference.view
        if view == "best":
            truth = arrays["surface.points"]
            chosen = rng.choice(len(truth), TRUTH, replace=len(truth) < TRUTH)
            return {"images": on_white(images), "truth": truth[chosen].astype(np.float32)}
        if view >= len(images):
            raise Rejected(
                f"there is no view {view}, only 0 to {len(images) - 1}; change inference.view or render more"
            )
        return {"images": on_white(images[view : view + 1])}

    @torch.no_grad()
    def encode(self, observations: dict[str, Tensor], seeds: Sequence[int]) -> dict[str, Tensor]:
        """{"feature": (B, F), "sign": (B,), "shift": (B,)} and the number "view" (B,) among those observed.

        Raises ValueError for other pictures than (B, V, 3, S, S) uint8, and without the "truth" that the best view is
        chosen by.
        """
        images = observed_entry(observations, "images", "pictures")
        if images.ndim != 5:
            raise ValueError(f"observed pictures are (B, V, 3, S, S), these are {tuple(images.shape)}")
        features = self.features(images.flatten(0, 1)).unflatten(0, images.shape[:2])  # (B, V, F)
        view = torch.zeros(len(images), dtype=torch.long, device=images.device)
        if self.inference.view == "best":
            truth = observed_cloud(observations, "truth")
            errors = [self._error(features[:, v], truth, seeds) for v in range(features.shape[1])]
            view = torch.stack(errors).argmin(dim=0)
        feature = features[torch.arange(len(view), device=view.device), view]
        sign, shift = turned(lambda at: self.network(at, feature), _lattice(feature), LEAST_SOLID)
        return {"feature": feature, "sign": sign, "shift": shift, "view": view}

    def _error(self, feature: Tensor, truth: Tensor, seeds: Sequence[int]) -> Tensor:
        """Chamfer distance (B,) between the truth (B, n, 3) and points pulled onto the field's surface."""
        generators = (torch.Generator().manual_seed(seed) for seed in seeds)
        noise = torch.stack([torch.randn(truth.shape[1:], generator=one) for one in generators])
        at = truth + 0.1 * noise.to(truth.device)
        for _ in range(PULLS):
            at = pull(lambda points: self.network(points, feature), at).detach()
        return chamfer(at, truth)

    def field(self, code: dict[str, Tensor], queries: Tensor) -> Tensor:
        """Signed distance."""
        return code["sign"][:, None] * self.network(queries, code["feature"]) - code["shift"][:, None]

    def figures(self, code: dict[str, Tensor]) -> list[dict[str, float]]:
        """The decided "sign" and "level", and for the best view its number."""
        rows = surface_figures(code)
        if self.inference.view != "best":
            return rows
        return [{**row, "view": view} for row, view in zip(rows, code["view"].tolist(), strict=True)]


def chamfer(one: Tensor, other: Tensor) -> Tensor:
    """Sum (B,) of the two mean distances from the points (B, n, 3) of each set to the nearest of the other."""
    with torch.no_grad():
        distances = torch.cdist(one, other)
        pairs = distances.argmin(dim=2), distances.argmin(dim=1)
    # Measured again between the pairs: shorter to differentiate, and exact where the points are close.
    there, back = (one - _rows(other, pairs[0])).norm(dim=-1), (other - _rows(one, pairs[1])).norm(dim=-1)
    return there.mean(dim=1) + back.mean(dim=1)


def _rows(points: Tensor, index: Tensor) -> Tensor:
    """Rows `index` (B, k) of points (B, n, 3)."""
    return points.gather(1, index[..., None].expand(-1, -1, 3))


def _lattice(like: Tensor) -> Tensor:
    """Points in the shape's box, (B, n, 3)."""
    axis = torch.linspace(-0.48, 0.48, 24, device=like.device)
    return torch.cartesian_prod(axis, axis, axis).expand(len(like), -1, -1)


def build(settings: ModelSettings, inference: InferenceSettings, train_shapes: int, parent: Onet) -> NeuralPullImage:
    return NeuralPullImage(settings, inference, parent)
