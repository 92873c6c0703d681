"""Ball pivoting against spheres and blocks without symmetry, and clouds on which no ball rests."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.arrays import Mesh, Rejected
from pipeline.geometry import quality
from pipeline.models.ball_pivoting import ModelSettings, reconstruct
from tests.models.shapes import block_arrays, blocks_sdf, tiny_model


def sphere_cloud(count: int = 2000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    normals = np.random.default_rng(seed).normal(size=(count, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return 0.4 * normals, normals


def outwardness(mesh: Mesh) -> np.ndarray:
    """Cosine (f,) between each face's normal and the direction from the origin."""
    a, b, c = mesh.triangles.transpose(1, 0, 2)
    normals, middles = np.cross(b - a, c - a), (a + b + c) / 3
    lengths = np.linalg.norm(normals, axis=1) * np.linalg.norm(middles, axis=1)
    return np.einsum("ij,ij->i", normals, middles) / lengths


def test_a_dense_clean_sphere_passes_through_all_points_and_closes():
    points, normals = sphere_cloud()
    mesh = reconstruct(points, normals, ModelSettings(radii=(1.0, 2.0, 4.0, 8.0)))
    assert {tuple(v) for v in mesh.vertices} == {tuple(p) for p in points}
    assert quality.is_watertight(mesh)
    assert quality.euler_characteristic(mesh) == 2
    assert outwardness(mesh).min() > 0.8


def test_a_ball_that_is_too_small_leaves_the_mesh_open():
    mesh = reconstruct(*sphere_cloud(), ModelSettings(radii=(1.5,)))
    assert len(mesh.faces) > 1000
    assert quality.edge_counts(mesh)["boundary"] > 100


@pytest.mark.parametrize("sign", [1, -1])
def test_faces_turn_to_the_side_of_the_given_normals(sign):
    points, normals = sphere_cloud(1000)
    mesh = reconstruct(points, sign * normals, ModelSettings())
    assert (sign * outwardness(mesh)).min() > 0


def test_estimated_normals_lead_outward():
    points, _ = sphere_cloud(1000)
    mesh = reconstruct(points, None, ModelSettings(normals="estimated"))
    assert len(mesh.faces) > 1500
    assert outwardness(mesh).min() > 0


def test_off_centre_blocks_are_found_where_they_are():
    model = tiny_model("ball_pivoting", observation={"points": 4000, "noise": 0.0})
    seen = model.observe(block_arrays(count=4000), np.random.default_rng(0))
    mesh = model.reconstruct(seen["points"], seen["normals"])
    a, b, c = mesh.triangles.transpose(1, 0, 2)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    sides = [(0.60, 0.36, 0.30), (0.30, 0.50, 0.40), (0.36, 0.30, 0.50)]
    assert area == pytest.approx(sum(2 * (x * y + y * z + z * x) for x, y, z in sides), rel=0.1)
    assert np.abs(blocks_sdf(mesh.triangles.mean(axis=1))).mean() < 0.002


def test_same_cloud_gives_the_same_bits():
    points, _ = sphere_cloud(300)
    one, other = (reconstruct(points, None, ModelSettings()) for _ in range(2))
    np.testing.assert_array_equal(one.faces, other.faces)


def test_a_cloud_on_which_no_ball_rests_is_rejected():
    points, normals = sphere_cloud(200)
    with pytest.raises(Rejected, match=r"no ball of radius 0\.\d+ rests on the observed points; change model\.radii"):
        reconstruct(points, normals, ModelSettings(radii=(0.01,)))
    line = np.linspace(-0.5, 0.5, 50)[:, None] * [1.0, 0, 0]
    with pytest.raises(Rejected, match="no ball"):
        reconstruct(line, np.tile([0, 0, 1.0], (50, 1)), ModelSettings())


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        (np.full((50, 3), 0.1), "only 1 different points"),
        (np.linspace(0, 1e-8, 60).reshape(20, 3), "show no surface"),
        (np.where(np.eye(20, 3) > 0, np.nan, 0.0), "not all finite"),
        (np.random.default_rng(0).random((50, 3)) * [1, 1, 0], "lie in one plane"),
    ],
)
def test_clouds_without_a_surface_are_rejected(points, reason):
    with pytest.raises(Rejected, match=reason):
        reconstruct(points, None, ModelSettings(normals="estimated"))
