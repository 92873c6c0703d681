"""Farthest points, neighbours and interpolation against hand-made cases and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.models.point_ops import farthest_points, gather, kernel_interpolation, nearest, squared_distances


def cloud(seed: int, shapes: int = 3, points: int = 40, edge: float = 1.0) -> torch.Tensor:
    return (torch.rand((shapes, points, 3), generator=torch.Generator().manual_seed(seed)) - 0.5) * edge


def farthest_by_the_kernel(points: np.ndarray, count: int) -> list[int]:
    """The rule of the PointNet++ kernel, thread by thread: strided scans, then pairs half as far apart each time."""
    total = len(points)
    threads = min(512, 1 << (total.bit_length() - 1))
    apart, chosen = np.full(total, 1e10, np.float32), [0]
    while len(chosen) < count:
        best, index = [-1.0] * threads, [0] * threads
        for thread in range(threads):
            for i in range(thread, total, threads):
                if np.square(points[i]).sum() <= 1e-3:
                    continue
                apart[i] = min(apart[i], np.square(points[i] - points[chosen[-1]]).sum())
                if apart[i] > best[thread]:
                    best[thread], index[thread] = apart[i], i
        half = threads // 2
        while half:
            for thread in range(half):
                if best[thread + half] > best[thread]:
                    best[thread], index[thread] = best[thread + half], index[thread + half]
            half //= 2
        chosen.append(index[0])
    return chosen


def test_farthest_points_on_a_line():
    x = torch.tensor([0.1, 0.2, 0.35, 0.6, 1.0])
    points = torch.stack([x, torch.zeros(5), torch.zeros(5)], dim=1)[None]
    for skip in (False, True):
        assert farthest_points(points, 4, skip).tolist() == [[0, 4, 3, 2]]  # airnet.md, section 12


def test_the_kernels_rule_skips_points_near_the_origin():
    points = torch.tensor([[[1, 0, 0], [-1, 0, 0], [0.03, 0, 0], [0, 0.5, 0]]])  # airnet.md, section 12
    assert farthest_points(points, 4).tolist() == [[0, 1, 3, 2]]
    skipped = farthest_points(points, 4, skip_near_origin=True)[0].tolist()
    assert skipped[:3] == [0, 1, 3]
    assert skipped[3] in (0, 1, 3)


def test_the_bound_of_the_skipped_ball_belongs_to_it():
    radius = np.float32(np.sqrt(1e-3))
    x = torch.tensor([1.0, np.nextafter(radius, np.float32(0)), np.nextafter(radius, np.float32(1))])
    points = torch.stack([x, torch.zeros(3), torch.zeros(3)], dim=1)[None]
    assert farthest_points(points, 2, skip_near_origin=True).tolist() == [[0, 2]]


def test_a_first_point_near_the_origin_is_still_the_start():
    points = torch.tensor([[[0.0, 0, 0], [0.02, 0, 0], [0.5, 0, 0]]])
    assert farthest_points(points, 3, skip_near_origin=True).tolist() == [[0, 2, 2]]
    inside = torch.tensor([[[0.0, 0, 0], [0.02, 0, 0]]])
    assert farthest_points(inside, 2, skip_near_origin=True).tolist() == [[0, 0]]


@given(
    st.lists(st.tuples(*[st.sampled_from([-0.5, -0.02, 0.0, 0.02, 0.25, 0.5])] * 3), min_size=2, max_size=40),
    st.data(),
)
@settings(max_examples=60, deadline=None)
def test_ties_go_as_the_kernels_threads_meet(points, data):
    """On a coarse lattice nearly every choice is a tie."""
    count = data.draw(st.integers(1, len(points)))
    points = np.array(points, np.float32)
    expected = farthest_by_the_kernel(points, count)
    assert farthest_points(torch.from_numpy(points)[None], count, skip_near_origin=True)[0].tolist() == expected


def test_clouds_larger_than_the_kernels_block_follow_its_rule_too():
    points = torch.round(cloud(3, 1, 1300) * 8) / 8
    expected = farthest_by_the_kernel(points[0].numpy(), 12)
    assert farthest_points(points, 12, skip_near_origin=True)[0].tolist() == expected


def test_the_corrected_rule_takes_the_lowest_of_equal_points():
    points = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]]])
    assert farthest_points(points, 3).tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("skip", [False, True])
def test_a_shape_is_sampled_alone_as_among_others(skip):
    points = cloud(0)
    together = farthest_points(points, 12, skip)
    alone = torch.cat([farthest_points(one[None], 12, skip) for one in points])
    assert torch.equal(together, alone)


def test_farthest_points_spread_evenly_and_are_distinct():
    points = cloud(1, 2, 500)
    chosen = farthest_points(points, 20)
    assert all(len(set(row)) == 20 for row in chosen.tolist())
    kept = gather(points, chosen)
    covered = squared_distances(points, kept).amin(dim=-1).amax(dim=-1).sqrt()
    apart = squared_distances(kept, kept) + 10 * torch.eye(20)
    # No point lies farther from the chosen than these lie from each other: the rule's own guarantee.
    assert bool((covered <= apart.amin(dim=(1, 2)).sqrt()).all())


def test_farthest_points_move_with_the_cloud_unless_the_origin_is_special():
    points = cloud(2)
    there = points + torch.tensor([2.0, 3.0, -1.0])
    assert torch.equal(farthest_points(points, 10), farthest_points(there, 10))
    near = torch.cat([points, 0.01 * points], dim=1)
    skipped = farthest_points(near, 60, skip_near_origin=True)
    assert not torch.equal(skipped, farthest_points(near + 2, 60, skip_near_origin=True))


def test_too_many_points_or_neighbours_are_refused():
    with pytest.raises(ValueError, match="41 points asked for of a cloud of 40"):
        farthest_points(cloud(0), 41)
    with pytest.raises(ValueError, match="41 neighbours asked for of a cloud of 40"):
        nearest(cloud(0), cloud(1), 41)


def test_distances_keep_the_digits_of_close_points():
    a = torch.tensor([[[0.5, 0.5, 0.5]]])
    b = a + torch.tensor([[[1e-4, 0, 0], [0, 2e-4, 0]]])
    exact = (a.double()[:, :, None] - b.double()[:, None]).square().sum(dim=-1)
    torch.testing.assert_close(squared_distances(a, b).double(), exact, rtol=1e-6, atol=0)


def test_neighbours_come_nearest_first_and_a_point_is_its_own():
    points = cloud(4)
    around = nearest(points, points, 5)
    assert torch.equal(around[..., 0], torch.arange(40).expand(3, -1))
    full = torch.cdist(points.double(), points.double())
    assert torch.equal(around, full.argsort(dim=-1)[..., :5])


def test_gather_takes_rows_of_each_shape():
    features = torch.arange(24.0).view(2, 4, 3)
    index = torch.tensor([[[3, 0]], [[1, 1]]])
    expected = torch.stack([features[0, [3, 0]], features[1, [1, 1]]])[:, None]
    assert torch.equal(gather(features, index), expected)


def test_kernel_interpolation_follows_its_formula():
    queries, points = cloud(5, 2, 7).double(), cloud(6, 2, 9).double()
    features = torch.randn((2, 9, 4), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = torch.exp(-((torch.cdist(queries, points) + 1e-5) ** 2) / 0.2**2)  # airnet.md, section 4
    expected = weights @ features / weights.sum(dim=-1, keepdim=True)
    torch.testing.assert_close(kernel_interpolation(queries, points, features, 0.2), expected)


def test_kernel_interpolation_far_away_gives_the_nearest_points_features():
    points = torch.tensor([[[0.0, 0, 0], [1, 0, 0]]])
    features = torch.tensor([[[1.0], [5.0]]])
    assert kernel_interpolation(torch.tensor([[[50.0, 0, 0]]]), points, features, 0.2).item() == pytest.approx(5.0)
