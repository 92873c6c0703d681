"""Boundary samples: Gaussian about the surface, labelled as stored."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.arrays import Mesh, Rejected
from pipeline.geometry.inside import occupancy
from pipeline.samples.boundary import BoundarySettings, sample_boundary
from pipeline.seeds import rng_for
from pipeline.storage import decode, encode
from pipeline.storage_settings import StorageSettings
from tests import solids


def stream(name="test"):
    return rng_for(0, "sample_boundary", name)


def test_labels_agree_with_the_closed_form_point_by_point():
    product = sample_boundary(solids.three_boxes(), BoundarySettings(sigma=0.03, count=30_000), stream())
    distances = solids.three_boxes_sdf(product.value["points"])
    sure = np.abs(distances) > 1e-6
    assert sure.mean() > 0.999
    np.testing.assert_array_equal(product.value["occupancies"][sure], distances[sure] < 0)


def test_displacements_are_isotropic_with_the_standard_deviation_sigma():
    # A box so small that its surface is a point leaves the displacements alone.
    sigma, count, centre = 0.05, 40_000, np.array((0.1, -0.2, 0.3))
    mesh = solids.box((1e-5, 1e-5, 1e-5), centre)
    moved = sample_boundary(mesh, BoundarySettings(sigma=sigma, count=count), stream()).value["points"] - centre
    np.testing.assert_allclose(moved.mean(axis=0), 0, atol=4 * sigma / np.sqrt(count))
    np.testing.assert_allclose(np.cov(moved.T), sigma**2 * np.eye(3), atol=5 * sigma**2 / np.sqrt(count))
    assert (np.abs(moved) < sigma).mean() == pytest.approx(0.6827, abs=0.006)


def test_half_of_the_points_at_a_flat_surface_are_inside():
    count = 40_000
    chosen = BoundarySettings(sigma=1e-3, count=count, storage=StorageSettings(points="float32"))
    product = sample_boundary(solids.box((1, 1, 1)), chosen, stream())
    assert product.figures["occupied_share"] == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(count) + 1e-3)
    assert product.figures["occupied_share"] == product.value["occupancies"].mean()


def test_a_prefix_covers_the_surface_like_the_whole():
    points = sample_boundary(solids.three_boxes(), BoundarySettings(sigma=1e-3, count=20_000), stream()).value["points"]
    distances = [np.abs(solids.box_sdf(points[:2000], *parts)) for parts in solids.THREE_BOXES]
    shares = np.array([solids.box_area(extents) for extents, _ in solids.THREE_BOXES]) / solids.three_boxes_area()
    counts = np.bincount(np.argmin(distances, axis=0), minlength=3)
    assert (np.abs(counts - 2000 * shares) < 4 * np.sqrt(2000 * shares * (1 - shares))).all()


@settings(max_examples=25, deadline=None)
@given(
    sigma=st.floats(1e-3, 0.3),
    kind=st.sampled_from(["float32", "float16", "uint16"]),
    name=st.text(max_size=5),
)
def test_labels_belong_to_the_coordinates_as_stored(sigma, kind, name):
    mesh = solids.three_boxes()
    chosen = BoundarySettings(sigma=sigma, count=300, storage=StorageSettings(points=kind))
    product = sample_boundary(mesh, chosen, stream(name))
    read = {
        key: decode(encode(array, product.encoding[key]), product.encoding[key]) for key, array in product.value.items()
    }
    np.testing.assert_array_equal(read["points"], product.value["points"])
    np.testing.assert_array_equal(read["occupancies"], product.value["occupancies"])
    np.testing.assert_array_equal(occupancy(mesh, read["points"]), read["occupancies"])


def test_rounding_comes_before_labelling():
    # Half precision moves points across the surface: the labels must be those of the side they end on.
    mesh = solids.three_boxes()
    exact, half = (
        sample_boundary(
            mesh, BoundarySettings(sigma=0.01, count=20_000, storage=StorageSettings(points=kind)), stream()
        ).value
        for kind in ("float32", "float16")
    )
    assert (exact["occupancies"] != half["occupancies"]).any()
    np.testing.assert_array_equal(occupancy(mesh, half["points"]), half["occupancies"])


def test_the_stream_decides_every_byte():
    mesh, chosen = solids.three_boxes(), BoundarySettings(sigma=0.02, count=500)
    first, again, other = (sample_boundary(mesh, chosen, stream(name)).value for name in ("a", "a", "b"))
    assert first["points"].tobytes() == again["points"].tobytes()
    assert first["occupancies"].tobytes() == again["occupancies"].tobytes()
    assert first["points"].tobytes() != other["points"].tobytes()


def test_sigma_is_required_and_positive():
    for values in ({}, {"sigma": 0.0}, {"sigma": -0.1}):
        with pytest.raises(ValidationError):
            BoundarySettings(**values)


def test_a_mesh_without_area_is_rejected():
    with pytest.raises(Rejected, match="total area"):
        sample_boundary(Mesh([(0, 0, 0)], [(0, 0, 0)]), BoundarySettings(sigma=0.1, count=10), stream())


@pytest.mark.parametrize("inside", ["parity", "waterproof"])
def test_the_originals_inside_tests_agree_on_a_closed_mesh(inside):
    mesh, settings = solids.three_boxes(), BoundarySettings(sigma=0.05, count=5000)
    rays, other = (
        sample_boundary(mesh, s, rng_for(0, "sample_boundary", "x")).value
        for s in (settings, settings.model_copy(update={"inside": inside}))
    )
    np.testing.assert_array_equal(rays["points"], other["points"])
    np.testing.assert_array_equal(rays["occupancies"], other["occupancies"])


def test_more_points_than_memory_holds_are_refused_before_they_are_drawn(monkeypatch):
    limit = 400 * 2**20
    monkeypatch.setattr("pipeline.geometry.memory.resource.getrlimit", lambda kind: (limit, limit))
    with pytest.raises(MemoryError, match="100,000,000 points needs 21,935 MB"):
        sample_boundary(solids.three_boxes(), BoundarySettings(sigma=0.05, count=100_000_000), rng_for(0, "x"))
