"""Inputs measured as if they were reconstructions (IF-Net)."""

import numpy as np
import pytest

from pipeline.evaluation.inputs import evaluate_input, voxel_mesh
from pipeline.geometry.measures import area, volume
from pipeline.geometry.quality import is_watertight
from pipeline.geometry.sampling import points_on_surface
from tests import solids


def test_voxels_become_the_outer_faces_of_their_cells():
    grid = np.zeros((4, 4, 4), bool)
    grid[0, 1:3, 2] = True  # two cells side by side, at the lower end of x
    mesh = voxel_mesh(grid)
    assert len(mesh.faces) == 2 * 10 and is_watertight(mesh)
    np.testing.assert_allclose(mesh.bounds, [[-0.5, -0.25, 0.0], [-0.25, 0.25, 0.25]])
    assert volume(mesh) == pytest.approx(2 / 64) and area(mesh) == pytest.approx(10 / 16)


def test_a_full_grid_is_the_unit_cube_and_an_empty_one_nothing():
    assert volume(voxel_mesh(np.ones((3, 3, 3)))) == pytest.approx(1)
    assert len(voxel_mesh(np.zeros((3, 3, 3))).faces) == 0
    with pytest.raises(ValueError, match="a voxel grid is a cube"):
        voxel_mesh(np.zeros((3, 3, 4)))


def reference():
    rng = np.random.default_rng(0)
    samples = points_on_surface(solids.three_boxes(), 20_000, rng)
    asked = rng.random((20_000, 3)) - 0.5
    surface = dict(zip(("points", "normals"), samples, strict=True))
    return surface, {"points": asked, "occupancies": solids.three_boxes_inside(asked)}


def test_a_grid_is_measured_like_a_mesh():
    surface, labelled = reference()
    centres = (np.stack(np.meshgrid(*[np.arange(32)] * 3, indexing="ij"), axis=-1) + 0.5) / 32 - 0.5
    grid = solids.three_boxes_inside(centres.reshape(-1, 3)).reshape(32, 32, 32)
    row = evaluate_input({"voxels": grid}, surface, labelled, np.random.default_rng(1))
    assert 0.7 < row["input_iou"] < 1 and row["input_chamfer_l1"] < 0.02 and row["input_normal_consistency"] > 0.8
    assert evaluate_input({"voxels": np.zeros((8, 8, 8))}, surface, labelled, np.random.default_rng(1)) == {}


def test_a_cloud_is_accurate_and_sparse_and_has_neither_normals_nor_an_inside():
    surface, labelled = reference()
    cloud = points_on_surface(solids.three_boxes(), 300, np.random.default_rng(3))[0]
    row = evaluate_input({"points": cloud}, surface, labelled, np.random.default_rng(1))
    assert row["input_completeness"] > 3 * row["input_accuracy"]
    assert np.isnan(row["input_iou"]) and np.isnan(row["input_normal_consistency"])
    assert evaluate_input({"points": cloud, "sdf": cloud[:, 0]}, surface, labelled, np.random.default_rng(1)) == {}
    assert list(evaluate_input({"points": cloud}, None, labelled, np.random.default_rng(1))) == ["input_iou"]
