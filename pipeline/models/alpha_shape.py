"""Alpha shapes: the outside of those Delaunay tetrahedra of the points whose circumscribed spheres are small.

Edelsbrunner and Muecke: Three-Dimensional Alpha Shapes, ACM TOG 1994, from open3d's tetrahedra. Triangles that belong
to no such tetrahedron are left out, so the surface bounds a solid. open3d's own function gives the same triangles, but
winds them at random; here they are wound outward.

The surface is closed in that every edge has an even number of faces, but edges and vertices where parts of the solid
merely touch are not manifold. It passes through the points themselves, noise and all. Normals are not used.
"""

from __future__ import annotations

from pydantic import PositiveFloat

from pipeline.models.declaration import Declaration
from pipeline.models.stage_checks import missing_points
from pipeline.samples.observation import PointCloudSettings
from pipeline.settings import Settings


class ModelSettings(Settings):
    """Observation and size of the spheres."""

    observation: PointCloudSettings = PointCloudSettings()
    """The cloud that is reconstructed."""

    alpha: PositiveFloat = 3.0
    """Largest radius of a sphere around a tetrahedron of the solid, in mean distances between a point and its nearest
    neighbour. Small: holes and hollows; large: gaps are filled, in the end up to the convex hull."""


class InferenceSettings(Settings):
    """All that can be set decides the reconstruction itself and stands in the model's block."""


DECLARATION = Declaration(
    trains="nothing",
    observes="point_cloud",
    quantity="surface",
    training_stages=(),
    observation_stages=("sample_surface",),
    validates=False,
    papers=("Edelsbrunner and Muecke, Three-Dimensional Alpha Shapes, ACM Transactions on Graphics 13(1), 1994",),
)


def check_stages(settings: ModelSettings, inference: InferenceSettings, stages: Settings) -> str | None:
    """What the data stages do not give of what is observed, or None."""
    return missing_points(settings.observation.points, stages)


import numpy as np

from pipeline.arrays import Mesh, Rejected
from pipeline.models.classical import Classical, require_reconstructible, require_volume, spacing

OPPOSITE = np.array([[1, 2, 3], [0, 3, 2], [0, 1, 3], [0, 2, 1]])  # outward faces of a tetrahedron of positive volume


class AlphaShape(Classical):
    """Alpha shapes as a model that learns nothing."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(DECLARATION, settings.observation, given=False)
        self.settings = settings

    def reconstruct(self, points: np.ndarray, normals: np.ndarray | None) -> Mesh:
        """The alpha shape of points (M, 3); normals are not looked at."""
        return reconstruct(points, self.settings)


def reconstruct(points: np.ndarray, settings: ModelSettings) -> Mesh:
    """The alpha shape of points (M, 3), outward.

    Raises Rejected where no tetrahedron is small enough, where the points lie in one plane, and as
    `require_reconstructible`.
    """
    import open3d as o3d

    require_reconstructible(points)
    require_volume(points)
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(np.unique(points.astype(np.float64), axis=0)))
    solid, _ = o3d.geometry.TetraMesh.create_from_point_cloud(cloud)
    vertices, tetrahedra = np.asarray(solid.vertices), np.asarray(solid.tetras)
    radius = settings.alpha * spacing(points)
    kept = tetrahedra[circumradii(vertices[tetrahedra]) < radius]
    if len(kept) == 0:
        raise Rejected(
            f"no tetrahedron of the observed points fits into a sphere of radius {radius:.3g}; raise model.alpha"
        )
    return _compact(vertices, boundary(vertices, kept))


def circumradii(corners: np.ndarray) -> np.ndarray:
    """Radii (t,) of the spheres through the corners (t, 4, 3) of tetrahedra; infinite for flat ones."""
    a, b, c = (corners[:, 1:] - corners[:, :1]).transpose(1, 0, 2)
    squares = [np.einsum("ij,ij->i", edge, edge)[:, None] for edge in (a, b, c)]
    top = squares[0] * np.cross(b, c) + squares[1] * np.cross(c, a) + squares[2] * np.cross(a, b)
    volume = np.abs(np.einsum("ij,ij->i", a, np.cross(b, c)))
    length = np.linalg.norm(top, axis=1)
    return np.divide(length, 2 * volume, out=np.full(len(corners), np.inf), where=volume > 0)


def boundary(vertices: np.ndarray, tetrahedra: np.ndarray) -> np.ndarray:
    """Faces (f, 3) that belong to one of the tetrahedra (t, 4) only, seen counter-clockwise from outside it."""
    a, b, c = (vertices[tetrahedra[:, 1:]] - vertices[tetrahedra[:, :1]]).transpose(1, 0, 2)
    negative = np.einsum("ij,ij->i", a, np.cross(b, c)) < 0
    tetrahedra = np.where(negative[:, None], tetrahedra[:, [0, 1, 3, 2]], tetrahedra)
    faces = tetrahedra[:, OPPOSITE].reshape(-1, 3)
    _, first, uses = np.unique(np.sort(faces, axis=1), axis=0, return_index=True, return_counts=True)
    return faces[np.sort(first[uses == 1])]


def _compact(vertices: np.ndarray, faces: np.ndarray) -> Mesh:
    used, renumbered = np.unique(faces, return_inverse=True)
    return Mesh(vertices[used], renumbered.reshape(-1, 3))


def build(settings: ModelSettings, inference: InferenceSettings, train_shapes: int) -> AlphaShape:
    return AlphaShape(settings)
