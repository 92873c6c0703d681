"""Signed distances: right against closed forms, row by row, with every sign kept."""

import numpy as np
import pytest

from pipeline.arrays import Mesh, Rejected
from pipeline.samples.boundary import BoundarySettings, sample_boundary
from pipeline.samples.sdf import SdfSettings, compute_sdf
from pipeline.samples.volume import VolumeSettings, sample_volume
from pipeline.seeds import rng_for
from pipeline.storage import rounded
from pipeline.storage_settings import StorageSettings
from tests import solids

EXACT = SdfSettings(storage=StorageSettings(sdf="float32"))


def sample_sets(mesh, count=10_000):
    volume = sample_volume(mesh, VolumeSettings(count=count), rng_for(0, "sample_volume", "x"))
    near = sample_boundary(mesh, BoundarySettings(sigma=0.02, count=count // 2), rng_for(0, "sample_boundary", "x"))
    return {"volume": volume, "boundary-0.02": near}


@pytest.mark.parametrize(("settings", "relative"), [(EXACT, 0.0), (SdfSettings(), 2**-11)], ids=["float32", "float16"])
def test_distances_agree_with_the_closed_form_row_by_row(settings, relative):
    sets = {name: product.value["points"] for name, product in sample_sets(solids.three_boxes()).items()}
    value = compute_sdf(solids.three_boxes(), sets, settings).value
    assert list(value) == list(sets)
    for name, points in sets.items():
        exact = solids.three_boxes_sdf(points)
        assert value[name].dtype == np.float32
        assert value[name].shape == (len(points),)
        assert (np.abs(value[name] - exact) <= relative * np.abs(exact) + 5e-7).all()


@pytest.mark.parametrize(
    ("mesh", "exact"),
    [
        (
            solids.icosphere(0.4, (0.05, 0.0, -0.1), subdivisions=5),
            lambda p: solids.sphere_sdf(p, 0.4, (0.05, 0.0, -0.1)),
        ),
        (solids.torus(sections=(192, 96)), solids.torus_sdf),
    ],
    ids=["sphere", "torus"],
)
def test_distances_to_round_solids_are_right_within_the_tessellation(mesh, exact):
    points = np.random.default_rng(0).uniform(-0.55, 0.55, (5000, 3)).astype(np.float32)
    value = compute_sdf(mesh, {"volume": points}, EXACT).value["volume"]
    np.testing.assert_allclose(value, exact(points), atol=4e-4)


def test_negative_means_occupied_at_every_sample():
    mesh = solids.three_boxes()
    samples = sample_sets(mesh)
    product = compute_sdf(mesh, {name: sample.value["points"] for name, sample in samples.items()}, SdfSettings())
    for name, sample in samples.items():
        np.testing.assert_array_equal(product.value[name] < 0, sample.value["occupancies"])
        assert product.figures["inside_share"][name] == sample.figures["occupied_share"]


def test_a_distance_below_half_precision_keeps_its_sign():
    mesh = solids.box((0.5, 0.5, 0.5))
    beside = [np.nextafter(np.float32(0.25), np.float32(towards)) for towards in (0, 1)]
    points = np.array([(x, 0.11, 0.07) for x in beside], np.float32)
    np.testing.assert_array_equal(compute_sdf(mesh, {"a": points}, SdfSettings()).value["a"], [-(2**-24), 2**-24])


def test_values_are_rounded_to_their_encoding():
    product = compute_sdf(
        solids.three_boxes(), {"a": np.random.default_rng(0).uniform(-0.5, 0.5, (500, 3))}, SdfSettings()
    )
    assert product.encoding == {"a": ("float16",)}
    np.testing.assert_array_equal(rounded(product.value["a"], ("float16",)), product.value["a"])


def test_reordered_points_give_reordered_distances():
    points = np.random.default_rng(0).uniform(-0.55, 0.55, (2000, 3)).astype(np.float32)
    order = np.random.default_rng(1).permutation(2000)
    value = compute_sdf(solids.three_boxes(), {"a": points, "b": points[order]}, EXACT).value
    np.testing.assert_array_equal(value["b"], value["a"][order])


def test_no_sets_give_no_distances():
    product = compute_sdf(solids.box(), {}, SdfSettings())
    assert (product.value, product.encoding) == ({}, {})


def test_a_mesh_without_area_is_rejected():
    with pytest.raises(Rejected, match="area"):
        compute_sdf(Mesh([(0, 0, 0)], [(0, 0, 0)]), {"a": np.zeros((1, 3))}, SdfSettings())


def test_the_figures_tell_how_many_signs_agree_with_the_labels():
    mesh = solids.three_boxes()
    samples = sample_sets(mesh, 1000)
    sets = {name: sample.value["points"] for name, sample in samples.items()}
    labels = {name: sample.value["occupancies"].copy() for name, sample in samples.items()}
    labels["volume"][:100] = ~labels["volume"][:100]
    figures = compute_sdf(mesh, sets, SdfSettings(), labels).figures
    assert figures["sign_agreement"] == {"volume": 0.9, "boundary-0.02": 1.0}
    assert "sign_agreement" not in compute_sdf(mesh, sets, SdfSettings()).figures
