"""Generated sets against references: small cases worked out by hand, and the extremes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation.generators import (
    GeneratorSettings,
    chamfer_distances,
    compare_generated,
    generator_metrics,
    surface_clouds,
)
from pipeline.evaluation.light_field import light_field_descriptor, light_field_distance
from pipeline.settings import module_head
from tests import solids


def on_a_line(generated, references):
    """Metrics of numbers as shapes, their distance the difference."""
    g, r = np.array(generated, float), np.array(references, float)
    return generator_metrics(*(np.abs(a[:, None] - b[None]) for a, b in ((g, r), (g, g), (r, r))))


def test_a_case_worked_out_by_hand():
    metrics = on_a_line([0.1, 0.2, 7.0], [0.0, 5.0, 10.0, 20.0])
    # Nearest references: 0, 0, 5. Nearest generated per reference: 0.1, 2, 3, 13.
    assert metrics["coverage"] == 2 / 4
    assert metrics["mmd"] == pytest.approx((0.1 + 2 + 3 + 13) / 4)
    # 0.1 is as near to 0.2 as to 0 (half), 0.2 has 0.1, 7 has 5; 0 has 0.1, 5 has 7, 10 has 7, 20 has 10.
    assert metrics["one_nna"] == pytest.approx((0.5 + 1 + 0 + 0 + 0 + 0 + 1) / 7)
    assert (metrics["generated"], metrics["references"], metrics["failed"]) == (3, 4, 0)


def test_copies_of_the_references_cover_all_at_no_distance_and_are_not_told_apart():
    metrics = on_a_line([1, 4, 9], [1, 4, 9])
    assert (metrics["coverage"], metrics["mmd"], metrics["one_nna"]) == (1.0, 0.0, 0.0)


def test_one_shape_over_and_over_covers_one_reference_and_is_told_apart():
    metrics = on_a_line([100, 100, 100], [1, 4, 9])
    assert (metrics["coverage"], metrics["one_nna"]) == (1 / 3, 1.0)


def test_samples_of_one_distribution_cannot_be_told_apart():
    numbers = np.random.default_rng(0).random(800)
    assert on_a_line(numbers[:400], numbers[400:])["one_nna"] == pytest.approx(0.5, abs=0.06)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(1, 7))
def test_metrics_do_not_depend_on_the_order_of_the_shapes(seed, generated, references):
    rng = np.random.default_rng(seed)
    g, r = rng.random(generated), rng.random(references)
    one, other = on_a_line(g, r), on_a_line(rng.permutation(g), rng.permutation(r))
    assert one == pytest.approx(other)
    assert 1 / references <= one["coverage"] <= min(1, generated / references)
    assert 0 <= one["one_nna"] <= 1


def test_failed_shapes_cover_nothing_and_are_told_apart():
    cross = np.array([[1.0, 2.0], [np.inf, np.inf]])
    metrics = generator_metrics(cross, np.array([[0, np.inf], [np.inf, 0]]), np.array([[0, 5.0], [5.0, 0]]))
    assert (metrics["coverage"], metrics["mmd"], metrics["failed"]) == (0.5, 1.5, 1)
    assert metrics["one_nna"] == 0.25  # only the failed one
    nothing = generator_metrics(np.full((1, 2), np.inf), np.zeros((1, 1)), np.array([[0, 5.0], [5.0, 0]]))
    assert (nothing["coverage"], nothing["mmd"], nothing["one_nna"]) == (0.0, np.inf, 1.0)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 3), (3, 3), (2, 2)), r"must be \(g, r\), \(g, g\) and \(r, r\)"),
        (((0, 2), (0, 0), (2, 2)), "0 generated shapes and 2 references"),
    ],
)
def test_matrices_that_do_not_fit_are_refused(shapes, message):
    with pytest.raises(ValueError, match=message):
        generator_metrics(*(np.zeros(shape) for shape in shapes))


@pytest.mark.parametrize("value", [np.nan, -1.0])
def test_distances_that_are_none_are_refused(value):
    with pytest.raises(ValueError, match="generated to references hold values"):
        generator_metrics(np.array([[1.0, value]]), np.zeros((1, 1)), np.zeros((2, 2)))


def test_chamfer_distances_are_sums_of_mean_squares_both_ways():
    clouds = [np.array([[0.0, 0, 0]]), np.array([[1.0, 0, 0], [3.0, 0, 0]])]
    np.testing.assert_allclose(chamfer_distances(clouds), [[0, 1 + (1 + 9) / 2], [6, 0]])
    np.testing.assert_allclose(chamfer_distances(clouds, clouds[:1]), [[0], [6]])
    assert np.isinf(chamfer_distances([None, clouds[0]], clouds)).tolist() == [[True, True], [False, False]]


def test_spheres_a_radius_apart_have_the_chamfer_distance_of_their_shells():
    rng = np.random.default_rng(1)
    clouds = surface_clouds([solids.icosphere(r, subdivisions=5) for r in (0.40, 0.42)], 2048, rng)
    # The floor of n samples on area A is A / (pi n) each way.
    floor = (solids.sphere_area(0.40) + solids.sphere_area(0.42)) / (np.pi * 2048)
    assert chamfer_distances(clouds)[0, 1] == pytest.approx(2 * 0.02**2 + floor, rel=0.1)


def test_meshes_are_compared_by_both_distances():
    references = [solids.box((1, 0.4, 0.2)), solids.torus(0.3, 0.12, sections=(24, 12))]
    generated = [solids.box((1, 0.5, 0.2)), solids.box((1, 0.4, 0.25)), None]
    both = compare_generated(generated, references, GeneratorSettings(points=500), np.random.default_rng(0))
    assert set(both) == {"chamfer", "light_field"}
    for metrics in both.values():
        assert metrics["coverage"] == 0.5 and metrics["failed"] == 1 and metrics["references"] == 2
    ours, theirs = ([light_field_descriptor(mesh) for mesh in side] for side in (generated[:2], references))
    nearest = [min(light_field_distance(g, r) for g in ours) for r in theirs]
    assert both["light_field"]["mmd"] == np.mean(nearest)
    only = compare_generated(
        generated, references, GeneratorSettings(points=500, distances=("chamfer",)), np.random.default_rng(0)
    )
    assert only == {"chamfer": both["chamfer"]}


def test_settings_are_read_without_loading_a_library():
    assert not hasattr(module_head("pipeline.evaluation.generators"), "np")
