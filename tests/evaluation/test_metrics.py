"""Metrics: the goldens of the originals' evaluators, asymmetric shapes, and values known in closed form."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluation.metrics import (
    GENERAL,
    METRICS,
    Match,
    Samples,
    assignment_distance,
    compare_surfaces,
    componentwise_consistency,
    f_score,
    nearest,
    signed_consistency,
    threshold_scores,
    volume_iou,
)
from pipeline.geometry.sampling import points_on_surface
from tests import solids

COUNT = 100_000
F_KEYS = ["f_0.005", "f_0.01", "f_0.015", "f_0.02"]


def sphere_samples(radius, seed, count=COUNT):
    """Exact uniform samples of a sphere, with normals."""
    direction = np.random.default_rng(seed).normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return radius * direction, direction


def cube_samples(seed):
    return points_on_surface(solids.box(), COUNT, np.random.default_rng(seed))


GOLDENS = {
    "sphere .40 / .40": (sphere_samples(0.4, 1), sphere_samples(0.4, 2), 0.00224, 6.4e-6, 0.99998, [0.980, 1, 1, 1]),
    "sphere .40 / .41": (sphere_samples(0.4, 3), sphere_samples(0.41, 4), 0.01032, 1.066e-4, 0.99998, [0, 0, 1, 1]),
    "sphere .40 / .42": (sphere_samples(0.4, 5), sphere_samples(0.42, 6), 0.02017, 4.067e-4, 0.99998, [0, 0, 0, 0]),
    "unit cube": (cube_samples(7), cube_samples(8), 0.00387, 1.91e-5, 0.99363, [0.730, 0.994, 1, 1]),
    "sphere, 3000 points": (
        sphere_samples(0.4, 9, 3000),
        sphere_samples(0.4, 10, 3000),
        0.01305,
        2.19e-4,
        0.99932,
        [0.126, 0.373, 0.640, 0.842],
    ),
}


@pytest.mark.parametrize("name", GOLDENS)
def test_the_originals_goldens_are_met_within_two_percent(name):
    predicted, reference, chamfer_l1, chamfer_l2, consistency, scores = GOLDENS[name]
    row = compare_surfaces(*predicted, *reference)
    scatter = 0.016 if len(predicted[0]) < COUNT else 0  # three standard deviations of a share of 3000 points
    assert row["chamfer_l1"] == pytest.approx(chamfer_l1, rel=0.02)
    assert row["chamfer_l2"] == pytest.approx(chamfer_l2, rel=0.05 if scatter else 0.02)
    assert row["normal_consistency"] == pytest.approx(consistency, abs=2e-4)
    assert [row[key] for key in F_KEYS] == pytest.approx(scores, rel=0.02, abs=scatter)


@pytest.mark.parametrize("count", [4_096, 10_000, 30_000])
def test_the_floor_of_two_samples_of_one_surface_is_half_the_root_of_area_per_point(count):
    row = compare_surfaces(*sphere_samples(0.4, 11, count), *sphere_samples(0.4, 12, count))
    area = solids.sphere_area(0.4)
    assert row["chamfer_l1"] == pytest.approx(0.5 * np.sqrt(area / count), rel=0.02)
    assert row["chamfer_l2"] == pytest.approx(area / (np.pi * count), rel=0.04)


def test_half_a_sphere_is_accurate_but_not_complete():
    points, normals = sphere_samples(0.4, 13, 60_000)
    upper = points[:, 2] > 0
    row = compare_surfaces(points[upper], normals[upper], *sphere_samples(0.4, 14, 30_000))
    below = np.linspace(0, np.pi / 2, 10_001)  # elevation under the rim, at distance 2 r sin(half of it) from it
    from_rim = np.trapezoid(0.8 * np.sin(below / 2) * np.cos(below), below)
    assert row["accuracy"] < 0.005
    assert row["completeness"] == pytest.approx(from_rim / 2 + 0.0015, rel=0.02)  # half the sphere, and a floor
    assert row["precision_0.02"] == 1
    seen = 2 * np.arcsin(0.02 / 0.8)  # elevation whose rim distance is 0.02
    assert row["recall_0.02"] == pytest.approx((1 + np.sin(seen)) / 2, rel=0.01)
    assert row["normals_accuracy"] > 0.999 > row["normals_completeness"]


def test_one_of_three_boxes_is_accurate_but_misses_the_others_area():
    rng = np.random.default_rng(15)
    extents, centre = solids.THREE_BOXES[0]
    row = compare_surfaces(
        *points_on_surface(solids.box(extents, centre), 40_000, rng),
        *points_on_surface(solids.three_boxes(), 40_000, rng),
    )
    share = solids.box_area(extents) / solids.three_boxes_area()
    assert row["accuracy"] < 0.005 < 0.1 < row["completeness"]
    assert row["precision_0.02"] == 1
    assert row["recall_0.02"] == pytest.approx(share, rel=0.03)


@pytest.mark.parametrize("axes", [(1, 0, 2), (0, 2, 1), (2, 1, 0), (1, 2, 0)])
def test_swapped_axes_are_far_from_the_truth(axes):
    rng = np.random.default_rng(16)
    points, normals = points_on_surface(solids.three_boxes(), 20_000, rng)
    others, other_normals = points_on_surface(solids.three_boxes(), 20_000, rng)
    same = compare_surfaces(points, normals, others, other_normals)
    swapped = compare_surfaces(points[:, axes], normals[:, axes], others, other_normals)
    assert same["chamfer_l1"] < 0.005 < 0.05 < swapped["chamfer_l1"]
    assert swapped["normal_consistency"] < 0.95 * same["normal_consistency"]


def test_metrics_of_three_points_by_hand():
    predicted = np.array([[0.0, 0, 0], [1, 0, 0]])
    reference = np.array([[0.0, 0, 0.01], [1, 0, 2], [1, 0, 0.5]])
    up, tilted = [0, 0, 1.0], [0, 3.0, 4.0]
    row = compare_surfaces(predicted, np.array([up, [0, 0, -2.0]]), reference, np.array([up, up, tilted]), (0.01, 0.5))
    assert row["accuracy"] == pytest.approx((0.01 + 0.5) / 2)
    assert row["completeness"] == pytest.approx((0.01 + 2 + 0.5) / 3)
    assert row["accuracy2"] == pytest.approx((0.0001 + 0.25) / 2)
    assert row["completeness2"] == pytest.approx((0.0001 + 4 + 0.25) / 3)
    assert row["chamfer_l1"] == pytest.approx((row["accuracy"] + row["completeness"]) / 2)
    assert row["chamfer_l2"] == pytest.approx((row["accuracy2"] + row["completeness2"]) / 2)
    assert row["normals_accuracy"] == pytest.approx((1 + 0.8) / 2)
    assert row["normals_completeness"] == pytest.approx((1 + 1 + 0.8) / 3)
    assert row["precision_0.01"] == 0.5 and row["recall_0.01"] == pytest.approx(1 / 3)  # at the threshold counts
    assert row["precision_0.5"] == 1 and row["recall_0.5"] == pytest.approx(2 / 3)
    assert row["f_0.5"] == pytest.approx(0.8)


def test_every_metric_of_a_comparison_is_described_with_its_penalty():
    row = compare_surfaces(*sphere_samples(0.4, 17, 50), *sphere_samples(0.4, 18, 60))
    assert row.keys() | {"iou", "accuracy_mesh", "completeness_mesh"} == set(GENERAL) < METRICS.keys()
    assert METRICS["chamfer_l1"].penalty == METRICS["accuracy"].penalty == pytest.approx(3**0.5)
    assert METRICS["chamfer_l2"].penalty == METRICS["completeness2"].penalty == 3
    assert {METRICS[key].penalty for key in ("iou", "normal_consistency", *F_KEYS)} == {0}
    assert {key for key in GENERAL if not METRICS[key].higher_is_better} == {
        key for key in GENERAL if key.startswith(("chamfer", "accuracy", "completeness"))
    }


def test_nearest_names_the_point_it_measures_to():
    rng = np.random.default_rng(19)
    queries, points = rng.random((50, 3)), rng.random((200, 3))
    distances, index = nearest(queries, points)
    table = np.linalg.norm(queries[:, None] - points[None], axis=-1)
    np.testing.assert_array_equal(index, table.argmin(axis=1))
    np.testing.assert_allclose(distances, table.min(axis=1))


@given(st.floats(0, 1), st.floats(0, 1))
def test_f_score_lies_between_precision_and_recall_and_is_symmetric(precision, recall):
    score = f_score(precision, recall)
    assert score == f_score(recall, precision)
    assert min(precision, recall) - 1e-12 <= score <= max(precision, recall) + 1e-12


def test_iou_counts_and_is_undefined_without_a_reference_volume():
    a, b = np.array([1, 1, 1, 0, 0], bool), np.array([0, 1, 1, 1, 0], bool)
    none = np.zeros(5, bool)
    assert volume_iou(a, b) == 0.5
    assert volume_iou(none, b) == 0
    assert np.isnan(volume_iou(none, none))
    assert np.isnan(volume_iou(a, none))


@pytest.mark.parametrize(("radius", "iou"), [(0.41, 0.92860), (0.42, 0.86384)])
def test_iou_of_concentric_spheres_is_the_ratio_of_volumes(radius, iou):
    points = (np.random.default_rng(20).random((COUNT, 3)) - 0.5) * 1.1
    measured = volume_iou(solids.sphere_inside(points, 0.4), solids.sphere_inside(points, radius))
    assert measured == pytest.approx(iou, abs=0.005)


def test_a_cloud_without_normals_has_distances_and_no_normal_consistency():
    points, normals = sphere_samples(0.4, 21, 500)
    row = compare_surfaces(points, None, *sphere_samples(0.4, 22, 800))
    full = compare_surfaces(points, normals, *sphere_samples(0.4, 22, 800))
    assert row["chamfer_l1"] == full["chamfer_l1"] and np.isfinite(full["normal_consistency"])
    assert all(np.isnan(row[key]) for key in ("normal_consistency", "normals_accuracy", "normals_completeness"))


def test_no_sample_is_refused():
    with pytest.raises(ValueError, match="no sample"):
        compare_surfaces(np.zeros((0, 3)), np.zeros((0, 3)), *sphere_samples(0.4, 22, 10))


def one_to_one(normals, others):
    """A match of points that are all far apart, each with its own counterpart."""
    points = np.arange(len(normals))[:, None] * [1.0, 0, 0]
    return Match.of(Samples(points, np.asarray(normals)), Samples(points, np.asarray(others)))


@pytest.mark.parametrize(("degrees", "inflated"), [(10, 0.986), (30, 0.896), (45, 0.804)])
def test_adding_up_components_inflates_the_consistency_as_measured(degrees, inflated):
    """Golden of neuralpull.md 7: random normals turned by an angle."""
    rng = np.random.default_rng(degrees)
    normals = rng.normal(size=(40_000, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    side = np.cross(normals, rng.normal(size=(40_000, 3)))
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    angle = np.radians(degrees)
    match = one_to_one(normals, np.cos(angle) * normals + np.sin(angle) * side)
    assert componentwise_consistency(match) == pytest.approx(inflated, abs=0.003)
    assert signed_consistency(match) == pytest.approx(np.cos(angle))


def test_normals_that_point_the_other_way_count_negative_only_where_signs_count():
    match = one_to_one([[0, 0, 1.0], [0, 1, 0]], [[0, 0, -1.0], [0, 1, 0]])
    assert signed_consistency(match) == 0 and componentwise_consistency(match) == 1


def test_a_distance_equal_to_the_threshold_is_within_unless_it_must_be_below():
    here, there = Samples(np.zeros((1, 3)), None), Samples(np.array([[0.5, 0, 0]]), None)
    assert threshold_scores(Match.of(here, there), (0.5,))["f_0.5"] == 1
    assert threshold_scores(Match.of(here, there), (0.5,), strict=True)["f_0.5"] == 0


def test_an_assignment_uses_every_point_once():
    left = np.array([[0.0, 0, 0], [1, 0, 0]])
    right = np.array([[1.0, 0, 0], [3, 0, 0]])  # nearest neighbours would use the first one twice
    assert assignment_distance(left, right) == pytest.approx((1 + 2) / 2)
    assert assignment_distance(left, left[::-1]) == 0
    with pytest.raises(ValueError, match="equal numbers"):
        assignment_distance(left, right[:1])
