"""Screened Poisson against spheres, a shape without symmetry, and clouds that cannot be reconstructed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.arrays import Mesh, Rejected
from pipeline.models.contract import stack_observations
from pipeline.models.poisson import ModelSettings, reconstruct
from tests.models.shapes import block_arrays, blocks_sdf, tiny_model
from tests.solids import sphere_volume


def sphere_cloud(count: int = 3000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    normals = np.random.default_rng(seed).normal(size=(count, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return (0.4 * normals).astype(np.float32), normals.astype(np.float32)


def volume(mesh: Mesh) -> float:
    a, b, c = mesh.triangles.transpose(1, 0, 2)
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def is_closed(mesh: Mesh) -> bool:
    """Every directed edge has exactly one partner in the other direction."""
    edges = np.concatenate([mesh.faces[:, [i, (i + 1) % 3]] for i in range(3)])
    forth, back = (np.sort(e[:, 0].astype(np.int64) * 2**32 + e[:, 1]) for e in (edges, edges[:, ::-1]))
    return len(np.unique(forth)) == len(forth) and np.array_equal(forth, back)


@pytest.mark.parametrize(("depth", "vertices"), [(6, 4691), (8, 10303)])
def test_sphere_is_met_as_measured(depth, vertices):
    mesh = reconstruct(*sphere_cloud(), ModelSettings(depth=depth))
    radii = np.linalg.norm(mesh.vertices, axis=1)
    assert np.abs(radii - 0.4).mean() < 4e-4
    assert np.abs(radii - 0.4).max() < 4e-3
    assert len(mesh.vertices) == pytest.approx(vertices, rel=0.1)
    assert len(mesh.vertices) - len(mesh.faces) / 2 == 2  # Euler characteristic of a closed sphere
    assert is_closed(mesh)
    assert volume(mesh) == pytest.approx(sphere_volume(0.4), rel=5e-3)


def test_same_cloud_gives_the_same_bits():
    cloud = sphere_cloud(500)
    one, other = (reconstruct(cloud[0], None, ModelSettings(depth=5)) for _ in range(2))
    np.testing.assert_array_equal(one.vertices, other.vertices)
    np.testing.assert_array_equal(one.faces, other.faces)


def test_inward_normals_give_the_same_surface_outward():
    points, normals = sphere_cloud(1000)
    right, wrong = (reconstruct(points, sign * normals, ModelSettings(depth=5)) for sign in (1, -1))
    assert volume(right) > 0
    assert volume(wrong) == pytest.approx(volume(right), rel=1e-4)


def test_estimated_normals_reach_nearly_the_given_ones():
    points, _ = sphere_cloud()
    mesh = reconstruct(points, None, ModelSettings(depth=6))
    assert np.abs(np.linalg.norm(mesh.vertices, axis=1) - 0.4).mean() < 1e-3
    assert volume(mesh) == pytest.approx(sphere_volume(0.4), rel=0.01)


def test_off_centre_blocks_are_found_where_they_are():
    model = tiny_model("poisson", depth=7, observation={"points": 4000, "noise": 0.0})
    observation = model.observe(block_arrays(count=4000), np.random.default_rng(0))
    mesh = model.surface(model.encode(stack_observations([observation], torch.device("cpu")), [0]))[0]
    assert np.abs(blocks_sdf(mesh.vertices)).mean() < 0.005
    assert volume(mesh) == pytest.approx(0.60 * 0.36 * 0.30 + 0.30 * 0.50 * 0.40 + 0.36 * 0.30 * 0.50, rel=0.03)


def test_trimming_cuts_the_vertices_among_the_sparsest_points_away():
    points, normals = sphere_cloud()
    kept = (points[:, 2] < 0.2) | (np.arange(len(points)) % 10 == 0)
    closed = reconstruct(points[kept], normals[kept], ModelSettings(depth=5))
    trimmed = reconstruct(points[kept], normals[kept], ModelSettings(depth=5, trim_quantile=0.05))
    removed = {tuple(v) for v in closed.vertices} - {tuple(v) for v in trimmed.vertices}
    assert is_closed(closed) and not is_closed(trimmed)
    assert len(removed) == pytest.approx(0.05 * len(closed.vertices), rel=0.1)
    assert np.mean([z > 0.15 for _, _, z in removed]) > 0.95


def test_normals_are_observed_only_where_they_are_given():
    arrays = block_arrays(count=500)
    given, estimated = (tiny_model("poisson", normals=kind) for kind in ("given", "estimated"))
    assert set(given.observe(arrays, np.random.default_rng(0))) == {"points", "normals"}
    assert set(estimated.observe(arrays, np.random.default_rng(0))) == {"points"}


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        (np.full((50, 3), 0.1), "only 1 different points"),
        (np.eye(3)[[0, 1, 2] * 10], "only 3 different points"),
        (np.linspace(0, 1e-8, 60).reshape(20, 3), "show no surface"),
        (np.where(np.eye(20, 3) > 0, np.nan, 0.0), "not all finite"),
    ],
)
def test_clouds_without_a_surface_are_rejected(points, reason):
    normals = np.tile(np.float32([0, 0, 1]), (len(points), 1))
    arrays = {"surface.points": points.astype(np.float32), "surface.normals": normals}
    model = tiny_model("poisson", observation={"points": 20, "noise": 0.0})
    with pytest.raises(Rejected, match=reason):
        model.observe(arrays, np.random.default_rng(0))


def test_points_of_one_plane_show_no_side_to_turn_normals_to():
    points = np.random.default_rng(0).random((50, 3)) * [1, 1, 0]
    with pytest.raises(Rejected, match="lie in one plane"):
        reconstruct(points, None, ModelSettings(depth=4, normals="estimated"))
