"""What a method gets to see of a shape: a sparse, noisy cloud of its surface points, or its voxels.

Models name these settings in their heads, so this module loads no library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from pipeline.settings import Settings

if TYPE_CHECKING:
    import numpy as np


class PointCloudSettings(Settings):
    """The observed cloud. Defaults of Occupancy Networks, whose paper calls the noise 0.05, in tenths of the box."""

    points: PositiveInt = 300
    """Points observed per shape."""

    noise: NonNegativeFloat = 0.005
    """Standard deviation of the Gaussian noise on each axis, canonical units."""


class CloudObservation(PointCloudSettings):
    """A noisy point cloud, where a model may observe something else too."""

    kind: Literal["point_cloud"] = "point_cloud"
    """May be left out."""


class VoxelObservation(Settings):
    """A solid occupancy grid over the cube [-0.5, 0.5]^3."""

    kind: Literal["voxels"]
    """Occupancies of cells."""

    resolution: Annotated[int, Field(ge=1, le=512)] = 32
    """Cells along each edge."""


def observation_kind(value: Any) -> str | None:
    """The kind that a block or an instance names, a point cloud where it names none; for pydantic's `Discriminator`."""
    return value.get("kind", "point_cloud") if isinstance(value, dict) else getattr(value, "kind", None)


def observe_point_cloud(
    points: np.ndarray, normals: np.ndarray, settings: PointCloudSettings, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """A random part of the surface points (n, 3), each moved by N(0, noise^2) on each axis.

    Gives {"points": (m, 3), "normals": (m, 3)}, float32, m = settings.points; the normals are those of the unmoved
    points. Drawn without replacement, or with it where n < m. Raises ValueError where the arrays hold no points or do
    not match.
    """
    if len(points) == 0:
        raise ValueError("the shape has no surface points, so there is nothing to observe")
    if points.shape != normals.shape:
        raise ValueError(f"points of shape {points.shape} and normals of shape {normals.shape} do not belong together")
    chosen = rng.choice(len(points), settings.points, replace=len(points) < settings.points)
    moved = points[chosen] + rng.normal(0.0, settings.noise, (settings.points, 3))
    return {"points": moved.astype("float32"), "normals": normals[chosen].astype("float32")}
