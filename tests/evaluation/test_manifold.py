"""Manifoldness: what is wrong with a mesh, by our count and by Neural Mesh Flow's."""

import math

import numpy as np
import pytest
import trimesh

from pipeline.arrays import Mesh
from pipeline.evaluation.manifold import folds, manifoldness
from pipeline.geometry.clean import unwelded
from tests import solids

PUBLISHED = ("nonmanifold_vertices_published", "nonmanifold_edges_published", "nonmanifold_faces_published")


def patch(count=10):
    """A square of count x count vertices, slightly bent: one patch of AtlasNet-25."""
    x, y = np.meshgrid(np.arange(count), np.arange(count), indexing="ij")
    vertices = np.stack([x, y, 0.1 * np.sin(x + y)], axis=-1).reshape(-1, 3)
    corner = (x * count + y)[:-1, :-1].reshape(-1)
    faces = [
        np.stack([corner, corner + count, corner + 1], -1),
        np.stack([corner + 1, corner + count, corner + count + 1], -1),
    ]
    return Mesh(vertices, np.concatenate(faces))


def test_an_icosphere_is_a_manifold():
    figures = manifoldness(solids.icosphere(0.4, subdivisions=3))
    assert (figures["vertices"], figures["edges"], figures["faces"]) == (642, 1920, 1280)
    assert figures["watertight"] and figures["euler_characteristic"] == 2 and figures["components"] == 1
    zero = [key for key in figures if key.startswith(("nm", "nonmanifold", "isect", "boundary", "self_inter"))]
    assert len(zero) == 16 and all(figures[key] == 0 for key in zero)


def test_a_missing_face_gives_three_edges_and_no_vertex():
    """Sheet nmf.md, golden values."""
    sphere = solids.icosphere(0.4, subdivisions=3)
    figures = manifoldness(Mesh(sphere.vertices, sphere.faces[1:]))
    assert [figures[key] for key in PUBLISHED] == [0, 3, 0]
    assert (figures["boundary_edges"], figures["nonmanifold_edges"]) == (3, 0)
    assert figures["nme_published"] == pytest.approx(3 / (3 * 1279))
    assert figures["nme_corrected"] == pytest.approx(3 / 1920)
    assert not figures["watertight"] and figures["euler_characteristic"] == 1


def test_a_square_patch_has_36_boundary_edges_7_percent_of_the_published_edges():
    """Sheet nmf.md, golden values."""
    figures = manifoldness(patch())
    assert figures["nonmanifold_edges_published"] == figures["boundary_edges"] == 36
    assert figures["nme_published"] == pytest.approx(0.074, abs=5e-4)
    assert figures["nme_corrected"] == pytest.approx(36 / (81 * 3 + 18))
    assert figures["nonmanifold_edges"] == figures["nonmanifold_vertices"] == 0


def test_two_cubes_at_a_corner_and_at_an_edge():
    corner = manifoldness(solids.join(solids.box(), solids.box(centre=(1, 1, 1))))
    assert (corner["nonmanifold_vertices"], corner["nonmanifold_edges"], corner["components"]) == (1, 0, 1)
    assert corner["nonmanifold_vertices_published"] == 0  # stored apart: each cube has its own corner
    assert corner["nmv_corrected"] == pytest.approx(1 / 15)
    edge = manifoldness(solids.join(solids.box(), solids.box(centre=(1, 1, 0))))
    assert (edge["nonmanifold_edges"], edge["nonmanifold_edges_published"]) == (1, 0)


def test_unwelded_faces_are_all_boundary_as_published_and_none_when_merged():
    soup = manifoldness(unwelded(solids.icosphere(0.4, subdivisions=2)))
    assert soup["nonmanifold_edges_published"] == 3 * 320
    assert soup["nme_published"] == 1.0
    assert soup["nme_corrected"] == 0.0 and soup["watertight"]


def book(angle, agree=True):
    """Two triangles hinged on the x axis, turned by `angle` from flat."""
    vertices = [(0, 0, 0), (1, 0, 0), (0.4, 1, 0), (0.6, -math.cos(angle), math.sin(angle))]
    return Mesh(vertices, [(0, 1, 2), (1, 0, 3) if agree else (0, 1, 3)])


@pytest.mark.parametrize(("degrees", "expected"), [(0, 0), (80, 0), (100, 1), (170, 1)])
def test_a_fold_is_a_turn_of_more_than_90_degrees(degrees, expected):
    figures = manifoldness(book(math.radians(degrees)))
    assert figures["nonmanifold_faces"] == figures["nonmanifold_faces_published"] == expected
    assert figures["nmf_published"] == expected / 6
    assert figures["nmf_corrected"] == expected / 5
    turned = manifoldness(book(math.radians(degrees), agree=False))
    assert turned["nonmanifold_faces"] == expected
    assert turned["nonmanifold_faces_published"] == 1 - expected  # the normals as wound say the contrary


def test_self_intersections_are_pairs_of_faces_and_optional():
    crossing = solids.join(solids.box(), solids.box((0.2, 0.2, 3)))
    figures = manifoldness(crossing)
    assert figures["self_intersections"] > 0
    assert figures["isect_published"] == figures["self_intersections"] / 24
    without = manifoldness(crossing, self_intersections=False)
    assert without["self_intersections"] is without["isect_published"] is without["isect_corrected"] is None
    assert {k: v for k, v in without.items() if "isect" not in k and "self" not in k}.items() <= figures.items()


def test_topology_counts_agree_with_open3d_on_a_soup_with_every_fault():
    import open3d as o3d

    rng = np.random.default_rng(0)
    faces = rng.integers(0, 60, (150, 3))
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
    mesh = Mesh(rng.normal(size=(60, 3)), faces)
    other = o3d.geometry.TriangleMesh(o3d.utility.Vector3dVector(mesh.vertices), o3d.utility.Vector3iVector(mesh.faces))
    figures = manifoldness(mesh, self_intersections=False)
    assert figures["nonmanifold_vertices_published"] == len(other.get_non_manifold_vertices()) > 0
    assert figures["nonmanifold_edges_published"] == len(other.get_non_manifold_edges(allow_boundary_edges=False)) > 0


def test_faces_that_name_a_vertex_twice_are_judged_as_by_open3d():
    import open3d as o3d

    sphere = solids.icosphere(0.4, subdivisions=2)
    for extra in ([(0, 0, 5)], [(7, 9, 9), (9, 7, 7)], [(3, 30, 3), (30, 3, 60)]):
        mesh = Mesh(sphere.vertices, np.concatenate([sphere.faces, extra]))
        other = o3d.geometry.TriangleMesh(
            o3d.utility.Vector3dVector(mesh.vertices), o3d.utility.Vector3iVector(mesh.faces)
        )
        published = manifoldness(mesh, self_intersections=False)["nonmanifold_vertices_published"]
        assert published == len(other.get_non_manifold_vertices()) > 0


@pytest.mark.parametrize("seed", range(4))
def test_sizes_and_folds_agree_with_trimesh_on_soups_with_every_fault(seed):
    rng = np.random.default_rng(seed)
    vertices = rng.integers(0, 5, (90, 3)) / 7 + rng.choice([0, 3e-9, 1e-7], (90, 3), p=[0.9, 0.05, 0.05])
    faces = rng.integers(0, 80, (150, 3))
    figures = manifoldness(Mesh(vertices, faces), self_intersections=False)
    loaded = trimesh.Trimesh(vertices, faces, process=True)
    left, right = loaded.face_normals[loaded.face_adjacency].transpose(1, 0, 2)
    assert figures["nonmanifold_faces_published"] == sum(a @ b < 0 for a, b in zip(left, right, strict=True)) > 0
    assert figures["nmf_published"] == figures["nonmanifold_faces_published"] / len(loaded.edges)
    assert figures["nmv_published"] == figures["nonmanifold_vertices_published"] / len(loaded.vertices)


def test_a_trimesh_serves_and_the_package_names_the_function():
    from pipeline import evaluation

    assert evaluation.manifoldness(trimesh.creation.box())["euler_characteristic"] == 2


def test_meshes_that_cannot_be_judged_are_refused_and_empty_ones_have_no_ratio():
    with pytest.raises(ValueError, match="1 vertices are not finite"):
        manifoldness(Mesh([(0, 0, 0), (1, 0, 0), (np.nan, 1, 0)], [(0, 1, 2)]))
    with pytest.raises(ValueError, match="name vertices up to 5"):
        manifoldness(Mesh(np.zeros((3, 3)), [(0, 1, 5)]))
    empty = manifoldness(Mesh(np.zeros((0, 3)), np.zeros((0, 3))))
    assert empty["faces"] == 0 and not empty["watertight"]
    assert math.isnan(empty["nme_published"]) and math.isnan(empty["nmv_corrected"])
    assert folds(Mesh(np.zeros((0, 3)), np.zeros((0, 3)))) == 0
