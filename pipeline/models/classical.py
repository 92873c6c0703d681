"""What the classical reconstructions share: they learn nothing, and their code is the observed cloud itself."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from pipeline.arrays import Mesh, Rejected
from pipeline.models.contract import Model, ShapeArrays, observed_cloud
from pipeline.models.declaration import Declaration
from pipeline.samples.observation import PointCloudSettings, observe_point_cloud

LEAST_POINTS = 10
LEAST_EXTENT = 1e-6  # canonical units; the libraries crash on points without extent


class Classical(Model):
    """A reconstruction from a point cloud, and its normals where `given`."""

    def __init__(self, declaration: Declaration, observation: PointCloudSettings, given: bool) -> None:
        super().__init__()
        self.declaration, self.observation, self.given = declaration, observation, given
        self.network = nn.Identity()

    def observe(self, arrays: ShapeArrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """{"points": (M, 3), "normals": (M, 3)}; the normals only where they are given.

        Raises Rejected where the points cannot be reconstructed: too few different ones, without extent, not finite.
        """
        seen = observe_point_cloud(arrays["surface.points"], arrays["surface.normals"], self.observation, rng)
        require_reconstructible(seen["points"])
        return seen if self.given else {"points": seen["points"]}

    def encode(self, observations: dict[str, Tensor], seeds: Sequence[int]) -> dict[str, Tensor]:
        """The observation itself. Raises ValueError for other arrays than clouds, with normals where they are given."""
        return {name: observed_cloud(observations, name) for name in ("points", "normals")[: 1 + self.given]}

    def surface(self, code: dict[str, Tensor]) -> list[Mesh]:
        """The reconstructions."""
        clouds = {key: tensor.cpu().numpy() for key, tensor in code.items()}
        normals = clouds.get("normals", [None] * len(clouds["points"]))
        return [self.reconstruct(*cloud) for cloud in zip(clouds["points"], normals, strict=True)]

    @abstractmethod
    def reconstruct(self, points: np.ndarray, normals: np.ndarray | None) -> Mesh:
        """The surface of points (M, 3) with normals (M, 3), None where they are not given."""


def oriented_cloud(points: np.ndarray, normals: np.ndarray | None, neighbours: int):
    """An open3d cloud of points (M, 3) with normals (M, 3), estimated where None.

    Estimated are the planes of each point's neighbours, turned to one side along a spanning tree of neighbours (Hoppe
    et al., SIGGRAPH 1992); which of the two sides is left open. Raises Rejected as `require_reconstructible`, and where
    points without normals lie in one plane, which shows no side.
    """
    import open3d as o3d

    require_reconstructible(points)
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points.astype(np.float64)))
    if normals is not None:
        cloud.normals = o3d.utility.Vector3dVector(normals.astype(np.float64))
        return cloud
    require_volume(points)
    cloud.estimate_normals(o3d.geometry.KDTreeSearchParamKNN(neighbours))
    cloud.orient_normals_consistent_tangent_plane(neighbours)
    return cloud


def outward(mesh: Mesh) -> Mesh:
    """The mesh with positive volume about its middle: normals that all point inward wind the same surface backwards."""
    if len(mesh.faces) == 0:
        return mesh
    a, b, c = (mesh.triangles - mesh.bounds.mean(axis=0)).transpose(1, 0, 2)
    sixfold = np.einsum("ij,ij->", a, np.cross(b, c))
    return mesh if sixfold >= 0 else Mesh(mesh.vertices, mesh.faces[:, ::-1])


def require_reconstructible(points: np.ndarray) -> None:
    """Raise Rejected for points (M, 3) of which too few differ, that have no extent or are not finite."""
    if not np.isfinite(points).all():
        raise Rejected("the observed points are not all finite")
    distinct = len(np.unique(points, axis=0))
    if distinct < LEAST_POINTS:
        raise Rejected(
            f"only {distinct} different points are observed; a surface needs at least {LEAST_POINTS}: raise "
            f"model.observation.points"
        )
    extent = np.ptp(points, axis=0).max()
    if extent < LEAST_EXTENT:
        raise Rejected(f"the observed points lie within {extent:.1e} of each other, so they show no surface")


def require_volume(points: np.ndarray) -> None:
    """Raise Rejected for points (M, 3) that all lie in one plane."""
    spread = np.linalg.svd(points - points.mean(axis=0, dtype=np.float64), compute_uv=False)[-1] / len(points) ** 0.5
    if spread < LEAST_EXTENT:
        raise Rejected("the observed points lie in one plane, so they enclose nothing and show no side")


def spacing(points: np.ndarray) -> float:
    """Mean distance of the different ones of points (M, 3) to their nearest neighbour."""
    from scipy.spatial import KDTree

    different = np.unique(points.astype(np.float64), axis=0)
    return float(KDTree(different).query(different, k=2)[0][:, 1].mean())
