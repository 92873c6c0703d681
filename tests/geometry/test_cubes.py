import numpy as np
import pytest

from pipeline.arrays import Rejected
from pipeline.geometry.cubes import isosurface
from pipeline.geometry.inside import occupancy
from pipeline.geometry.measures import volume
from pipeline.geometry.quality import is_watertight, nonmanifold_vertices, self_intersections
from tests import solids

LOW, HIGH = np.array([-0.6, -0.55, -0.5]), np.array([0.6, 0.5, 0.45])


def lattice(shape, low=LOW, high=HIGH) -> np.ndarray:
    axes = [np.linspace(a, b, n) for a, b, n in zip(low, high, shape, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def sampled(sdf, shape=(40, 44, 48)) -> np.ndarray:
    return sdf(lattice(shape).reshape(-1, 3)).reshape(shape)


def test_sphere_is_centred_at_the_origin():
    grid = lattice((64, 64, 64), [-0.5] * 3, [0.5] * 3)
    mesh = isosurface(np.linalg.norm(grid, axis=-1) - 0.3, 0, -0.5, 0.5, "below")
    np.testing.assert_allclose(mesh.bounds.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(mesh.vertices.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(mesh.vertices, axis=1), 0.3, atol=2e-4)


def test_vertices_lie_on_an_oblique_plane_exactly():
    normal = np.array([0.4, -0.5, 0.77])
    values = lattice((20, 24, 28)) @ normal - 0.05
    mesh = isosurface(values, 0, LOW, HIGH, "below")
    within = ((mesh.vertices > LOW + 1e-9) & (mesh.vertices < HIGH - 1e-9)).all(axis=1)
    assert within.sum() > 500
    np.testing.assert_allclose(mesh.vertices[within] @ normal, 0.05, atol=1e-6)


def test_three_boxes_come_back_in_place_point_by_point():
    shape = (120, 105, 95)
    mesh = isosurface(sampled(solids.three_boxes_sdf, shape), 0, LOW, HIGH, "below")
    points = np.random.default_rng(3).uniform(-0.45, 0.45, (5000, 3))
    sdf = solids.three_boxes_sdf(points)
    clear = np.abs(sdf) > 0.006  # more than half a voxel, which corners lose
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(occupancy(mesh, points)[clear], sdf[clear] < 0)


def test_above_and_below_give_the_same_surface():
    values = sampled(solids.torus_sdf)
    below, above = isosurface(values, 0.01, LOW, HIGH, "below"), isosurface(-values, -0.01, LOW, HIGH, "above")
    np.testing.assert_array_equal(below.vertices, above.vertices)
    np.testing.assert_array_equal(below.faces, above.faces)


@pytest.mark.parametrize("scale", [1e-9, 1, 1e9])
def test_surface_is_a_closed_outward_manifold_of_the_right_volume(scale):
    mesh = isosurface(sampled(solids.torus_sdf) * scale, 0, LOW, HIGH, "below")
    assert is_watertight(mesh)
    assert nonmanifold_vertices(mesh) == 0
    assert self_intersections(mesh) == 0
    assert volume(mesh) == pytest.approx(solids.torus_volume(0.35, 0.15), rel=0.01)


@pytest.mark.parametrize("scale", [1e-9, 1, 1e9])
def test_noise_gives_a_closed_surface(scale):
    values = np.random.default_rng(0).normal(size=(24, 25, 26)) * scale
    mesh = isosurface(values, 0, -1, 1, "below")
    assert is_watertight(mesh)
    assert volume(mesh) > 0


def test_values_on_the_level_leave_no_holes_and_count_as_outside():
    values = np.random.default_rng(0).integers(-1, 2, (20, 20, 20)).astype(float)
    assert (values == 0).sum() > 2000
    mesh = isosurface(values, 0, -1, 1, "below")
    assert is_watertight(mesh)
    inside = occupancy(mesh, lattice((20, 20, 20), [-1] * 3, [1] * 3).reshape(-1, 3))
    np.testing.assert_array_equal(inside, (values < 0).reshape(-1))


def test_a_box_through_many_samples_is_moved_by_no_more_than_a_thousandth_of_a_voxel():
    values = np.round(sampled(lambda p: solids.box_sdf(p, (0.6, 0.5, 0.4)), (49, 43, 39)), 12)
    assert (values == 0).sum() > 1000
    mesh = isosurface(values, 0, LOW, HIGH, "below")
    assert is_watertight(mesh)
    np.testing.assert_allclose(mesh.bounds, [[-0.3, -0.25, -0.2], [0.3, 0.25, 0.2]], atol=1e-3 / 40)


def test_binary_occupancy_is_closed_and_half_a_voxel_off_the_last_inside_samples():
    values = np.zeros((9, 9, 9))
    values[2:5, 3:6, 4:8] = 1
    mesh = isosurface(values, 0.5, 0, 8, "above")
    assert is_watertight(mesh)
    np.testing.assert_allclose(mesh.bounds, [[1.5, 2.5, 3.5], [4.5, 5.5, 7.5]])


def test_inside_that_reaches_the_border_is_closed_half_a_voxel_beyond():
    values = np.ones((5, 5, 5))
    values[2, 2, 2] = 0  # a void, without which the field would be full
    mesh = isosurface(values, 0.5, 0, 4, "above")
    assert is_watertight(mesh)
    np.testing.assert_allclose(mesh.bounds, [[-0.5] * 3, [4.5] * 3])


def test_integer_and_float32_fields_are_taken():
    values = (sampled(solids.torus_sdf) < 0).astype(np.uint8)
    assert is_watertight(isosurface(values, 0.5, LOW, HIGH, "above"))
    single = isosurface(sampled(solids.torus_sdf).astype(np.float32), 0, LOW, HIGH, "below")
    double = isosurface(sampled(solids.torus_sdf), 0, LOW, HIGH, "below")
    np.testing.assert_allclose(single.vertices, double.vertices, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.zeros((4, 4, 4)), "nowhere inside"),
        (np.ones((4, 4, 4)), "everywhere inside"),
        (np.full((4, 4, 4), np.nan), "64 values that are not finite"),
    ],
)
def test_fields_without_a_surface_are_rejected(values, reason):
    with pytest.raises(Rejected, match=reason):
        isosurface(values, 0.5, -1, 1, "above")


def test_a_grid_of_one_layer_is_an_error():
    with pytest.raises(ValueError, match=r"\(1, 4, 4\)"):
        isosurface(np.ones((1, 4, 4)), 0.5, -1, 1, "above")
