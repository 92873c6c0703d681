import numpy as np
import pytest

from pipeline.arrays import Mesh
from pipeline.geometry import clean
from pipeline.geometry.quality import is_watertight
from tests import solids


def test_merging_the_unwelded_mesh_gives_it_back():
    mesh = solids.three_boxes()
    soup = clean.unwelded(mesh)
    assert len(soup.vertices) == 3 * len(mesh.faces)
    again = clean.merged(soup)
    assert len(again.vertices) == len(mesh.vertices)
    assert is_watertight(again)
    np.testing.assert_array_equal(again.triangles, mesh.triangles)


def test_merging_takes_minus_zero_for_zero():
    mesh = clean.merged(Mesh([[0, 0, 0], [-0.0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 2, 3], [1, 3, 2]]))
    assert len(mesh.vertices) == 3


def test_degenerate_faces_go_and_thin_ones_stay():
    vertices = [[0, 0, 0], [1, 0, 0], [2, 0, 0], [0.5, 1e-6, 0]]
    mesh = Mesh(vertices, [[0, 1, 2], [0, 0, 1], [0, 1, 3]])
    np.testing.assert_array_equal(clean.without_degenerate_faces(mesh).faces, [[0, 1, 3]])


@pytest.mark.parametrize("scale", [1e-30, 1, 1e30])
def test_what_is_degenerate_does_not_depend_on_the_size(scale):
    mesh = solids.moved(solids.icosphere(), scale=scale)
    assert len(clean.without_degenerate_faces(mesh).faces) == len(mesh.faces)


@pytest.mark.parametrize("scale", [1e-30, 1, 1e30])
def test_faces_without_area_go_only_where_they_widen_the_box(scale):
    box = solids.box()
    vertices = np.concatenate([box.vertices, [[9, 9, 9], [0, 0, 0.1], [0, 0, 0.2], [0, 0, 0.3], [5, 0, 0]]]) * scale
    point, line_inside, line_out = [8, 8, 8], [9, 10, 11], [0, 0, 12]
    mesh = Mesh(vertices, np.concatenate([[point], box.faces, [line_inside, line_out]]))
    left = clean.without_stray_faces(mesh)
    np.testing.assert_array_equal(left.faces, np.concatenate([box.faces, [line_inside]]))


def test_a_mesh_without_any_area_keeps_its_faces():
    mesh = Mesh([[0, 0, 0], [1, 0, 0], [9, 9, 9]], [[0, 1, 0], [2, 2, 2]])
    np.testing.assert_array_equal(clean.without_stray_faces(mesh).faces, mesh.faces)


def test_of_faces_on_the_same_corners_the_first_stays_whichever_way_they_are_wound():
    mesh = solids.box()
    doubled = Mesh(mesh.vertices, np.concatenate([mesh.faces, mesh.faces[:, ::-1], np.roll(mesh.faces, 1, axis=1)]))
    np.testing.assert_array_equal(clean.without_duplicate_faces(doubled).faces, mesh.faces)


def test_unused_vertices_go_and_the_order_stays():
    mesh = clean.without_unused_vertices(Mesh([[9, 9, 9], [0, 0, 0], [8, 8, 8], [1, 0, 0], [0, 1, 0]], [[4, 1, 3]]))
    np.testing.assert_array_equal(mesh.vertices, [[0, 0, 0], [1, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(mesh.faces, [[2, 0, 1]])
