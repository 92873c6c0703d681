"""Ball pivoting: triangles of points between which a ball that rolls over the cloud comes to rest.

Bernardini, Mittleman, Rushmeier, Silva, Taubin: The Ball-Pivoting Algorithm for Surface Reconstruction, IEEE TVCG 1999,
by open3d. The mesh passes through the points themselves, noise and all, and is open wherever no ball rests, so it has
volume metrics only where it happens to close. Given normals are those of the true surface at the points before noise.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from pipeline.models.declaration import Declaration
from pipeline.models.stage_checks import missing_points
from pipeline.samples.observation import PointCloudSettings
from pipeline.settings import Settings


class ModelSettings(Settings):
    """Observation and balls."""

    observation: PointCloudSettings = PointCloudSettings()
    """The cloud that is reconstructed."""

    normals: Literal["given", "estimated"] = "given"
    """Normals of the true surface, or estimated from the points and turned to one side (fails on thin parts and
    separate components). A ball rests only on points whose normals look to its side."""

    neighbours: Annotated[int, Field(ge=3)] = 30
    """Nearest points that an estimated normal is fitted to and oriented by."""

    radii: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (1.0, 2.0, 4.0)
    """Radii of the balls, rolled one after the other, in mean distances between a point and its nearest neighbour."""


class InferenceSettings(Settings):
    """All that can be set decides the reconstruction itself and stands in the model's block."""


DECLARATION = Declaration(
    trains="nothing",
    observes="point_cloud",
    quantity="surface",
    training_stages=(),
    observation_stages=("sample_surface",),
    validates=False,
    papers=(
        "Bernardini, Mittleman, Rushmeier, Silva and Taubin, The Ball-Pivoting Algorithm for Surface Reconstruction, "
        "IEEE Transactions on Visualization and Computer Graphics 5(4), 1999",
    ),
)


def check_stages(settings: ModelSettings, inference: InferenceSettings, stages: Settings) -> str | None:
    """What the data stages do not give of what is observed, or None."""
    return missing_points(settings.observation.points, stages)


import numpy as np

from pipeline.arrays import Mesh, Rejected
from pipeline.models.classical import Classical, oriented_cloud, outward, spacing


class BallPivoting(Classical):
    """Ball pivoting as a model that learns nothing."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(DECLARATION, settings.observation, settings.normals == "given")
        self.settings = settings

    def reconstruct(self, points: np.ndarray, normals: np.ndarray | None) -> Mesh:
        """The pivoted surface of points (M, 3) with normals (M, 3), estimated where None."""
        return reconstruct(points, normals, self.settings)


def reconstruct(points: np.ndarray, normals: np.ndarray | None, settings: ModelSettings) -> Mesh:
    """The surface of points (M, 3) with normals (M, 3), estimated where None; wound by the normals, often open.

    Estimated normals give the side on which the volume is positive. Raises Rejected where no ball rests, and as
    `oriented_cloud`.
    """
    import open3d as o3d

    cloud = oriented_cloud(points, normals, settings.neighbours)
    radii = [factor * spacing(points) for factor in settings.radii]
    mesh = o3d.geometry.TriangleMesh.create_from_point_cloud_ball_pivoting(cloud, o3d.utility.DoubleVector(radii))
    faces = np.asarray(mesh.triangles)
    if len(faces) == 0:
        sizes = ", ".join(f"{radius:.3g}" for radius in radii)
        raise Rejected(f"no ball of radius {sizes} rests on the observed points; change model.radii")
    whole = Mesh(np.asarray(mesh.vertices), faces)
    return whole if normals is not None else outward(whole)


def build(settings: ModelSettings, inference: InferenceSettings, train_shapes: int) -> BallPivoting:
    return BallPivoting(settings)
