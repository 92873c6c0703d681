import numpy as np
import pytest

from pipeline.arrays import Mesh
from pipeline.geometry import quality
from pipeline.geometry.clean import merged
from tests import solids

EMPTY = Mesh(np.zeros((0, 3)), np.zeros((0, 3)))
TWO_CUBES_AT_A_CORNER = merged(solids.join(solids.box(), solids.box(centre=(1, 1, 1))))
TWO_CUBES_AT_AN_EDGE = merged(solids.join(solids.box(), solids.box(centre=(1, 1, 0))))


@pytest.mark.parametrize(
    ("mesh", "euler", "components"),
    [(solids.icosphere(), 2, 1), (solids.torus(), 0, 1), (solids.three_boxes(), 6, 3)],
)
def test_closed_solids_are_watertight_manifolds_of_their_genus(mesh, euler, components):
    assert quality.is_watertight(mesh)
    assert quality.is_winding_consistent(mesh)
    assert quality.nonmanifold_vertices(mesh) == 0
    assert quality.euler_characteristic(mesh) == euler
    assert quality.component_count(mesh) == components


def test_a_missing_face_leaves_three_boundary_edges():
    mesh = solids.icosphere()
    holed = Mesh(mesh.vertices, mesh.faces[1:])
    assert quality.edge_counts(holed)["boundary"] == 3
    assert not quality.is_watertight(holed)
    assert quality.is_winding_consistent(holed)


def test_a_turned_face_disagrees_with_its_three_neighbours():
    mesh = solids.icosphere()
    faces = mesh.faces.copy()
    faces[5] = faces[5, ::-1]
    turned = Mesh(mesh.vertices, faces)
    assert quality.edge_counts(turned)["misoriented"] == 3
    assert not quality.is_winding_consistent(turned)
    assert not quality.is_watertight(turned)


def test_cubes_that_share_a_corner_have_one_nonmanifold_vertex_and_good_edges():
    assert len(TWO_CUBES_AT_A_CORNER.vertices) == 15
    assert quality.nonmanifold_vertices(TWO_CUBES_AT_A_CORNER) == 1
    assert quality.edge_counts(TWO_CUBES_AT_A_CORNER)["nonmanifold"] == 0
    assert quality.is_watertight(TWO_CUBES_AT_A_CORNER)
    assert quality.component_count(TWO_CUBES_AT_A_CORNER) == 1


def test_cubes_that_share_an_edge_have_one_nonmanifold_edge():
    assert quality.edge_counts(TWO_CUBES_AT_AN_EDGE)["nonmanifold"] == 1
    assert not quality.is_watertight(TWO_CUBES_AT_AN_EDGE)


def test_components_are_numbered_from_zero_in_the_order_of_the_vertices():
    labels = quality.face_components(solids.three_boxes())
    np.testing.assert_array_equal(labels, np.repeat([0, 1, 2], 12))


def test_unused_vertices_do_not_count_as_parts_or_corners():
    mesh = solids.icosphere()
    padded = Mesh(np.concatenate([mesh.vertices, [[9.0, 9, 9]]]), mesh.faces)
    assert quality.component_count(padded) == 1
    assert quality.euler_characteristic(padded) == 2


def test_overlapping_spheres_intersect_and_separate_or_nested_ones_do_not():
    ball = solids.icosphere(0.4)
    assert quality.self_intersections(solids.join(ball, solids.moved(ball, (0.3, 0.1, 0.2)))) > 50
    assert quality.self_intersections(solids.join(ball, solids.moved(ball, (1, 0, 0)))) == 0
    assert quality.self_intersections(solids.join(ball, solids.moved(ball, scale=0.5))) == 0


def test_counts_of_edges_and_vertices_agree_with_trimesh():
    import trimesh

    faces = np.random.default_rng(5).integers(0, 60, (150, 3))
    faces = faces[(np.sort(faces, axis=1)[:, :-1] != np.sort(faces, axis=1)[:, 1:]).all(axis=1)]
    mesh = Mesh(np.random.default_rng(6).random((60, 3)), faces)
    reference = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    assert quality.edge_counts(mesh)["edges"] == len(reference.edges_unique)
    assert quality.euler_characteristic(mesh) == len(np.unique(faces)) - len(reference.edges_unique) + len(faces)
    assert quality.area(mesh) == pytest.approx(reference.area)


def test_describe_speaks_of_the_whole_mesh():
    figures = quality.describe(solids.three_boxes())
    assert figures["watertight"] is True
    assert (figures["vertices"], figures["faces"], figures["components"], figures["euler"]) == (24, 36, 3, 6)
    assert figures["volume"] == pytest.approx(solids.three_boxes_volume())
    assert not any(figures[key] for key in ("boundary_edges", "nonmanifold_edges", "nonmanifold_vertices"))


def test_an_empty_mesh_is_described_and_not_watertight():
    figures = quality.describe(EMPTY)
    assert figures["watertight"] is False
    assert (figures["area"], figures["volume"], figures["components"], figures["euler"]) == (0, 0, 0, 0)
    assert quality.self_intersections(EMPTY) == 0
