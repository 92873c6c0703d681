"""The observed cloud: which points, how much noise."""

import numpy as np
import pytest

from pipeline.samples.observation import PointCloudSettings, observe_point_cloud
from pipeline.seeds import rng_for


def cloud(count):
    """Points and normals that tell which row they came from."""
    rows = np.arange(count, dtype=np.float32)[:, None]
    return rows + np.float32([0, 0.25, 0.5]), -rows * np.float32([1, 2, 3])


def observe(count, seed="test", **values):
    return observe_point_cloud(*cloud(count), PointCloudSettings(**values), rng_for(0, "observe", seed))


def test_without_noise_it_is_a_part_of_the_points_with_their_normals():
    observed = observe(1000, points=300, noise=0.0)
    points, normals = cloud(1000)
    rows = observed["points"][:, 0].astype(int)
    assert len(np.unique(rows)) == 300
    np.testing.assert_array_equal(observed["points"], points[rows])
    np.testing.assert_array_equal(observed["normals"], normals[rows])


def test_all_points_are_observed_when_as_many_are_asked_for():
    rows = observe(300, points=300, noise=0.0)["points"][:, 0]
    np.testing.assert_array_equal(np.sort(rows), np.arange(300))


def test_each_point_is_as_likely_as_any_other():
    settings = PointCloudSettings(points=5, noise=0.0)
    rng = rng_for(0, "observe", "many")
    rows = [observe_point_cloud(*cloud(20), settings, rng)["points"][:, 0] for _ in range(4000)]
    counts = np.bincount(np.concatenate(rows).astype(int), minlength=20)
    np.testing.assert_allclose(counts, 1000, atol=4.5 * np.sqrt(4000 * 0.25 * 0.75))


def test_points_repeat_only_where_too_few_are_there():
    observed = observe(10, points=300, noise=0.0)
    assert observed["points"].shape == observed["normals"].shape == (300, 3)
    assert set(observed["points"][:, 0]) == set(range(10))


def test_noise_is_gaussian_with_its_standard_deviation_on_each_axis():
    zeros = np.zeros((50_000, 3), np.float32)
    settings = PointCloudSettings(points=50_000, noise=0.05)
    moved = observe_point_cloud(zeros, zeros, settings, rng_for(0, "observe", "noise"))["points"]
    np.testing.assert_allclose(np.cov(moved.T), 0.05**2 * np.eye(3), atol=5 * 0.05**2 / np.sqrt(50_000))
    assert (np.abs(moved) < 0.05).mean() == pytest.approx(0.6827, abs=0.006)


def test_arrays_are_float32_and_the_stream_decides_every_byte():
    first, again, other = observe(500, "a"), observe(500, "a"), observe(500, "b")
    for name in ("points", "normals"):
        assert first[name].dtype == np.float32
        assert first[name].tobytes() == again[name].tobytes()
        assert first[name].tobytes() != other[name].tobytes()


def test_the_surface_points_stay_as_they_are():
    points, normals = cloud(50)
    observe_point_cloud(points, normals, PointCloudSettings(points=40), rng_for(0, "observe", "x"))
    np.testing.assert_array_equal(points, cloud(50)[0])


def test_a_shape_without_points_cannot_be_observed():
    with pytest.raises(ValueError, match="no surface points"):
        observe(0)


def test_points_and_normals_must_match():
    with pytest.raises(ValueError, match=r"\(5, 3\)"):
        observe_point_cloud(cloud(5)[0], cloud(4)[1], PointCloudSettings(), rng_for(0, "observe", "x"))
