"""Screened Poisson reconstruction: the surface whose indicator function's gradient fits the oriented points best.

Kazhdan, Hoppe: Screened Poisson Surface Reconstruction, ACM TOG 2013, by open3d's build of the authors' code (Neumann
boundary). Its default point weight is 2; other front ends of the same code use 4. Given normals are those of the true
surface at the points before noise: an advantage over methods that see points only.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from pipeline.models.declaration import Declaration
from pipeline.models.stage_checks import missing_points
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


def check_stages(settings: ModelSettings, inference: InferenceSettings, stages: Settings) -> str | None:
    """What the data stages do not give of what is observed, or None."""
    return missing_points(settings.observation.points, stages)


import numpy as np

from pipeline.arrays import Mesh
from pipeline.models.classical import Classical, oriented_cloud, outward


class Poisson(Classical):
    """Screened Poisson as a model that learns nothing."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(DECLARATION, settings.observation, settings.normals == "given")
        self.settings = settings

    def reconstruct(self, points: np.ndarray, normals: np.ndarray | None) -> Mesh:
        """The Poisson surface of points (M, 3) with normals (M, 3), estimated where None."""
        return reconstruct(points, normals, self.settings)


def reconstruct(points: np.ndarray, normals: np.ndarray | None, settings: ModelSettings) -> Mesh:
    """The Poisson surface of points (M, 3) with normals (M, 3), estimated where None.

    Outward, and without trimming closed wherever it does not leave the solver's cube. Raises Rejected as
    `oriented_cloud`.
    """
    import open3d as o3d

    cloud = oriented_cloud(points, normals, settings.neighbours)
    mesh, density = o3d.geometry.TriangleMesh.create_from_point_cloud_poisson(
        cloud, depth=settings.depth, scale=settings.scale, point_weight=settings.point_weight, n_threads=1
    )
    if settings.trim_quantile > 0:
        density = np.asarray(density)
        mesh.remove_vertices_by_mask(density < np.quantile(density, settings.trim_quantile))
    return outward(Mesh(np.asarray(mesh.vertices), np.asarray(mesh.triangles)))


def build(settings: ModelSettings, inference: InferenceSettings, train_shapes: int) -> Poisson:
    return Poisson(settings)
