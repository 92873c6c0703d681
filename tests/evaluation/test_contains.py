"""Inside tests: parity exactly as it is defined, and all methods alike on closed meshes."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.arrays import Mesh
from pipeline.evaluation.inside import contains
from pipeline.geometry import parity
from pipeline.geometry.parity import crossings, inside_parity
from pipeline.geometry.waterproof import inside_waterproof
from tests import solids


def cube_points(count, seed=0):
    return (np.random.default_rng(seed).random((count, 3)) - 0.5) * 1.1


@pytest.mark.parametrize("method", ["parity", "waterproof", "winding", "rays"])
def test_three_boxes_contain_exactly_their_own_points(method):
    points = cube_points(100_000)
    np.testing.assert_array_equal(contains(solids.three_boxes(), points, method), solids.three_boxes_inside(points))


@pytest.mark.parametrize("method", ["parity", "waterproof", "winding", "rays"])
def test_a_torus_contains_its_tube_and_not_its_hole(method):
    points = cube_points(50_000, seed=1)
    distance = solids.torus_sdf(points)
    clear = np.abs(distance) > 1e-3  # of the tessellation
    np.testing.assert_array_equal(contains(solids.torus(), points[clear], method), distance[clear] < 0)


def crossings_by_hand(mesh, points):
    """Point by point and face by face, in the frame the definition names."""
    low, high = mesh.triangles.min(axis=(0, 1)), mesh.triangles.max(axis=(0, 1))
    scale = 511 / (high - low)
    counts = np.zeros((2, len(points)), int)
    faces = scale * mesh.triangles + (0.5 - scale * low)
    for index, (x, y, z) in enumerate(scale * points + (0.5 - scale * low)):
        if not all(0 <= c <= 512 for c in (x, y, z)):
            continue
        for (ax, ay, az), (bx, by, bz), (cx, cy, cz) in faces:
            area = (ax - cx) * (by - cy) - (bx - cx) * (ay - cy)
            u = ((x - cx) * (by - cy) - (bx - cx) * (y - cy)) * np.sign(area)
            v = ((ax - cx) * (y - cy) - (x - cx) * (ay - cy)) * np.sign(area)
            if u > 0 and v > 0 and u + v < abs(area):
                height = (u * az + v * bz + (abs(area) - u - v) * cz) / abs(area)
                counts[0 if height >= z else 1, index] += 1
    return counts


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from([0.05, 0.4, 2.0]))
def test_crossings_of_any_soup_are_those_counted_by_hand(seed, faces, size):
    rng = np.random.default_rng(seed)
    corners = rng.normal(0, 0.3, (faces, 1, 3)) + rng.normal(0, size, (faces, 3, 3))
    soup = Mesh(corners.reshape(-1, 3), np.arange(3 * faces).reshape(-1, 3))
    points = rng.uniform(*soup.bounds * 1.1, (60, 3))
    np.testing.assert_array_equal(crossings(soup, points), crossings_by_hand(soup, points))


def test_lines_through_edges_and_vertices_miss_them():
    cube = solids.box()  # the diagonals of its top and bottom run through the middle
    np.testing.assert_array_equal(crossings(cube, np.array([[0, 0, 0], [0.2, 0.1, 0]])), [[0, 1], [0, 1]])
    assert not contains(cube, np.zeros((1, 3))).any()


def test_a_point_on_a_face_counts_it_as_above():
    above, below = crossings(solids.box(), np.array([[0.2, 0.1, 0.5], [0.2, 0.1, -0.5]]))
    np.testing.assert_array_equal(above, [1, 2])
    np.testing.assert_array_equal(below, [1, 0])


def test_where_a_hole_makes_the_directions_disagree_the_point_is_outside():
    cube = solids.box()
    middle = cube.triangles.mean(axis=1)
    lidless = Mesh(cube.vertices, cube.faces[middle[:, 2] < 0.49])
    points = cube_points(2_000, seed=2)
    above, below = crossings(lidless, points)
    within = solids.box_inside(points, (1, 1, 1))
    assert not contains(lidless, points).any()
    assert ((above % 2) != (below % 2))[within].mean() > 0.99


def test_overlapping_parts_cancel_by_parity_and_not_by_winding():
    both = solids.join(solids.box((0.6, 0.5, 0.4), (-0.1, 0, 0.02)), solids.box((0.6, 0.3, 0.5), (0.1, 0.03, 0)))
    points = cube_points(20_000, seed=3)
    first = solids.box_inside(points, (0.6, 0.5, 0.4), (-0.1, 0, 0.02))
    second = solids.box_inside(points, (0.6, 0.3, 0.5), (0.1, 0.03, 0))
    np.testing.assert_array_equal(contains(both, points, "parity"), first ^ second)
    np.testing.assert_array_equal(contains(both, points, "waterproof"), first ^ second)
    np.testing.assert_array_equal(contains(both, points, "winding"), first | second)


def test_winding_tells_inside_out_and_parity_does_not():
    turned, points = solids.flipped(solids.three_boxes()), cube_points(5_000, seed=4)
    np.testing.assert_array_equal(contains(turned, points, "parity"), solids.three_boxes_inside(points))
    assert not contains(turned, points, "winding").any()


def test_chunks_and_the_order_of_points_change_nothing(monkeypatch):
    mesh, points = solids.icosphere(0.4, (0.05, -0.1, 0.02), 4), cube_points(20_000, seed=5)
    whole = contains(mesh, points)
    monkeypatch.setattr(parity, "CHUNK_PAIRS", 1_000)
    np.testing.assert_array_equal(contains(mesh, points), whole)
    np.testing.assert_array_equal(contains(mesh, points[::-1])[::-1], whole)


@pytest.mark.parametrize("method", ["parity", "waterproof", "winding", "rays"])
def test_no_points_and_no_faces_are_answered(method):
    assert contains(solids.box(), np.zeros((0, 3)), method).shape == (0,)
    assert not contains(Mesh(np.zeros((0, 3)), np.zeros((0, 3))), cube_points(10), method).any()


def test_points_that_are_not_finite_lie_outside_and_flat_meshes_hold_nothing():
    assert not contains(solids.box(), np.array([[np.nan, 0.1, 0.2], [np.inf, 0, 0]])).any()
    assert not contains(solids.box((1, 1, 0)), cube_points(100)).any()


def test_anything_with_vertices_and_faces_is_a_mesh_and_other_methods_are_refused():
    cube = solids.box()
    likeness = SimpleNamespace(vertices=cube.vertices.tolist(), faces=cube.faces.tolist())
    assert contains(likeness, np.array([[0.1, 0.2, 0.3]])).all()
    with pytest.raises(ValueError, match="no inside test 'guess'"):
        contains(cube, np.zeros((1, 3)), "guess")


def test_a_closed_sphere_has_no_holes_and_waterproofing_changes_nothing():
    sphere, points = solids.icosphere(0.4, (0.05, -0.1, 0.02), 4), cube_points(20_000, seed=6)
    above, below = crossings(sphere, points)
    np.testing.assert_array_equal(above % 2, below % 2)
    np.testing.assert_array_equal(inside_waterproof(sphere, points), inside_parity(sphere, points))


def test_where_a_ray_passes_through_an_edge_the_originals_rotation_decides():
    """IF-Net turns mesh and points by a matrix whose cosine is 6e-17: some lattice points leave the diagonals."""
    cube, cosine = solids.box(), np.cos(np.pi / 2)
    lidless = Mesh(cube.vertices, cube.faces[cube.triangles.mean(axis=1)[:, 2] < 0.49])
    axis = np.arange(-16, 17) / 34
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    above, below = crossings(lidless, points)
    points = points[above % 2 != below % 2]
    first, exact = ([[c, 0, 1], [0, 1, 0], [-1, 0, c]] for c in (cosine, 0.0))
    along_x, by_swapping = (
        crossings(Mesh(lidless.vertices @ np.transpose(turn), lidless.faces), points @ np.transpose(turn))
        for turn in (first, exact)
    )
    settled = along_x[0] % 2 == along_x[1] % 2
    assert (along_x[0] != by_swapping[0]).any()
    np.testing.assert_array_equal(inside_waterproof(lidless, points)[settled], (along_x[0] % 2 == 1)[settled])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_sphere_without_one_polar_cap_is_waterproof(axis):
    sphere = solids.icosphere(0.4, subdivisions=5)
    bowl = Mesh(sphere.vertices, sphere.faces[sphere.triangles.mean(axis=1)[:, axis] < 0.36])
    points = cube_points(20_000, seed=7)
    points = points[(points[:, axis] < 0.34) & (np.abs(solids.sphere_sdf(points, 0.4)) > 2e-3)]
    inside = solids.sphere_inside(points, 0.4)
    np.testing.assert_array_equal(inside_waterproof(bowl, points), inside)
    assert (inside_parity(bowl, points) == inside).all() == (axis != 2)


def test_two_holes_in_line_are_no_contradiction_and_look_empty_by_definition():
    sphere = solids.icosphere(0.4, subdivisions=5)
    ring = Mesh(sphere.vertices, sphere.faces[np.abs(sphere.triangles.mean(axis=1)[:, 2]) < 0.36])
    assert not inside_waterproof(ring, np.array([[0.01, 0.02, 0.03]])).any()
    assert inside_waterproof(ring, np.array([[0.3, 0.02, 0.03]])).all()


def test_a_missing_lid_is_seen_through_by_the_other_axes():
    cube = solids.box()
    lidless = Mesh(cube.vertices, cube.faces[cube.triangles.mean(axis=1)[:, 2] < 0.49])
    points = cube_points(5_000, seed=8)
    within = solids.box_inside(points, (1, 1, 1))
    assert not contains(lidless, points, "parity").any()
    np.testing.assert_array_equal(contains(lidless, points, "waterproof"), within)


def test_a_lone_open_square_holds_nothing():
    square = Mesh([(0, 0, 0), (1, 0, 0.1), (1, 1, 0.3), (0, 1, 0.2)], [(0, 1, 2), (0, 2, 3)])
    assert not contains(square, cube_points(5_000, seed=9) + 0.5, "waterproof").any()


def test_the_frame_of_the_inside_tests_only_rounds():
    mesh, points = solids.three_boxes(), cube_points(5_000, seed=10)
    expected = solids.three_boxes_inside(points)
    for resolution in (16, 512, 4096):
        np.testing.assert_array_equal(inside_waterproof(mesh, points, resolution), expected)
