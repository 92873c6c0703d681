"""IM-NET's point-value pairs against the rules of the original's preparation (sheet imnet.md 2.4 and 8.6)."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pipeline.samples.point_values import PAIRS, _drawn_voxels, _from_the_middle, max_pool, point_values


def ball(size: int, radius: float = 0.3) -> np.ndarray:
    centres = (np.arange(size) + 0.5) / size - 0.5
    return sum(np.meshgrid(*(centres**2,) * 3, indexing="ij")) < radius**2


def pairs(voxels: np.ndarray, level: int, **settings) -> tuple[np.ndarray, np.ndarray]:
    return point_values(voxels, level, np.random.default_rng(0), **settings)


def cells_of(places: np.ndarray, size: int, level: int) -> np.ndarray:
    """Flat numbers of the cells in which the voxels lie."""
    return np.ravel_multi_index(tuple(places.T.astype(int) // (size // level)), (level,) * 3)


def mixed_cells(coarse: np.ndarray) -> list[int]:
    """In the original's order, by its loops."""
    size = len(coarse)
    order = [i for first in (1, 2, 3, 4) for i in range(first, size - 1, 4)]
    found = []
    for y, x, z in itertools.product(order, repeat=3):
        around = coarse[x - 1 : x + 2, y - 1 : y + 2, z - 1 : z + 2]
        if around.any() and not around.all():
            found.append((x * size + y) * size + z)
    return found


@pytest.mark.parametrize("level", PAIRS)
@pytest.mark.parametrize("size", [64, 128])
def test_every_pair_is_a_voxel_with_its_value_in_a_cell_of_its_own(size, level):
    voxels = ball(size)
    places, values = pairs(voxels, level)
    assert (places.dtype, values.dtype, places.shape) == (np.uint8, np.bool_, (PAIRS[level], 3))
    np.testing.assert_array_equal(voxels[tuple(places.T)], values)
    cells = cells_of(places, size, level)
    assert len(np.unique(cells)) == PAIRS[level]
    np.testing.assert_array_equal(max_pool(voxels, size // level).ravel()[cells], values)


def test_the_coarsest_level_shows_every_cell_and_those_the_ball_touches_as_inside():
    voxels = ball(128)
    places, values = pairs(voxels, 16)
    assert set(cells_of(places, 128, 16)) == set(range(16**3))
    touched = voxels.reshape(16, 8, 16, 8, 16, 8).any(axis=(1, 3, 5))
    assert values.mean() == touched.mean() > voxels.mean()


@pytest.mark.parametrize("level", [32, 64])
def test_all_mixed_cells_are_shown_where_there_is_room(level):
    voxels = ball(64, 0.2)
    mixed = mixed_cells(max_pool(voxels, 64 // level))
    shown = cells_of(pairs(voxels, level)[0], 64, level)
    assert 0 < len(mixed) < PAIRS[level]
    assert set(mixed) <= set(shown)


def test_without_room_the_first_of_the_strided_order_are_shown():
    voxels = np.random.default_rng(3).random((64, 64, 64)) < 0.05
    mixed = mixed_cells(max_pool(voxels, 2))
    assert len(mixed) > PAIRS[32]
    assert set(cells_of(pairs(voxels, 32)[0], 64, 32)) == set(mixed[: PAIRS[32]])


def test_the_share_at_the_surface_can_be_bounded():
    voxels = np.random.default_rng(3).random((64, 64, 64)) < 0.05
    shown = set(cells_of(pairs(voxels, 32, near=0.5)[0], 64, 32))
    mixed = mixed_cells(max_pool(voxels, 2))
    assert set(mixed[:2048]) <= shown
    # The border's cells are never counted as mixed, and some of them are among the others.
    assert shown - set(mixed)


def test_any_run_of_the_pairs_is_a_random_part():
    _, values = pairs(ball(64), 64)
    quarters = values.reshape(4, -1).mean(axis=1)
    assert np.ptp(quarters) < 0.05


def voxel_of_the_only_cell(voxels: np.ndarray, seeds: range) -> list[tuple[int, ...]]:
    """The voxel that each seed shows of the one cell of 16 that is inside."""
    shown = []
    for seed in seeds:
        places, values = point_values(voxels, 16, np.random.default_rng(seed))
        (inside,) = places[values]
        shown.append(tuple(inside.tolist()))
    return shown


def test_the_voxel_of_a_cell_is_any_that_has_its_value():
    voxels = np.zeros((128, 128, 128), bool)
    voxels[3, 5, 7] = voxels[0, 0, 1] = True  # both in the first cell of 16
    assert set(voxel_of_the_only_cell(voxels, range(20))) == {(3, 5, 7), (0, 0, 1)}


def first_in_the_originals_search(cell: np.ndarray) -> tuple[int, int, int]:
    """What the original's preparation takes of a cell after its 100 tries, by its loops."""
    half = len(cell) // 2
    if cell[half, half, half]:
        return half, half, half
    for reach in range(1, half + 1):
        low = half - reach
        high = half + reach
        ends = ((low, half, half), (high - 1, half, half), (half, half, low), (half, half, high - 1))
        for face in (*ends, (half, low, half), (half, high - 1, half)) if reach > 1 else ():
            if cell[face]:
                return face
        for place in itertools.product(range(low, high), repeat=3):
            if cell[place]:
                return place
    raise AssertionError("the cell has no voxel inside")


@pytest.mark.parametrize("edge", [2, 4, 8, 16])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.2])
def test_the_order_after_the_tries_is_the_originals(edge, share):
    """Cells of one voxel, and cells of some."""
    rng = np.random.default_rng(edge)
    order = _from_the_middle(edge)
    assert sorted(order) == list(range(edge**3))
    for _ in range(20):
        cell = rng.random((edge,) * 3) < share
        cell[tuple(rng.integers(edge, size=3))] = True
        first = order[cell.ravel()[order].argmax()]
        assert np.unravel_index(first, cell.shape) == first_in_the_originals_search(cell)


@pytest.mark.parametrize("inside", [1, 4, 40, 400])
def test_voxels_are_random_as_often_as_one_of_a_hundred_tries_meets_one(inside):
    """2000 cells of 16^3 voxels, of which the first ones are inside; the first of these is the fixed one."""
    fits = np.zeros((2000, 16**3), bool)
    fits[:, :inside] = True
    chosen = _drawn_voxels(fits, np.random.default_rng(0))
    order = _from_the_middle(16)
    fixed = order[fits[0, order].argmax()]
    assert fits[np.arange(2000), chosen].all()
    missed = (1 - inside / 16**3) ** 100
    others = (1 - missed) * (1 - 1 / inside)
    # Four standard deviations of 2000 draws.
    assert (chosen != fixed).mean() == pytest.approx(others, abs=4 * np.sqrt(max(others * (1 - others), 1e-9) / 2000))


def test_indices_reach_the_last_voxel_of_256():
    voxels = np.ones((256, 256, 256), bool)
    places, values = pairs(voxels, 16)
    assert values.all()
    assert (places.min(), places.max()) == (0, 255)


@pytest.mark.parametrize(("shape", "level"), [((48, 48, 48), 32), ((64, 64, 32), 32), ((64, 64, 64), 20)])
def test_grids_and_levels_that_do_not_fit_are_refused(shape, level):
    with pytest.raises(ValueError, match="no level"):
        pairs(np.ones(shape, bool), level)
