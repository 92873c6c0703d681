"""IM-NET's coarse-to-fine sampling: its own counts, and what dense evaluation gives."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.arrays import Rejected
from pipeline.reconstruction.coarse_to_fine import CoarseToFine, evaluate_coarse_to_fine
from tests import solids


def centres(count, box=1.0):
    return box * ((np.arange(count) + 0.5) / count - 0.5)


def dense(field, count, box=1.0):
    """The field at all voxel centres, (count,) * 3."""
    points = np.stack(np.meshgrid(*[centres(count, box)] * 3, indexing="ij"), axis=-1)
    return field(points.reshape(-1, 3)).reshape((count,) * 3)


def binary_ball(points):
    return (np.linalg.norm(points, axis=1) < 0.3).astype(float)


def test_a_ball_takes_the_originals_evaluations_and_equals_the_dense_grid():
    """Sheet imnet.md, 4.1: 64^3 frames, 13,936 of them cut into 4^3 voxels, 22,952 filled with 1."""
    grid, rounds = evaluate_coarse_to_fine(binary_ball, 64, 2, 0.5, 1.0)
    assert sum(map(len, rounds[:2])) == 1_154_048 == 64**3 + 64 * 13_936
    cut = np.unique(np.floor((rounds[1] + 0.5) * 64), axis=0)
    assert np.sum(binary_ball(rounds[0])) - np.sum(binary_ball((cut + 0.5) / 64 - 0.5)) == 22_952
    inside = np.add.outer(np.add.outer(centres(256) ** 2, centres(256) ** 2), centres(256) ** 2) < 0.3**2
    np.testing.assert_array_equal(grid > 0.5, inside)


@pytest.mark.parametrize("box", [1.0, 1.1])
@pytest.mark.parametrize(("inside", "sign"), [("below", 1), ("above", -1)])
def test_a_solid_in_three_parts_equals_the_dense_grid(box, inside, sign):
    def field(points):
        return sign * solids.three_boxes_sdf(points)

    grid, rounds = evaluate_coarse_to_fine(field, 16, 2, 0.0, box, inside)
    expected = dense(field, 64, box)
    np.testing.assert_array_equal(grid * sign < 0, expected * sign < 0)
    asked = np.concatenate(rounds[1:])
    index = np.rint((asked / box + 0.5) * 64 - 0.5).astype(int)
    np.testing.assert_allclose(grid[tuple(index.T)], expected[tuple(index.T)], atol=1e-12)
    assert len(np.unique(index, axis=0)) == len(index) < 0.4 * 64**3


def test_parts_beyond_the_coarse_centres_are_followed_from_frame_to_frame():
    """A rod between the centres hangs on a ball; the rounds walk along it."""
    step = 1 / 16

    def field(points):
        rod = solids.box_sdf(points, (0.7, 0.02, 0.02), (0.1, 0.0, 0.0))
        return -np.minimum(rod, solids.sphere_sdf(points, 2 * step, (-0.3, 0.0, 0.0)))

    grid, rounds = evaluate_coarse_to_fine(field, 16, 3, 0.0, 1.0)
    assert len(rounds) > 6
    np.testing.assert_array_equal(grid > 0, dense(field, 128) > 0)


def test_a_speck_that_no_centre_sees_is_lost():
    grid, rounds = evaluate_coarse_to_fine(lambda points: -solids.sphere_sdf(points, 0.02), 8, 2, 0.0, 1.0)
    assert [len(points) for points in rounds] == [8**3] and not (grid > 0).any()


def test_frames_inside_at_the_faces_of_the_box_are_cut():
    _, rounds = evaluate_coarse_to_fine(lambda points: np.ones(len(points)), 6, 1, 0.5, 1.0)
    assert [len(points) for points in rounds] == [6**3, 8 * (6**3 - 4**3)]


def by_hand(values, frames, parts, level):
    """The algorithm as it is told, frame by frame with a queue: the frames whose voxels are asked.

    values: on the lattice of half voxels.
    """
    at_centres = values[np.ix_(*[(2 * np.arange(frames) + 1) * parts] * 3)]
    voxels = values[1::2, 1::2, 1::2]
    flags = np.pad(at_centres > level, 1)
    queue = []
    for frame in itertools.product(range(frames), repeat=3):
        around = flags[tuple(slice(c, c + 3) for c in frame)]
        if around.any() and not around.all():
            queue.append(frame)
    asked = set()
    for frame in queue:
        asked.add(frame)
        if voxels[tuple(slice(c * parts, (c + 1) * parts) for c in frame)].max() > level:
            for near in itertools.product(*(range(max(c - 1, 0), min(c + 2, frames)) for c in frame)):
                if not flags[tuple(np.add(near, 1))]:
                    flags[tuple(np.add(near, 1))] = True
                    queue.append(near)
    return asked


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.floats(-0.5, 2.5), st.sampled_from([(5, 1), (4, 2)]))
def test_the_frames_asked_are_those_of_the_original_queue(seed, level, shape):
    (frames, depth), parts = shape, 1 << shape[1]
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(0, 1, 2 * frames * parts + 1)] * 3, indexing="ij")
    waves = rng.normal(0, 9, (4, 3))
    values = sum(np.sin(np.tensordot(wave, axes, 1) + k) for k, wave in enumerate(waves))
    sampler, rounds = CoarseToFine(frames, depth, level), []
    while len(points := sampler.queries()):
        rounds.append(points)
        sampler.update(values[tuple(points.T)])
    asked = np.concatenate([np.empty((0, 3), int), *rounds[1:]]) // (2 * parts)
    assert {tuple(frame) for frame in asked.tolist()} == by_hand(values, frames, parts, level)
    assert sampler.asked == sum(map(len, rounds))


def test_depth_zero_asks_the_centres_once():
    grid, rounds = evaluate_coarse_to_fine(lambda p: -solids.sphere_sdf(p, 0.3), 12, 0, 0.0, 1.0)
    assert [len(points) for points in rounds] == [12**3]
    np.testing.assert_allclose(grid, dense(lambda p: -solids.sphere_sdf(p, 0.3), 12))


def test_wrong_values_and_settings_are_refused():
    with pytest.raises(Rejected, match="not finite at 1 of 8 points"):
        evaluate_coarse_to_fine(lambda points: np.where(np.arange(len(points)) == 3, np.nan, 1.0), 2, 1, 0.5, 1.0)
    with pytest.raises(ValueError, match=r"8 points were asked for.*\(7,\)"):
        CoarseToFine(2, 1, 0.5).update(np.zeros(7))
    for arguments in ((0, 1, 0.5), (4, -1, 0.5), (4, 1, 0.5, "within")):
        with pytest.raises(ValueError, match="coarse-to-fine needs"):
            CoarseToFine(*arguments)
