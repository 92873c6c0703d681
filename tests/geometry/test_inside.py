import numpy as np

from pipeline.geometry.inside import occupancy
from tests import solids

POINTS = np.random.default_rng(11).uniform(-0.55, 0.55, (20_000, 3)).astype(np.float32)


def test_occupancy_of_three_boxes_is_exact_point_by_point():
    found = occupancy(solids.three_boxes(), POINTS)
    assert found.dtype == bool
    np.testing.assert_array_equal(found, solids.three_boxes_inside(POINTS))


def test_occupancy_does_not_depend_on_the_winding():
    np.testing.assert_array_equal(occupancy(solids.flipped(solids.torus()), POINTS), occupancy(solids.torus(), POINTS))


def test_occupancy_of_a_torus_is_exact_away_from_the_tessellation():
    sdf = solids.torus_sdf(POINTS)
    clear = np.abs(sdf) > 1e-3
    np.testing.assert_array_equal(occupancy(solids.torus(), POINTS)[clear], sdf[clear] < 0)


def test_occupancy_on_a_lattice_aligned_with_the_faces_is_exact():
    steps = (np.arange(64) + 0.5) / 64 - 0.5
    lattice = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    mesh = solids.box((0.5, 0.25, 0.75))
    np.testing.assert_array_equal(occupancy(mesh, lattice), solids.box_inside(lattice, (0.5, 0.25, 0.75)))
