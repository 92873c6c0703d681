"""Volume samples: uniform in the cube, labelled as stored."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.arrays import Mesh, Rejected
from pipeline.geometry.inside import occupancy
from pipeline.samples.volume import VolumeSettings, sample_volume
from pipeline.seeds import rng_for
from pipeline.storage import decode, encode
from pipeline.storage_settings import StorageSettings
from tests import solids

SOLIDS = {
    "sphere": (solids.icosphere(0.5, subdivisions=5), solids.sphere_volume(0.5)),
    "box": (solids.box((1.0, 0.4, 0.7)), solids.box_volume((1.0, 0.4, 0.7))),
    "torus": (solids.torus(), solids.torus_volume(0.35, 0.15)),
    "three boxes": (solids.three_boxes(), solids.three_boxes_volume()),
}


def stream(name="test"):
    return rng_for(0, "sample_volume", name)


@pytest.mark.parametrize("name", SOLIDS)
def test_the_occupied_share_is_the_volume_within_sampling_error(name):
    mesh, volume = SOLIDS[name]
    count = 50_000
    figures = sample_volume(mesh, VolumeSettings(count=count), stream()).figures
    share = volume / 1.1**3
    assert figures["occupied_share"] == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / count) + 1e-3)
    assert figures["sampled_volume"] == pytest.approx(figures["occupied_share"] * 1.1**3, rel=1e-5)
    assert figures["mesh_volume"] == pytest.approx(volume, rel=6e-3)


def test_labels_agree_with_the_closed_form_point_by_point():
    value = sample_volume(solids.three_boxes(), VolumeSettings(count=50_000), stream()).value
    distances = solids.three_boxes_sdf(value["points"])
    sure = np.abs(distances) > 1e-6
    assert sure.mean() > 0.999
    np.testing.assert_array_equal(value["occupancies"][sure], distances[sure] < 0)


@pytest.mark.parametrize("padding", [0.0, 0.1, 0.5])
def test_points_fill_the_cube_evenly(padding):
    count, bins = 20_000, 10
    half = (1 + padding) / 2
    points = sample_volume(solids.box(), VolumeSettings(count=count, padding=padding), stream()).value["points"]
    assert points.shape == (count, 3)
    assert points.dtype == np.float32
    assert np.abs(points).max() <= half + 2e-5
    counts = [np.histogram(axis, bins, (-half - 2e-5, half + 2e-5))[0] for axis in points.T]
    np.testing.assert_allclose(counts, count / bins, atol=4.5 * np.sqrt(count / bins))
    octants = np.bincount((points > 0) @ (1, 2, 4), minlength=8)
    np.testing.assert_allclose(octants, count / 8, atol=4.5 * np.sqrt(count / 8))


def test_fewer_points_are_the_first_of_many():
    few, many = (
        sample_volume(solids.three_boxes(), VolumeSettings(count=count), stream()).value for count in (3, 4000)
    )
    for name in ("points", "occupancies"):
        np.testing.assert_array_equal(few[name], many[name][:3])


@settings(max_examples=25, deadline=None)
@given(
    padding=st.floats(0, 1),
    kind=st.sampled_from(["float32", "float16", "uint16"]),
    name=st.text(max_size=5),
)
def test_labels_belong_to_the_coordinates_as_stored(padding, kind, name):
    mesh = solids.three_boxes()
    chosen = VolumeSettings(padding=padding, count=300, storage=StorageSettings(points=kind))
    product = sample_volume(mesh, chosen, stream(name))
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
        sample_volume(mesh, VolumeSettings(storage=StorageSettings(points=kind)), stream()).value
        for kind in ("float32", "float16")
    )
    assert (exact["occupancies"] != half["occupancies"]).any()
    np.testing.assert_array_equal(occupancy(mesh, half["points"]), half["occupancies"])


def test_the_stream_decides_every_byte():
    mesh, chosen = solids.three_boxes(), VolumeSettings(count=500)
    first, again, other = (sample_volume(mesh, chosen, stream(name)).value for name in ("a", "a", "b"))
    assert first["points"].tobytes() == again["points"].tobytes()
    assert first["occupancies"].tobytes() == again["occupancies"].tobytes()
    assert first["points"].tobytes() != other["points"].tobytes()


def test_a_mesh_without_area_is_rejected():
    with pytest.raises(Rejected, match="area"):
        sample_volume(Mesh([(0, 0, 0)], [(0, 0, 0)]), VolumeSettings(count=10), stream())


@pytest.mark.parametrize("inside", ["parity", "waterproof"])
def test_the_originals_inside_tests_agree_on_a_closed_mesh(inside):
    mesh, settings = solids.three_boxes(), VolumeSettings(count=5000)
    rays, other = (
        sample_volume(mesh, s, rng_for(0, "sample_volume", "x")).value
        for s in (settings, settings.model_copy(update={"inside": inside}))
    )
    np.testing.assert_array_equal(rays["points"], other["points"])
    np.testing.assert_array_equal(rays["occupancies"], other["occupancies"])


def test_more_points_than_memory_holds_are_refused_before_they_are_drawn(monkeypatch):
    limit = 400 * 2**20
    monkeypatch.setattr("pipeline.geometry.memory.resource.getrlimit", lambda kind: (limit, limit))
    with pytest.raises(MemoryError, match="100,000,000 points needs 21,935 MB"):
        sample_volume(solids.three_boxes(), VolumeSettings(count=100_000_000), rng_for(0, "x"))
