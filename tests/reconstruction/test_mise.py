"""MISE: the original's points in the original's rounds, and a safe mode that loses no thin part."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.arrays import Rejected
from pipeline.reconstruction.dense import evaluate_dense
from pipeline.reconstruction.mise import Refinement, evaluate_grid, fill_forward
from tests import solids

ORIGIN, OFF_CENTRE = (0.0, 0.0, 0.0), (0.1, 0.05, -0.02)

# resolution_0, depth, box, radius, centre, points per round; measured with the original's extension.
SPHERES = [
    (32, 2, 1.1, 0.4, ORIGIN, [35_937, 25_298, 102_026]),
    (32, 2, 1.1, 0.3, ORIGIN, [35_937, 14_498, 56_978]),
    (32, 2, 1.1, 0.25, OFF_CENTRE, [35_937, 9_915, 40_046, 34]),
    (16, 3, 1.1, 0.4, ORIGIN, [4_913, 6_098, 25_298, 102_026]),
    (16, 3, 1.1, 0.3, ORIGIN, [4_913, 3_698, 14_498, 56_978]),
    (16, 3, 1.1, 0.25, OFF_CENTRE, [4_913, 2_504, 9_915, 40_046, 27, 17]),
    (64, 2, 1.02, 0.4, ORIGIN, [274_625, 119_474, 474_578]),
    (64, 2, 1.02, 0.3, ORIGIN, [274_625, 66_578, 267_554]),
    (64, 2, 1.02, 0.25, OFF_CENTRE, [274_625, 46_369, 185_378, 20]),
    (32, 2, 1.1, 0.01, (0.0172,) * 3, [35_937]),  # between the planes: lost
    (16, 3, 1.1, 0.01, (0.0172,) * 3, [4_913]),
]


def ball(radius, centre):
    return lambda points: -solids.sphere_sdf(points, radius, centre)


def counts(rounds):
    return [len(points) for points in rounds]


@pytest.mark.parametrize(("resolution_0", "depth", "box", "radius", "centre", "golden"), SPHERES)
def test_a_sphere_takes_the_originals_points_in_each_round(resolution_0, depth, box, radius, centre, golden):
    grid, rounds = evaluate_grid(ball(radius, centre), resolution_0, depth, 0.0, box)
    assert counts(rounds) == golden
    assert grid.shape == ((resolution_0 << depth) + 1,) * 3
    assert grid.dtype == np.float64


@pytest.mark.parametrize(("resolution_0", "depth", "radius", "centre"), [(c[0], c[1], c[3], c[4]) for c in SPHERES[:6]])
def test_a_spheres_signs_are_those_of_dense_evaluation(resolution_0, depth, radius, centre):
    grid, _ = evaluate_grid(ball(radius, centre), resolution_0, depth, 0.0, 1.1)
    np.testing.assert_array_equal(grid >= 0, evaluate_dense(ball(radius, centre), 128, 1.1) >= 0)


@pytest.mark.parametrize(("resolution_0", "depth"), [(32, 2), (16, 3)])
def test_a_constant_field_below_the_level_takes_one_round(resolution_0, depth):
    _, rounds = evaluate_grid(lambda points: np.full(len(points), -1.0), resolution_0, depth, 0.0, 1.1)
    assert counts(rounds) == [(resolution_0 + 1) ** 3]


def test_a_constant_field_at_the_level_counts_as_both_sides_and_is_refined_everywhere():
    _, rounds = evaluate_grid(lambda points: np.full(len(points), 0.25), 16, 3, 0.25, 1.1)
    assert counts(rounds) == [4_913, 31_024, 238_688, 1_872_064]


def test_a_level_between_two_float32_numbers_is_equal_to_none_of_them():
    level = 0.1
    assert float(np.float32(level)) > level
    _, rounds = evaluate_grid(lambda points: np.full(len(points), level, np.float32), 4, 2, level, 1.1)
    assert counts(rounds) == [125]  # all above; rounded, the level would be met everywhere


def test_depth_zero_evaluates_the_lattice_once():
    grid, rounds = evaluate_grid(ball(0.3, OFF_CENTRE), 20, 0, 0.0, 1.1)
    assert counts(rounds) == [21**3]
    np.testing.assert_array_equal(grid, evaluate_dense(ball(0.3, OFF_CENTRE), 20, 1.1))


def octree_by_hand(values, resolution_0, depth, level):
    """The algorithm as it is told, cell by cell: the set of points of each round, and all that are known."""
    size = 1 << depth
    leaves = {(*np.multiply(c, size), size) for c in itertools.product(range(resolution_0), repeat=3)}
    pending = {tuple(np.multiply(p, size)) for p in itertools.product(range(resolution_0 + 1), repeat=3)}
    known, rounds = {}, []
    while pending:
        rounds.append(pending)
        known |= {point: values[point] for point in pending}
        pending = set()
        for x, y, z, size in list(leaves):
            box = itertools.product(*(range(c, c + size + 1) for c in (x, y, z)))
            touched = [known[point] for point in box if point in known]
            if size > 1 and max(touched) >= level and min(touched) <= level:
                half = size // 2
                leaves.remove((x, y, z, size))
                for i, j, k in itertools.product(range(3), repeat=3):
                    point = (x + i * half, y + j * half, z + k * half)
                    pending |= {point} - known.keys()
                    if max(i, j, k) < 2:
                        leaves.add((*point, half))
    return rounds, known


def filled_by_hand(known, points_per_axis):
    """Each unknown point in turn takes the one before it: a whole pass along x, then y, then z."""
    grid = np.full((points_per_axis,) * 3, np.nan)
    for point, value in known.items():
        grid[point] = value
    for axis in range(3):
        for point in itertools.product(range(points_per_axis), repeat=3):
            if np.isnan(grid[point]) and point[axis] > 0:
                grid[point] = grid[tuple(np.subtract(point, np.eye(3, dtype=int)[axis]))]
    return grid


@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(2, 3), (3, 2), (5, 1)]), st.booleans())
def test_rounds_and_grid_are_those_of_the_octree_walked_by_hand(seed, shape, with_ties):
    resolution_0, depth = shape
    resolution = resolution_0 << depth
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.arange(resolution + 1) / resolution] * 3, indexing="ij")
    waves = rng.normal(0, 9, (4, 3))
    values = sum(np.sin(np.tensordot(wave, axes, 1) + phase) for wave, phase in zip(waves, range(4), strict=True))
    values = np.round(values * 2) if with_ties else values
    expected, known = octree_by_hand(values, resolution_0, depth, 1.0)

    refinement, rounds = Refinement(resolution_0, depth, 1.0), []
    while len(points := refinement.queries()):
        rounds.append({tuple(point) for point in points.tolist()})
        refinement.update(values[tuple(points.T)])
    assert rounds == expected
    assert refinement.asked == len(known)
    np.testing.assert_array_equal(refinement.filled(), filled_by_hand(known, resolution + 1))


def test_queries_stand_where_the_grid_says():
    def coordinates(points):
        return points @ np.array([1.0, 10.0, 100.0])

    grid, rounds = evaluate_grid(coordinates, 4, 2, 0.0, 2.0)
    axis = np.linspace(-1, 1, 17)
    expected = axis[:, None, None] + 10 * axis[None, :, None] + 100 * axis[None, None, :]
    index = np.rint((np.concatenate(rounds) + 1) * 8).astype(int)
    asked = tuple(index.T)
    np.testing.assert_allclose(grid[asked], expected[asked], atol=1e-9)
    np.testing.assert_array_equal(grid >= 0, expected >= 0)


def cell_between_planes(resolution_0=32, box=1.1):
    """Middle of the first cell beyond the origin; both coarse planes beside it are half a cell away."""
    return box / resolution_0 / 2


THIN = {
    "plate across x": ((0.015, 0.5, 0.4), (cell_between_planes(), 0.03, -0.02)),
    "plate across y": ((0.4, 0.015, 0.5), (0.03, cell_between_planes(), -0.02)),
    "plate across z": ((0.5, 0.4, 0.015), (0.03, -0.02, cell_between_planes())),
    "rod along x": ((0.5, 0.015, 0.02), (0.03, cell_between_planes(), cell_between_planes())),
    "speck": ((0.02, 0.015, 0.018), (cell_between_planes(),) * 3),
}
FIELDS = {
    "signed distance": lambda distance: -distance,
    "saturating logit": lambda distance: np.clip(-200 * distance, -12, 12),
}


@pytest.mark.parametrize("kind", FIELDS)
@pytest.mark.parametrize("name", THIN)
def test_safe_mode_keeps_thin_parts_between_planes_that_faithful_loses(name, kind):
    def field(points):
        return FIELDS[kind](solids.box_sdf(points, *THIN[name]))

    dense = evaluate_dense(field, 128, 1.1) >= 0
    faithful, rounds = evaluate_grid(field, 32, 2, 0.0, 1.1)
    safe, more_rounds = evaluate_grid(field, 32, 2, 0.0, 1.1, mode="safe")
    assert dense.any() and not (faithful >= 0).any()
    assert counts(rounds) == [33**3]
    np.testing.assert_array_equal(safe >= 0, dense)
    assert sum(counts(more_rounds)) < 0.06 * 129**3


def test_safe_mode_keeps_slats_whose_spacing_is_the_coarse_lattices():
    cell = 1.1 / 16  # every plane lies midway between two slats, where the field is flat

    def field(points):
        slats = [solids.box_sdf(points, (0.5, 0.4, 0.02), (0, 0, (k + 0.5) * cell)) for k in range(-4, 4)]
        return -np.min(slats, axis=0)

    safe, _ = evaluate_grid(field, 16, 2, 0.0, 1.1, mode="safe")
    np.testing.assert_array_equal(safe >= 0, evaluate_dense(field, 64, 1.1) >= 0)


def test_safe_mode_asks_for_at_most_three_times_the_points_on_a_solid_shape():
    def field(points):
        return -solids.three_boxes_sdf(points)

    (faithful, few), (safe, many) = (evaluate_grid(field, 32, 2, 0.0, 1.1, mode) for mode in ("faithful", "safe"))
    dense = evaluate_dense(field, 128, 1.1) >= 0
    np.testing.assert_array_equal(faithful >= 0, dense)
    np.testing.assert_array_equal(safe >= 0, dense)
    assert sum(counts(few)) < sum(counts(many)) < 3 * sum(counts(few))


def test_values_that_are_not_finite_reject_the_shape():
    with pytest.raises(Rejected, match="not finite at 2 of 27 points"):
        evaluate_grid(lambda points: np.where(np.arange(len(points)) < 2, np.nan, 1.0), 2, 1, 0.0, 1.1)


def test_values_of_another_number_than_the_queries_are_refused():
    with pytest.raises(ValueError, match=r"27 points were asked for.*\(26,\)"):
        Refinement(2, 1, 0.0).update(np.zeros(26))


@pytest.mark.parametrize("arguments", [(0, 1, 0.0), (4, -1, 0.0), (4, 1, 0.0, "thorough")])
def test_impossible_settings_are_refused(arguments):
    with pytest.raises(ValueError, match="MISE needs"):
        Refinement(*arguments)


def test_filling_prefers_x_over_y_over_z():
    grid = np.full((3, 3, 3), np.nan)
    grid[::2, ::2, ::2] = np.arange(8).reshape(2, 2, 2)
    fill_forward(grid, ~np.isnan(grid), step=2)
    expected = np.arange(8).reshape(2, 2, 2)[np.ix_([0, 0, 1], [0, 0, 1], [0, 0, 1])]
    np.testing.assert_array_equal(grid, expected)
