import numpy as np
import pytest

from pipeline.meshes.band import band_distances
from tests import solids

SHAPE = np.array([40, 44, 36])


def nodes() -> np.ndarray:
    return np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), -1).reshape(-1, 3).astype(float)


def exact(triangles: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Distances in float64 to the nearest of some triangles, each by its plane and its three edges."""
    best = np.full(len(points), np.inf)
    for a, b, c in triangles:
        normal = np.cross(b - a, c - a)
        foot = points - np.outer((points - a) @ normal, normal) / (normal @ normal)
        sides = [np.cross(q - p, foot - p) @ normal for p, q in ((a, b), (b, c), (c, a))]
        within = np.min(sides, axis=0) >= 0
        distance = np.where(within, np.linalg.norm(points - foot, axis=1), np.inf)
        for p, q in ((a, b), (b, c), (c, a)):
            share = np.clip((points - p) @ (q - p) / ((q - p) @ (q - p)), 0, 1)
            distance = np.minimum(distance, np.linalg.norm(points - p - share[:, None] * (q - p), axis=1))
        best = np.minimum(best, distance)
    return best


def random_triangles(seed: int) -> np.ndarray:
    """Large, small and thin ones, and some that lie in planes of nodes."""
    rng = np.random.default_rng(seed)
    low, high = np.full(3, 4.0), SHAPE - 5.0
    corner = rng.uniform(low, high, (12, 1, 3))
    size = 10.0 ** rng.uniform(-2, 1.5, (12, 1, 1))
    triangles = corner + size * rng.normal(size=(12, 3, 3))
    triangles[:3, 2] = triangles[:3, 1] + 1e-5 * rng.normal(size=(3, 3))
    triangles[3:6] = np.round(triangles[3:6]) + np.array([[0, 0, 0], [3, 0, 0], [0, 5, 0]])
    return np.clip(triangles, low, high)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("most", [1.6, 3.0])
def test_distances_in_the_band_are_exact_and_capped_beyond(seed, most):
    triangles = random_triangles(seed)
    found = band_distances(triangles, SHAPE, most)
    assert found.shape == tuple(SHAPE)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.reshape(-1), np.minimum(exact(triangles, nodes()), most), atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_a_window_of_a_grid_has_the_same_distances_to_the_bit(seed):
    triangles = np.round(random_triangles(seed) * 2**30) / 2**30  # so that moving them by whole voxels is exact
    whole = band_distances(triangles, SHAPE, 1.6)
    low, size = np.array([11, 13, 9]), np.array([12, 9, 14])
    window = band_distances(triangles - low, size, 1.6)
    np.testing.assert_array_equal(window, whole[tuple(map(slice, low, low + size))])


def test_triangles_all_beyond_the_grid_leave_it_at_its_cap():
    assert (band_distances(random_triangles(1) + 200, SHAPE, 1.6) == np.float32(1.6)).all()


def test_the_band_of_three_boxes_is_that_of_their_closed_form():
    mesh = solids.moved(solids.three_boxes(), SHAPE / 2 - 0.5, 28.0)
    points = (nodes() - (SHAPE / 2 - 0.5)) / 28.0
    expected = np.minimum(np.abs(solids.three_boxes_sdf(points)) * 28.0, 1.6)
    np.testing.assert_allclose(band_distances(mesh.triangles, SHAPE, 1.6).reshape(-1), expected, atol=1e-5)


def test_the_order_of_triangles_and_of_their_corners_changes_next_to_nothing():
    triangles = random_triangles(9)
    turned = np.roll(triangles[::-1], 1, axis=1)
    np.testing.assert_allclose(band_distances(triangles, SHAPE, 2.0), band_distances(turned, SHAPE, 2.0), atol=1e-5)


def test_many_small_triangles_give_what_the_large_one_gives():
    whole = np.array([[[4.2, 5.1, 6.3], [33.7, 8.8, 28.9], [11.1, 37.5, 9.4]]])
    parts = whole
    for _ in range(5):
        a, b, c = parts.transpose(1, 0, 2)
        ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
        parts = np.concatenate([np.stack(t, 1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
    np.testing.assert_allclose(band_distances(parts, SHAPE, 1.6), band_distances(whole, SHAPE, 1.6), atol=3e-5)
