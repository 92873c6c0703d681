"""Points on a surface: uniform by area, on the faces, with their normals."""

import numpy as np
import pytest

from pipeline.arrays import Mesh
from pipeline.geometry.sampling import points_on_surface
from tests import solids


def draw(mesh, count, seed=0):
    return points_on_surface(mesh, count, np.random.default_rng(seed))


def test_points_lie_on_the_surface_and_normals_point_outward():
    points, normals = draw(solids.three_boxes(), 5_000)
    assert np.abs(solids.three_boxes_sdf(points)).max() < 1e-12
    np.testing.assert_allclose(solids.three_boxes_sdf(points + 1e-4 * normals), 1e-4, atol=1e-9)


def test_each_part_gets_its_share_of_points_and_its_centre():
    points, _ = draw(solids.three_boxes(), 60_000)
    for extents, centre in solids.THREE_BOXES:
        own = points[np.abs(solids.box_sdf(points, extents, centre)) < 1e-9]
        assert len(own) / 60_000 == pytest.approx(solids.box_area(extents) / solids.three_boxes_area(), rel=0.03)
        np.testing.assert_allclose(own.mean(axis=0), centre, atol=0.004)


def test_a_triangle_is_covered_evenly():
    points, _ = draw(Mesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]]), 40_000)
    assert (points[:, :2].sum(axis=1) <= 1 + 1e-12).all()
    for corner in ([0, 0], [0.5, 0], [0, 0.5]):  # each a quarter of the area
        local = points[:, :2] - corner
        share = ((local >= 0).all(axis=1) & (local.sum(axis=1) < 0.5)).mean()
        assert share == pytest.approx(0.25, abs=0.01)


def test_faces_without_area_are_never_hit():
    box = solids.box()
    vertices = np.concatenate([box.vertices, [[9.0, 9, 9]]])
    degenerate = Mesh(vertices, np.concatenate([[[8, 8, 8]], box.faces, [[8, 8, 8], [0, 0, 8]]]))
    points, normals = draw(degenerate, 2_000)
    assert np.abs(points).max() <= 0.5 + 1e-12
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1)


def test_a_seed_gives_the_same_points():
    first, again, other = (draw(solids.torus(), 100, seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("faces", [np.zeros((0, 3)), [[0, 0, 1]]])
def test_a_surface_without_area_is_refused(faces):
    with pytest.raises(ValueError, match="no point lies on the mesh"):
        draw(Mesh(np.eye(3), faces), 10)
