"""Signed distances by votes of what is seen from outside (sheet deepsdf.md 2.2, 2.4 and 12.8)."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline import encoding
from pipeline.arrays import Mesh, Rejected
from pipeline.samples.sdf import SdfSettings, compute_sdf
from pipeline.samples.visible import VisibleCloud, view_positions, visible_cloud, voted_distance
from pipeline.shape_arrays import shape_arrays
from tests import solids
from tests.leaks import SHARES, leaking

COARSE = {"views": 30, "pixels": 120}


def settings(**votes) -> SdfSettings:
    return SdfSettings(method="votes", votes={**COARSE, **votes}, storage={"sdf": "float32"})


def around(mesh: Mesh, sigma: float, count: int = 4000, seed: int = 0) -> np.ndarray:
    """Points (count, 3) float32 near the vertices and in the box."""
    rng = np.random.default_rng(seed)
    near = mesh.vertices[rng.integers(len(mesh.vertices), size=count // 2)] + rng.normal(0, sigma, (count // 2, 3))
    return np.concatenate([near, rng.uniform(-0.55, 0.55, (count - count // 2, 3))]).astype(np.float32)


def sheet(size: float = 0.9) -> Mesh:
    """A square in the plane z = 0, facing up."""
    corners = np.array([(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)]) * size / 2
    return Mesh(corners, [(0, 1, 2), (0, 2, 3)])


def lidless_box() -> Mesh:
    whole = solids.box((0.9, 0.7, 0.5))
    return Mesh(whole.vertices, whole.faces[(whole.triangles[:, :, 2] < 0.25).any(axis=1)])


def test_views_lie_on_the_originals_spiral():
    positions = view_positions(100)
    np.testing.assert_allclose(np.linalg.norm(positions, axis=1), 1)
    np.testing.assert_allclose(positions[:, 1], np.arange(-0.99, 1, 0.02))
    angle = np.pi * (3 - np.sqrt(5))
    np.testing.assert_allclose(
        positions[0], [np.sqrt(1 - 0.9801) * np.cos(angle), -0.99, np.sqrt(0.0199) * np.sin(angle)]
    )


def test_what_is_seen_of_a_box_lies_on_it_with_outward_normals():
    extents, centre = np.array([0.9, 0.5, 0.3]), np.array([0.02, -0.05, 0.1])
    cloud = visible_cloud(solids.box(extents, centre), **COARSE)
    np.testing.assert_allclose(solids.box_sdf(cloud.points, extents, centre), 0, atol=1e-6)
    local = (cloud.points - centre) / extents
    axis = np.abs(local).argmax(axis=1)
    expected = np.eye(3)[axis] * np.sign(local[np.arange(len(local)), axis])[:, None]
    corner = np.sort(np.abs(local), axis=1)[:, 1] > 0.4999
    np.testing.assert_allclose(cloud.normals[~corner], expected[~corner], atol=1e-6)
    assert cloud.wrong_share == cloud.bad_share == 0


def test_distances_to_a_sphere_are_right_and_hardly_any_is_dropped():
    mesh = solids.icosphere(0.45, subdivisions=5)
    points = around(mesh, 0.03)
    product = compute_sdf(mesh, {"volume": points}, settings(), {"volume": solids.sphere_inside(points, 0.45)})
    value, kept = product.value["volume"], product.value["kept.volume"]
    assert value.shape == kept.shape == (4000,) and kept.dtype == bool
    exact = solids.sphere_sdf(points, 0.45)
    # To the plane of a point that is half a pixel's width away at most, or beyond plane_within to the point itself.
    np.testing.assert_allclose(value[kept], exact[kept], atol=1.5e-3)
    assert product.figures["dropped_share"]["volume"] == pytest.approx((~kept).mean()) and (~kept).mean() < 0.02
    assert product.figures["sign_agreement"]["volume"] > 0.995
    assert product.figures["inside_share"]["volume"] == pytest.approx((exact[kept] < 0).mean(), abs=0.005)


def test_every_kept_point_of_boxes_has_its_side():
    """Two boxes apart, so that the nearest points of a place between them may be of either."""
    points = around(solids.three_boxes(), 0.05)
    value = compute_sdf(solids.three_boxes(), {"a": points}, settings()).value
    kept, exact = value["kept.a"], solids.three_boxes_sdf(points)
    assert 0.9 < kept.mean() < 1
    np.testing.assert_array_equal(value["a"][kept] < 0, exact[kept] < 0)
    assert (value["a"][~kept] == 0).all()


@pytest.mark.parametrize(("thickness", "least", "most"), [(2e-5, 0.95, 1.0), (0.03, 0.0, 0.05)])
def test_where_neighbours_straddle_a_plate_points_are_dropped_and_never_given_a_wrong_sign(thickness, least, most):
    extents = np.array([0.9, 0.9, thickness])
    points = np.random.default_rng(0).uniform((-0.4, -0.4, -0.2), (0.4, 0.4, 0.2), (2000, 3)).astype(np.float32)
    distances, kept = voted_distance(visible_cloud(solids.box(extents), **COARSE), points, 11, 0.06)
    assert least <= (~kept).mean() <= most
    np.testing.assert_array_equal(distances[kept] < 0, solids.box_sdf(points[kept], extents) < 0)


def test_a_double_sided_sheet_keeps_nothing():
    one = sheet()
    both = solids.join(one, solids.flipped(one))
    points = np.random.default_rng(0).uniform(-0.3, 0.3, (1000, 3)).astype(np.float32)
    with pytest.raises(Rejected, match=r"no inside that is seen as such|seen from both sides"):
        compute_sdf(both, {"a": points}, settings())
    cloud = visible_cloud(both, **COARSE)
    assert voted_distance(cloud, points, 11, 0.06)[1].mean() < 0.01


@pytest.mark.parametrize(
    ("mesh", "bound", "message"),
    [
        (sheet(), {}, r"of what is seen lies on faces seen from both sides, more than votes\.max_wrong = 0\.02"),
        (lidless_box(), {}, r"votes\.max_wrong = 0\.02 allows: the surface is open or not oriented"),
        (
            lidless_box(),
            {"max_wrong": None},
            r"of the faces are seen from both sides, more than votes\.max_bad",
        ),
    ],
)
def test_surfaces_that_are_seen_from_both_sides_are_rejected(mesh, bound, message):
    with pytest.raises(Rejected, match=message):
        compute_sdf(mesh, {"a": np.zeros((1, 3), np.float32)}, settings(**bound))


def test_an_open_shell_passes_where_no_bound_is_set_as_in_the_originals_program():
    points = around(lidless_box(), 0.05)
    product = compute_sdf(lidless_box(), {"a": points}, settings(max_wrong=None, max_bad=None))
    assert product.figures["wrong_share"] > 0.02 and product.figures["bad_share"] > 0.5
    below = product.value["kept.a"] & (points[:, 2] < -0.26)
    assert below.any() and (product.value["a"][below] > 0).all()


def test_cavities_are_not_seen():
    hollow = solids.join(solids.icosphere(0.45, subdivisions=4), solids.flipped(solids.icosphere(0.3, subdivisions=4)))
    points = np.float32([(0, 0.05, 0), (0.37, 0, 0), (0.5, 0.1, 0)])
    assert (compute_sdf(hollow, {"a": points}, SdfSettings()).value["a"] < 0).tolist() == [False, True, False]
    value = compute_sdf(hollow, {"a": points}, settings()).value
    assert (value["a"] < 0).tolist() == [True, True, False] and value["kept.a"].all()


def test_votes_by_hand():
    """Two points of a floor facing up, one of a ceiling facing down, below it."""
    places, normals = [(0.0, 0, 0), (0.1, 0, 0), (0, 0, 1.0)], [(0.0, 0, 1), (0, 0, 1), (0, 0, -1)]
    cloud = VisibleCloud(np.array(places), np.array(normals), 0, 0)
    points = np.array([(0.05, 0, 0.02), (0.01, 0, 0.3), (0.02, 0, -0.3), (0, 0, 1.2), (0, 0, 0)], np.float32)
    distances, agreed = voted_distance(cloud, points, 2, 0.1)
    # Near: to the plane. Far: to the point. Before the ceiling's back and the floor's front: disputed. On a point: too.
    assert agreed.tolist() == [True, True, True, False, False]
    np.testing.assert_allclose(distances, [0.02, np.hypot(0.01, 0.3), -np.hypot(0.02, 0.3), 0, 0], rtol=1e-6)
    assert voted_distance(cloud, points[1:2], 3, 0.1)[1].tolist() == [True]
    with pytest.raises(Rejected, match=r"3 points of the surface are seen from outside, and 4 are to vote; raise"):
        voted_distance(cloud, points, 4, 0.1)


def test_observations_after_a_contradiction_are_counted():
    """Triangle 0: front, back, front, front. Triangle 1: front twice. Triangle 2: back, back, front."""
    from pipeline.samples.visible import _sides_seen

    face = np.array([0, 1, 0, 2, 0, 2, 1, 0, 2])
    turned = np.array([0, 0, 1, 1, 0, 1, 0, 0, 0], bool)
    assert _sides_seen(face, turned)[:2] == (2, 2)
    assert _sides_seen(np.array([], np.int32), np.array([], bool))[:2] == (0, 0)


@pytest.mark.parametrize(("from_behind", "bad"), [(1, 0), (5, 0), (6, 1), (50, 1), (94, 1), (95, 0)])
def test_a_face_is_seen_from_both_sides_where_a_share_of_the_looks_at_it_say_so(from_behind, bad):
    from pipeline.samples.visible import _sides_seen

    turned = np.random.default_rng(0).permutation(np.arange(100) < from_behind)
    wrong, faces, stray = _sides_seen(np.full(100, 3), turned)
    assert faces == bad and (wrong > 0) == bool(bad)
    rarer = turned if from_behind < 50 else ~turned
    np.testing.assert_array_equal(stray, rarer & (not bad))


HOLLOW = solids.join(solids.icosphere(0.45, subdivisions=4), solids.flipped(solids.icosphere(0.3, subdivisions=4)))


@pytest.mark.parametrize("share", SHARES)
def test_closed_shapes_are_right_however_many_rays_slip_through_edges(monkeypatch, share):
    """A thin plate, a cavity, several bodies, and boxes inside out; what is kept stays the same too."""
    plate = solids.box((0.9, 0.9, 2e-3))
    for mesh in (solids.three_boxes(), solids.flipped(solids.three_boxes()), HOLLOW, plate):
        points = around(mesh, 0.05, 1000)
        expected = compute_sdf(mesh, {"a": points}, settings()).value
        with monkeypatch.context() as patch:
            leaking(patch, share)
            product = compute_sdf(mesh, {"a": points}, settings())
        assert product.figures["wrong_share"] < 1e-3 and product.figures["bad_share"] < 1e-3
        assert (product.value["kept.a"] != expected["kept.a"]).mean() < 5e-3
        both = product.value["kept.a"] & expected["kept.a"]
        np.testing.assert_array_equal(product.value["a"][both] < 0, expected["a"][both] < 0)


@pytest.mark.parametrize("share", SHARES)
def test_open_shapes_stay_rejected_however_many_rays_slip_through_edges(monkeypatch, share):
    leaking(monkeypatch, share)
    for mesh in (sheet(), lidless_box(), solids.flipped(lidless_box())):
        with pytest.raises(Rejected, match="seen from both sides"):
            compute_sdf(mesh, {"a": np.zeros((1, 3), np.float32)}, settings())


def test_marks_are_stored_and_come_back_under_names_of_their_own():
    mesh = solids.icosphere(0.45, subdivisions=3)
    product = compute_sdf(mesh, {"boundary-0.1": around(mesh, 0.1, 300)}, settings())
    back = encoding.decode(encoding.encode(product, "arrays"), "arrays").value
    for name, array in product.value.items():
        np.testing.assert_array_equal(back[name], array)
    assert set(shape_arrays({"compute_sdf": back})) == {"sdf.boundary-0.1", "sdf.kept.boundary-0.1"}


def test_moving_and_scaling_do_not_change_the_votes():
    mesh, points = solids.three_boxes(), around(solids.three_boxes(), 0.05, 500)
    shift = np.array([0.01, -0.02, 0.03])
    one, other = (visible_cloud(m, **COARSE) for m in (mesh, solids.moved(mesh, shift, 2.0)))
    distances, agreed = voted_distance(one, points, 11, 0.06)
    again, agreed_again = voted_distance(other, points * 2 + shift, 11, 0.12)
    assert (agreed == agreed_again).mean() > 0.995
    both = agreed & agreed_again
    np.testing.assert_allclose(again[both], 2 * distances[both], atol=0.01)


def test_a_mesh_without_area_is_rejected_by_votes_too():
    with pytest.raises(Rejected, match="no face of positive area"):
        compute_sdf(Mesh([(0, 0, 0)], [(0, 0, 0)]), {"a": np.zeros((1, 3))}, settings())
