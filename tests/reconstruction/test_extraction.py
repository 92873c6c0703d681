"""Extraction: many shapes in full blocks, surfaces where the field has them, reasons where it has none."""

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.arrays import Product, Rejected
from pipeline.geometry.measures import area, volume
from pipeline.geometry.quality import is_watertight
from pipeline.reconstruction.extract import ROW_POINTS, ExtractionSettings, extract
from pipeline.settings import module_head
from tests import solids

SPHERES = [(0.4, (0.0, 0.0, 0.0)), (0.3, (0.0, 0.0, 0.0)), (0.25, (0.1, 0.05, -0.02))]
MISE, DENSE = ExtractionSettings(), ExtractionSettings(method="dense")


def balls(spheres, calls=None, transform=lambda distance: distance):
    """A batched field of spheres: (B,) indices and (B, N, 3) queries to (B, N) float32."""

    def field(shapes, queries):
        if calls is not None:
            calls.append((shapes, queries))
        distances = [solids.sphere_sdf(q, *spheres[s]) for s, q in zip(shapes, queries, strict=True)]
        return transform(np.array(distances)).astype(np.float32)

    return field


def centroid(mesh):
    a, b, c = mesh.triangles.transpose(1, 0, 2)
    parts = np.einsum("ij,ij->i", a, np.cross(b, c))
    return ((a + b + c) / 4 * parts[:, None]).sum(axis=0) / parts.sum()


@pytest.mark.parametrize("settings", [MISE, DENSE, ExtractionSettings(mode="safe")])
def test_spheres_come_out_closed_outward_and_where_they_are(settings):
    outcomes = extract(balls(SPHERES), 3, "signed_distance", settings)
    sizes = [(40_854, 81_704), (22_902, 45_800), (15_954, 31_904)]
    for (radius, centre), size, product in zip(SPHERES, sizes, outcomes, strict=True):
        mesh = product.value
        assert (len(mesh.vertices), len(mesh.faces)) == size
        assert product.figures["faces"] == size[1]
        assert is_watertight(mesh)
        np.testing.assert_allclose(volume(mesh), solids.sphere_volume(radius), rtol=1e-3)
        np.testing.assert_allclose(centroid(mesh), centre, atol=1e-4)
        assert np.abs(solids.sphere_sdf(mesh.vertices, radius, centre)).max() < 1e-4


def test_the_largest_sphere_has_the_originals_volume_area_and_query_count():
    (product,) = extract(balls(SPHERES), 1, "signed_distance", MISE)
    assert volume(product.value) == pytest.approx(0.268009, abs=2e-6)
    assert area(product.value) == pytest.approx(2.01033, abs=2e-5)
    assert product.figures["query_points"] == 163_261


def test_mise_and_dense_evaluation_give_one_mesh():
    for mise, dense in zip(*(extract(balls(SPHERES), 3, "signed_distance", s) for s in (MISE, DENSE)), strict=True):
        np.testing.assert_array_equal(mise.value.faces, dense.value.faces)
        np.testing.assert_allclose(mise.value.vertices, dense.value.vertices, atol=1e-6)


def test_coarse_to_fine_gives_the_mesh_of_dense_evaluation_at_its_own_places():
    fine = ExtractionSettings(method="coarse_to_fine", resolution_0=32, depth=2, box=1.0)
    outcomes = extract(balls(SPHERES), 3, "signed_distance", fine)
    for (radius, centre), product in zip(SPHERES, outcomes, strict=True):
        mesh = product.value
        assert is_watertight(mesh) and volume(mesh) == pytest.approx(solids.sphere_volume(radius), rel=1e-3)
        np.testing.assert_allclose(centroid(mesh), centre, atol=1e-4)
        assert np.abs(solids.sphere_sdf(mesh.vertices, radius, centre)).max() < 1e-4
        assert 32**3 < product.figures["query_points"] < 0.25 * 128**3
    # The voxel centres of 128 are the lattice of a box half a voxel smaller all round.
    lattice = ExtractionSettings(method="dense", resolution=127, box=127 / 128)
    for ours, theirs in zip(outcomes, extract(balls(SPHERES), 3, "signed_distance", lattice), strict=True):
        np.testing.assert_array_equal(ours.value.faces, theirs.value.faces)
        np.testing.assert_allclose(ours.value.vertices, theirs.value.vertices, atol=1e-6)


def test_three_unequal_boxes_keep_their_place_axes_and_sizes():
    def field(shapes, queries):
        return np.array([solids.three_boxes_sdf(q) for q in queries], np.float32)

    (product,) = extract(field, 1, "signed_distance", MISE)
    mesh = product.value
    assert np.abs(solids.three_boxes_sdf(mesh.vertices)).max() < 1.1 / 128 / 2
    low = np.min([np.subtract(c, np.divide(e, 2)) for e, c in solids.THREE_BOXES], axis=0)
    high = np.max([np.add(c, np.divide(e, 2)) for e, c in solids.THREE_BOXES], axis=0)
    np.testing.assert_allclose(mesh.bounds, [low, high], atol=1e-4)
    assert volume(mesh) == pytest.approx(solids.three_boxes_volume(), rel=0.01)
    np.testing.assert_allclose(
        volume(extract(field, 1, "signed_distance", ExtractionSettings(largest_component=True))[0].value),
        solids.box_volume((0.40, 0.22, 0.14)),
        rtol=0.02,
    )


@pytest.mark.parametrize("level", [None, 0.2, 0.9])
@pytest.mark.parametrize("quantity", ["occupancy_logit", "occupancy"])
def test_the_level_of_an_occupancy_is_a_probability(level, quantity):
    probability = 0.5 if level is None else level

    def transform(distance):  # the sigmoid of the logit is the probability exactly where the distance is zero
        logit = np.log(probability / (1 - probability)) - 40 * distance
        return logit if quantity == "occupancy_logit" else 1 / (1 + np.exp(-logit))

    settings = ExtractionSettings(resolution_0=32, depth=1, level=level)
    (product,) = extract(balls([(0.3, (0.02, -0.05, 0.1))], transform=transform), 1, quantity, settings)
    error = np.abs(solids.sphere_sdf(product.value.vertices, 0.3, (0.02, -0.05, 0.1)))
    assert error.max() < 1.1 / 64 / 10  # a tenth of a cell
    assert volume(product.value) > 0


def test_the_level_of_a_signed_distance_is_a_distance():
    settings = ExtractionSettings(depth=1, level=0.05)
    (product,) = extract(balls([(0.3, (0.0, 0.1, 0.0))]), 1, "signed_distance", settings)
    assert np.abs(solids.sphere_sdf(product.value.vertices, 0.35, (0.0, 0.1, 0.0))).max() < 1e-3


@pytest.mark.parametrize("method", ["mise", "dense", "coarse_to_fine"])
def test_shapes_without_a_surface_are_rejected_with_the_reason_and_do_not_disturb_the_others(method):
    spheres = [(0.3, (0.0, 0.0, 0.0)), (-1.0, (0.0, 0.0, 0.0)), (5.0, (0.0, 0.0, 0.0)), (np.nan, (0.0, 0.0, 0.0))]
    settings = ExtractionSettings(method=method, resolution_0=16, depth=1, resolution=32)
    good, empty, full, broken = extract(balls(spheres), 4, "signed_distance", settings)
    (alone,) = extract(balls(spheres), 1, "signed_distance", settings)
    assert all(isinstance(outcome, Rejected) for outcome in (empty, full, broken))
    assert "nowhere inside" in str(empty)
    assert "everywhere inside" in str(full)
    assert "not finite" in str(broken)
    assert isinstance(good, Product)
    np.testing.assert_array_equal(good.value.vertices, alone.value.vertices)


@pytest.mark.parametrize("method", ["mise", "dense", "coarse_to_fine"])
def test_blocks_keep_to_the_settings_and_no_shape_stands_in_one_twice(method):
    calls = []
    settings = ExtractionSettings(
        method=method, resolution_0=16, depth=1, resolution=32, batch_points=3 * ROW_POINTS, batch_shapes=2
    )
    outcomes = extract(balls(SPHERES, calls), 3, "signed_distance", settings)
    assert {queries.shape for _, queries in calls} <= {(1, k * ROW_POINTS, 3) for k in (1, 2, 3)} | {(2, ROW_POINTS, 3)}
    assert max(queries.size for _, queries in calls) == 3 * 3 * ROW_POINTS
    assert all(queries.dtype == np.float32 and len(shapes) == len(queries) for shapes, queries in calls)
    assert all(len(set(shapes)) == len(shapes) for shapes, _ in calls)
    second_group = [2 in shapes for shapes, _ in calls]
    assert second_group == sorted(second_group) and not any({0, 1} & set(shapes) for shapes, _ in calls if 2 in shapes)
    whole = extract(balls(SPHERES), 3, "signed_distance", settings.model_copy(update={"batch_shapes": 3}))
    for one, other in zip(outcomes, whole, strict=True):
        np.testing.assert_array_equal(one.value.vertices, other.value.vertices)


def test_blocks_are_full_but_for_a_row_per_shape_and_the_leftovers_of_a_round():
    calls = []
    outcomes = extract(balls(SPHERES, calls), 3, "signed_distance", MISE)
    asked = sum(product.figures["query_points"] for product in outcomes)
    evaluated = sum(queries.shape[0] * queries.shape[1] for _, queries in calls)
    assert asked <= evaluated <= asked + 3 * 4 * ROW_POINTS
    pieces = int(np.log2(MISE.batch_points // ROW_POINTS))  # lengths into which the leftovers of a round are cut
    assert len(calls) <= evaluated // MISE.batch_points + 4 * pieces * 2


def test_leftovers_of_many_shapes_share_full_blocks():
    calls = []
    extract(
        balls(SPHERES * 8, calls), 24, "signed_distance", ExtractionSettings(resolution_0=32, depth=0, batch_shapes=24)
    )
    assert len(calls) == 12 + 2  # 36k points are one piece of 32k and one of 4k: twelve full blocks, two of the rest
    assert all(queries.shape[0] * queries.shape[1] == MISE.batch_points for _, queries in calls[:12])


def test_batches_smaller_than_a_row_are_kept():
    calls = []
    extract(balls(SPHERES, calls), 1, "signed_distance", ExtractionSettings(resolution_0=8, depth=0, batch_points=100))
    assert {queries.shape for _, queries in calls} == {(1, 100, 3)}


def test_a_field_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match="the field gave values of shape"):
        extract(lambda shapes, queries: np.zeros(3), 1, "signed_distance", MISE)


@pytest.mark.parametrize("level", [0.0, 1.0, -2.0])
def test_a_probability_outside_zero_and_one_is_refused(level):
    with pytest.raises(ValueError, match="probability above 0 and below 1"):
        extract(balls(SPHERES), 1, "occupancy_logit", ExtractionSettings(level=level))


def test_unknown_settings_are_refused():
    with pytest.raises(ValidationError):
        ExtractionSettings(padding=0.1)


def test_settings_are_read_without_loading_a_library():
    head = module_head("pipeline.reconstruction.extract")
    assert head.ExtractionSettings().model_dump() == MISE.model_dump()
    assert not hasattr(head, "np")
