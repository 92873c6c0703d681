"""Screened Poisson reconstruction: the surface whose indicator function's gradient fits the oriented points best.

Kazhdan, Hoppe: Screened Poisson Surface Reconstruction, ACM TOG 2013, by open3d's build of the authors' code (Neumann
boundary). Its default point weight is 2; other front ends of the same code use 4. Given normals are those of the true
surface at the points before noise: an advantage over methods that see points only.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from pipeline.models.declaration import Declaration
from pipeline.samples.observation import PointCloudSettings
from pipeline.settings import Settings


class ModelSettings(Settings):
    """Observation and solver."""

    observation: PointCloudSettings = PointCloudSettings()
    """The cloud that is reconstructed."""

    normals: Literal["given", "estimated"] = "given"
    """Normals of the true surface, or estimated from the points: the plane of each point's neighbours, turned to one
    side along a spanning tree (fails on thin parts and separate components)."""

    neighbours: Annotated[int, Field(ge=3)] = 30
    """Nearest points that an estimated normal is fitted to and oriented by; 30 suits noisy clouds, 10 thin parts."""

    depth: Annotated[int, Field(ge=1, le=12)] = 8
    """Depth of the octree; the finest cells are the cube's edge divided by 2^depth. 6 suits 300 to 3000 noisy points,
    9 or 10 more than 100,000."""

    point_weight: NonNegativeFloat = 2.0
    """Weight of passing through the points against fitting their normals; 0 is unscreened."""

    scale: Annotated[PositiveFloat, Field(ge=1)] = 1.1
    """Edge of the solver's cube over the longest edge of the points' box; nothing outside is modelled."""

    trim_quantile: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the vertices, those with the least points around them, that are cut away; leaves an open mesh."""


class InferenceSettings(Settings):
    """All that can be set decides the reconstruction itself and stands in the model's block."""


DECLARATION = Declaration(
    trains="nothing",
    observes="point_cloud",
    quantity="surface",
    training_stages=(),
    observation_stages=("sample_surface",),
    validates=False,
    papers=("Kazhdan and Hoppe, Screened Poisson Surface Reconstruction, ACM Transactions on Graphics 32(3), 2013",),
)

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from pipeline.arrays import Mesh, Rejected
from pipeline.models.contract import Model, ShapeArrays
from pipeline.samples.observation import observe_point_cloud

LEAST_POINTS = 10
LEAST_EXTENT = 1e-6  # canonical units; the solver crashes on points without extent


class Poisson(Model):
    """Screened Poisson as a model that learns nothing."""

    declaration = DECLARATION

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.network = nn.Identity()

    def observe(self, arrays: ShapeArrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """{"points": (M, 3), "normals": (M, 3)}; the normals only where they are given.

        Raises Rejected where the points cannot be reconstructed: too few different ones, without extent, not finite.
        """
        seen = observe_point_cloud(arrays["surface.points"], arrays["surface.normals"], self.settings.observation, rng)
        _require_reconstructible(seen["points"])
        return seen if self.settings.normals == "given" else {"points": seen["points"]}

    def encode(self, observations: dict[str, Tensor], seeds: Sequence[int]) -> dict[str, Tensor]:
        """The observation itself."""
        return observations

    def surface(self, code: dict[str, Tensor]) -> list[Mesh]:
        """The reconstructions, outward; without trimming closed wherever the surface does not leave the cube."""
        clouds = {key: tensor.cpu().numpy() for key, tensor in code.items()}
        normals = clouds.get("normals", [None] * len(clouds["points"]))
        return [reconstruct(*cloud, self.settings) for cloud in zip(clouds["points"], normals, strict=True)]


def reconstruct(points: np.ndarray, normals: np.ndarray | None, settings: ModelSettings) -> Mesh:
    """The Poisson surface of points (M, 3) with normals (M, 3), estimated where None. Raises Rejected as `observe`."""
    import open3d as o3d

    _require_reconstructible(points)
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points.astype(np.float64)))
    if normals is None:
        cloud.estimate_normals(o3d.geometry.KDTreeSearchParamKNN(settings.neighbours))
        cloud.orient_normals_consistent_tangent_plane(settings.neighbours)
    else:
        cloud.normals = o3d.utility.Vector3dVector(normals.astype(np.float64))
    mesh, density = o3d.geometry.TriangleMesh.create_from_point_cloud_poisson(
        cloud, depth=settings.depth, scale=settings.scale, point_weight=settings.point_weight, n_threads=1
    )
    if settings.trim_quantile > 0:
        density = np.asarray(density)
        mesh.remove_vertices_by_mask(density < np.quantile(density, settings.trim_quantile))
    return _outward(Mesh(np.asarray(mesh.vertices), np.asarray(mesh.triangles)))


def _outward(mesh: Mesh) -> Mesh:
    """The mesh with positive volume: normals that all point inward give the same surface with its faces reversed."""
    a, b, c = mesh.triangles.transpose(1, 0, 2)
    sixfold = np.einsum("ij,ij->", a, np.cross(b, c))
    return mesh if sixfold >= 0 else Mesh(mesh.vertices, mesh.faces[:, ::-1])


def _require_reconstructible(points: np.ndarray) -> None:
    if not np.isfinite(points).all():
        raise Rejected("the observed points are not all finite")
    distinct = len(np.unique(points, axis=0))
    if distinct < LEAST_POINTS:
        raise Rejected(f"only {distinct} different points are observed; Poisson needs at least {LEAST_POINTS}")
    extent = np.ptp(points, axis=0).max()
    if extent < LEAST_EXTENT:
        raise Rejected(f"the observed points lie within {extent:.1e} of each other, so they show no surface")


def build(settings: ModelSettings, inference: InferenceSettings, train_shapes: int) -> Poisson:
    return Poisson(settings)
