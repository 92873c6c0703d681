"""DeepSDF's shape completion: the code of a trained DeepSDF that explains one depth view.

Park et al.: DeepSDF, CVPR 2019, section 6.3. The authors never published code or the numbers of this part, so it is
our reading (sheet deepsdf.md 7). Of the pixels of one view that see the surface come pairs of points at plus and minus
`offset` along the surface's normal, where the distance must be that. Between the camera and the surface, and along the
rays that meet nothing, space is free: distances below zero are penalised there, others are not. The code is optimised
as for complete shapes, the decoder is the parent's and nothing is trained here.

Normals come from the depths of a pixel's four neighbours; a pixel at a rim, where these jump, is left out.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from pipeline.models.declaration import Declaration
from pipeline.models.stage_checks import missing_view
from pipeline.settings import Settings


class ModelSettings(Settings):
    """What is seen of the shape."""

    view: NonNegativeInt = 0
    """Number of the depth view, from 0."""

    points: PositiveInt = 2000
    """Points seen on the surface, each of which makes a pair, and as many points of free space."""


class InferenceSettings(Settings):
    """Optimisation of the code, decoder fixed."""

    iterations: PositiveInt = 800
    """Steps of Adam; the learning rate falls to a tenth at half of them."""

    learning_rate: PositiveFloat = 5e-3
    """Of the first half."""

    offset: PositiveFloat = 0.01
    """Distance of a pair's points from the surface, canonical units."""

    free_weight: NonNegativeFloat = 1.0
    """Weight of free space against the pairs."""

    init_std: NonNegativeFloat = 0.01
    """The code starts at N(0, this^2)."""

    code_regularisation: NonNegativeFloat = 1e-4
    """Weight of the mean square of the code's entries."""

    depth_range: Annotated[float, Field(gt=0.5)] = 0.9
    """Free space is looked at up to this far before and behind the shape's centre, canonical units."""

    def rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        return self.learning_rate * (0.1 if 2 * step >= self.iterations else 1.0)


DECLARATION = Declaration(
    trains="directly",
    observes="view",
    quantity="signed_distance",
    # The parent's, so that both know the same training shapes: its checkpoint holds a code of each.
    training_stages=("sample_boundary", "sample_volume", "compute_sdf"),
    observation_stages=("render_views",),
    validates=False,
    papers=("Park et al., DeepSDF: Learning Continuous Signed Distance Functions for Shape Representation, CVPR 2019",),
    parent="deepsdf",
)


def check_stages(settings: ModelSettings, inference: InferenceSettings, stages: Settings) -> str | None:
    """What the data stages do not give of what is observed, or None."""
    if not stages.render_views.depth:
        return "completion observes depths; set stages.render_views.depth: true"
    return missing_view(settings.view, stages, "model.view")


from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.arrays import Rejected
from pipeline.models.contract import Model, ShapeArrays, frozen, observed_cloud
from pipeline.models.deepsdf import SCALE, DeepSdf, fit_figures
from pipeline.models.descent import descend
from pipeline.training.data import ResidentData

JUMP = 8.0  # pixel sizes by which depth may change from one neighbour of a pixel to the opposite one: a slope of 76°
HALF_BOX = 0.55  # free space outside is of no use


class DeepSdfCompletion(Model):
    """Codes of a trained DeepSDF from depth views."""

    declaration = DECLARATION

    def __init__(self, settings: ModelSettings, inference: InferenceSettings, parent: DeepSdf) -> None:
        super().__init__()
        self.settings, self.inference = settings, inference
        self.parent = frozen(parent)
        self.network = nn.Identity()  # nothing of its own

    def prepare(self, arrays: ShapeArrays) -> dict[str, np.ndarray]:
        """Nothing."""
        return {}

    def fit(self, data: ResidentData) -> None:
        """Nothing is left to learn: the decoder is the parent's."""

    def observe(self, arrays: ShapeArrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """{"points": (M, 3), "normals": (M, 3), "free": (M, 3)}, canonical; normals unit, towards the camera.

        Raises Rejected where the view does not exist or sees no surface, ValueError where depths were not made.
        """
        if "views.depths" not in arrays:
            raise ValueError("completion observes depths; set stages.render_views.depth: true")
        view, depths = self.settings.view, arrays["views.depths"]
        if view >= len(depths):
            raise Rejected(f"there is no view {view}, only 0 to {len(depths) - 1}; change model.view or render more")
        camera = arrays["views.intrinsics"][view].astype(float), arrays["views.extrinsics"][view].astype(float)
        points, normals = surface_seen(depths[view].astype(float), *camera)
        if len(points) == 0:
            raise Rejected(f"view {view} sees no surface")
        chosen = rng.choice(len(points), self.settings.points, replace=len(points) < self.settings.points)
        free = self._free(depths[view].astype(float), camera, rng)
        seen = {"points": points[chosen], "normals": normals[chosen], "free": free}
        return {name: array.astype(np.float32) for name, array in seen.items()}

    def _free(self, depths: np.ndarray, camera: tuple[np.ndarray, np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """Points (M, 3) uniform in depth along random pixels, before the surface and inside the box."""
        count, size, (intrinsics, pose) = 32 * self.settings.points, len(depths), camera
        rows, columns = rng.integers(size, size=(2, count))
        centre = pose[2, 3]  # depth of the origin
        near, far = centre - self.inference.depth_range, centre + self.inference.depth_range
        seen = depths[rows, columns]
        end = np.where(seen > 0, seen - self.inference.offset, far)
        depth = near + rng.random(count) * (end - near)
        points = back_projected(np.column_stack([columns, rows]) + 0.5, depth, intrinsics, pose)
        points = points[(np.abs(points) < HALF_BOX).all(axis=1)]
        if len(points) == 0:
            raise Rejected("the view shows no free space inside the shape's box")
        return points[rng.choice(len(points), self.settings.points, replace=len(points) < self.settings.points)]

    def encode(self, observations: dict[str, Tensor], seeds: Sequence[int]) -> dict[str, Tensor]:
        """{"code": (B, L), "error": (B,)}: the codes that explain what is seen best, and how well they do.

        The error is that of the pairs and of free space under its weight, in the decoder's frame. Raises ValueError for
        other observations than `observe` gives.
        """
        settings, offset = self.inference, self.inference.offset
        points, normals, free = (observed_cloud(observations, name) for name in ("points", "normals", "free"))
        pairs = torch.cat([points + offset * normals, points - offset * normals], dim=1)
        distances = offset * torch.ones_like(points[..., 0])
        distances = torch.cat([distances, -distances], dim=1)
        code = self._beginnings(seeds).to(points.device).requires_grad_()

        def error() -> Tensor:
            blocked = self.parent.network(free * SCALE, code).clamp(-self.parent.settings.clamp, 0).abs().mean(dim=1)
            return self.parent.clamped_l1(code, pairs, distances).mean(dim=1) + settings.free_weight * blocked

        def cost(step: int) -> Tensor:
            return (error() + settings.code_regularisation * code.square().mean(dim=1)).sum()

        descend({"code": code}, cost, settings.rate_at, settings.iterations, self.keeper, seeds)
        code = code.detach()
        with torch.no_grad():
            return {"code": code, "error": error()}

    def figures(self, code: dict[str, Tensor]) -> list[dict[str, float]]:
        """{"fit_error": how well the code explains what is seen, "code_norm": its length}."""
        return fit_figures(code)

    def _beginnings(self, seeds: Sequence[int]) -> Tensor:
        generators = (torch.Generator().manual_seed(seed) for seed in seeds)
        width = self.parent.settings.code
        return self.inference.init_std * torch.stack([torch.randn(width, generator=one) for one in generators])

    def field(self, code: dict[str, Tensor], queries: Tensor) -> Tensor:
        """The parent's."""
        return self.parent.field(code, queries)


def back_projected(pixels: np.ndarray, depths: np.ndarray, intrinsics: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Canonical points (n, 3) seen at places (n, 2), column and row, of an image at depths (n,)."""
    rays = (pixels - intrinsics[:2, 2]) / intrinsics[[0, 1], [0, 1]]
    at = np.column_stack([rays, np.ones(len(rays))]) * depths[:, None]
    return (at - pose[:, 3]) @ pose[:, :3]


def surface_seen(depths: np.ndarray, intrinsics: np.ndarray, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 3) and unit normals (n, 3) towards the camera of a depth image (S, S), rims left out."""
    size = len(depths)
    rows, columns = np.indices((size, size))
    pixels = np.stack([columns, rows], axis=-1).reshape(-1, 2) + 0.5
    points = back_projected(pixels, depths.ravel(), intrinsics, pose).reshape(size, size, 3)
    left, right, above, below = (
        (slice(1, -1), slice(None, -2)),
        (slice(1, -1), slice(2, None)),
        (slice(None, -2), slice(1, -1)),
        (slice(2, None), slice(1, -1)),
    )
    inner = depths[1:-1, 1:-1]
    pixel = inner / intrinsics[0, 0]  # how wide a pixel is at that depth
    whole = inner > 0
    for one, other in ((left, right), (above, below)):
        whole &= (depths[one] > 0) & (depths[other] > 0) & (np.abs(depths[one] - depths[other]) < JUMP * pixel)
    normals = np.cross(points[below] - points[above], points[right] - points[left])[whole]
    points = points[1:-1, 1:-1][whole]
    towards = -(pose[:, 3] @ pose[:, :3]) - points
    normals *= np.sign((normals * towards).sum(axis=1, keepdims=True))
    return points, normals / np.linalg.norm(normals, axis=1, keepdims=True)


def build(
    settings: ModelSettings, inference: InferenceSettings, train_shapes: int, parent: DeepSdf
) -> DeepSdfCompletion:
    return DeepSdfCompletion(settings, inference, parent)
