import numpy as np
import pytest

from pipeline.arrays import Mesh
from pipeline.geometry.closest import Scene, closest_points, distance, morton_order, signed_distance
from tests import solids

RNG = np.random.default_rng(7)
POINTS = RNG.uniform(-0.6, 0.6, (4000, 3)).astype(np.float32)


def test_signed_distance_of_three_boxes_is_exact_point_by_point():
    found = signed_distance(solids.three_boxes(), POINTS)
    assert found.dtype == np.float32
    assert found.shape == (4000,)
    np.testing.assert_allclose(found, solids.three_boxes_sdf(POINTS), atol=2e-7)


def test_distance_is_the_size_of_the_signed_distance():
    np.testing.assert_array_equal(
        distance(solids.three_boxes(), POINTS), np.abs(signed_distance(solids.three_boxes(), POINTS))
    )


def test_closest_points_lie_on_the_surface_at_the_distance():
    mesh = solids.three_boxes()
    found = closest_points(mesh, POINTS)
    np.testing.assert_allclose(np.linalg.norm(found - POINTS, axis=1), distance(mesh, POINTS), atol=1e-6)
    np.testing.assert_allclose(solids.three_boxes_sdf(found), 0, atol=1e-6)


@pytest.mark.parametrize(
    ("mesh", "sdf", "error"),
    [
        (solids.icosphere(0.4, (0.1, 0.02, -0.05), 5), lambda p: solids.sphere_sdf(p, 0.4, (0.1, 0.02, -0.05)), 3e-4),
        (solids.torus(0.3, 0.12), lambda p: solids.torus_sdf(p, 0.3, 0.12), 6e-4),
    ],
)
def test_signed_distance_of_a_tessellated_solid_is_within_the_tessellation(mesh, sdf, error):
    np.testing.assert_allclose(signed_distance(mesh, POINTS), sdf(POINTS), atol=error)


def test_answers_come_in_the_order_of_the_questions():
    mesh, order = solids.three_boxes(), RNG.permutation(len(POINTS))
    np.testing.assert_array_equal(signed_distance(mesh, POINTS[order]), signed_distance(mesh, POINTS)[order])


def test_faces_without_area_do_not_disturb_the_distance():
    mesh = solids.three_boxes()
    a, b, _ = mesh.faces[0]
    spoiled = Mesh(mesh.vertices, np.concatenate([mesh.faces, [[a, a, b], [a, b, b], [b, b, b]]]))
    np.testing.assert_array_equal(signed_distance(spoiled, POINTS), signed_distance(mesh, POINTS))


def test_a_mesh_without_area_is_refused():
    with pytest.raises(ValueError, match="no face of positive area"):
        Scene(Mesh([[0, 0, 0], [1, 1, 1], [2, 2, 2]], [[0, 1, 2]]))


def test_no_points_give_no_answers():
    nothing = np.zeros((0, 3))
    assert signed_distance(solids.box(), nothing).shape == (0,)
    assert closest_points(solids.box(), nothing).shape == (0, 3)


def test_rays_that_start_inside_a_closed_solid_are_blocked_and_outward_ones_are_free():
    inside, outside = np.zeros((1, 3)), np.array([[2.0, 0.1, 0.1]])
    scene = Scene(solids.box())
    assert scene.blocked(inside, np.array([[0.3, 0.5, 0.8]]))[0]
    assert not scene.blocked(outside, np.array([[1.0, 0, 0]]))[0]
    assert scene.blocked(outside, np.array([[-1.0, 0, 0]]))[0]


def test_morton_order_is_a_permutation_that_keeps_neighbours_together():
    order = morton_order(POINTS)
    np.testing.assert_array_equal(np.sort(order), np.arange(len(POINTS)))
    step = np.linalg.norm(np.diff(POINTS, axis=0), axis=1).mean()
    assert np.linalg.norm(np.diff(POINTS[order], axis=0), axis=1).mean() < step / 4
