import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.arrays import Mesh, Rejected
from pipeline.geometry.measures import area, face_cross
from pipeline.geometry.polygons import Polygons, triangulated, without_repeated_corners

L_SHAPE = np.array([[0, 0], [2, 0], [2, 1], [1, 1], [1, 2], [0, 2]], float)


def lifted(flat: np.ndarray, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """A plane polygon (n, 2) turned and moved in space."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return (np.c_[flat, np.zeros(len(flat))] @ turn + rng.normal(size=3)) * scale


def one_polygon(vertices: np.ndarray, corners=None) -> Mesh:
    corners = np.arange(len(vertices)) if corners is None else np.asarray(corners)
    return Mesh(vertices, triangulated(Polygons(vertices, corners, np.array([len(corners)]))))


def covers_exactly(mesh: Mesh, expected: float) -> bool:
    """All triangles on the same side, and their areas sum to the polygon's."""
    together = np.linalg.norm(face_cross(mesh).sum(axis=0)) / 2
    return np.isclose(area(mesh), expected) and np.isclose(together, expected)


@pytest.mark.parametrize("start", range(6))
@pytest.mark.parametrize("scale", [1e-20, 1, 1e30])
def test_a_concave_polygon_is_covered_exactly_from_any_first_corner(start, scale):
    mesh = one_polygon(lifted(L_SHAPE, scale=scale), np.roll(np.arange(6), start))
    assert len(mesh.faces) == 4
    assert covers_exactly(mesh, 3 * scale**2)


@given(st.integers(0, 10_000), st.integers(4, 30))
def test_star_shaped_polygons_are_covered_exactly(seed, size):
    rng = np.random.default_rng(seed)
    angles = (np.arange(size) + rng.uniform(0.1, 0.9, size)) * 2 * np.pi / size
    flat = rng.uniform(0.2, 1, (size, 1)) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    x, y = flat.T
    expected = 0.5 * np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))
    mesh = one_polygon(lifted(flat, seed))
    assert len(mesh.faces) == size - 2
    assert covers_exactly(mesh, expected)


def test_a_square_with_a_hole_joined_by_a_bridge_keeps_the_hole():
    flat = np.array([[0, 0], [4, 0], [4, 4], [0, 4], [1, 1], [1, 3], [3, 3], [3, 1]], float)
    assert covers_exactly(one_polygon(lifted(flat), [0, 1, 2, 3, 0, 4, 5, 6, 7, 4]), 12)


@pytest.mark.parametrize("start", range(6))
@pytest.mark.parametrize("times", [2, 3])
@pytest.mark.parametrize("which", [(3,), (0,), (2, 3, 4), (0, 1, 2, 3, 4, 5)])
@pytest.mark.parametrize("as_index", [True, False])
def test_corners_that_repeat_leave_a_notch_open(start, times, which, as_index):
    counts = np.where(np.isin(np.arange(6), which), times, 1)
    named = np.roll(np.repeat(np.arange(6), counts), start)
    vertices = lifted(L_SHAPE)
    mesh = one_polygon(vertices, named) if as_index else one_polygon(vertices[named])
    assert covers_exactly(mesh, 3)
    assert len(mesh.faces) == (4 if as_index else len(named) - 2)


@pytest.mark.parametrize("apart", [1e-3, 1e-7, 1e-9, 1e-13])
def test_a_notch_whose_corner_is_a_tiny_arc_stays_open(apart):
    angles = np.linspace(np.pi, np.pi / 2, 9)[:, None]
    arc = np.array([1.0, 1.0]) + apart * np.c_[np.cos(angles) + 1, np.sin(angles) - 1] + [0, apart]
    flat = np.concatenate([L_SHAPE[:3], arc[::-1], L_SHAPE[4:]])
    x, y = flat.T
    expected = 0.5 * np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))
    for start in range(len(flat)):
        assert covers_exactly(one_polygon(lifted(flat), np.roll(np.arange(len(flat)), start)), expected)


def test_a_corner_named_twice_is_one_corner():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)
    corners = np.array([0, 1, 1, 2, 0, 2, 3, 0, 3, 3, 3, 3, 0, 0, 1, 3, 3])
    polygons = without_repeated_corners(Polygons(vertices, corners, np.array([4, 4, 0, 4, 2, 3])))
    np.testing.assert_array_equal(polygons.sizes, [3, 3, 0, 0, 2, 3])
    np.testing.assert_array_equal(polygons.corners, [0, 1, 2, 0, 2, 3, 0, 0, 1, 3, 3])
    np.testing.assert_array_equal(triangulated(polygons), [[0, 1, 2], [0, 2, 3], [1, 3, 3]])


def test_straight_corners_cost_nothing():
    flat = np.array([[0, 0], [1, 0], [2, 0], [2, 1], [1, 1], [1, 2], [0, 2], [0, 1]], float)
    assert covers_exactly(one_polygon(lifted(flat)), 3)


def test_triangles_keep_the_winding_and_the_order_of_mixed_polygons():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1]], float)
    corners = np.array([0, 1, 4, 0, 1, 2, 3, 4, 3, 2])
    faces = triangulated(Polygons(vertices, corners, np.array([3, 4, 3])))
    np.testing.assert_array_equal(faces, [[0, 1, 4], [0, 1, 2], [0, 2, 3], [4, 3, 2]])


def test_points_and_lines_give_no_triangles():
    assert triangulated(Polygons(np.zeros((3, 3)), np.array([0, 1, 2]), np.array([1, 2]))).shape == (0, 3)


def test_a_polygon_that_crosses_itself_or_is_not_plane_is_covered_by_its_corners():
    crossed = np.array([[0, 0], [1, 1], [1, 0], [0, 1]], float)
    bent = np.array([[0, 0, 0], [1, 0, 0.2], [0.2, 0.2, -0.1], [0, 1, 0]], float)
    for mesh in (one_polygon(lifted(crossed)), one_polygon(bent), one_polygon(np.zeros((5, 3)))):
        assert len(mesh.faces) == len(mesh.vertices) - 2
        assert set(mesh.faces.ravel()) == set(range(len(mesh.vertices)))


def test_no_corner_that_is_not_finite_stops_the_cutting():
    for wrong in (np.nan, np.inf):
        vertices = lifted(L_SHAPE)
        vertices[2, 1] = wrong
        assert len(one_polygon(vertices).faces) == 4


def test_a_huge_concave_polygon_is_refused():
    angles = np.arange(2000) * np.pi / 1000
    radius = 1 + 0.3 * (np.arange(2000) % 2)
    with pytest.raises(Rejected, match="2000 corners"):
        one_polygon(lifted(radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)))
