import numpy as np
import pytest

from pipeline.arrays import Mesh
from pipeline.geometry import clean, repair
from pipeline.geometry.measures import volume
from pipeline.geometry.quality import component_count, is_watertight, nonmanifold_vertices, self_intersections
from tests import solids


def test_welding_joins_vertices_up_to_the_tolerance_and_no_farther():
    mesh = solids.icosphere(subdivisions=2)
    soup = clean.unwelded(mesh)
    shaken = Mesh(soup.vertices + np.random.default_rng(0).uniform(-1e-8, 1e-8, soup.vertices.shape), soup.faces)
    assert is_watertight(repair.welded(shaken, 1e-7))
    assert len(repair.welded(shaken, 1e-10).vertices) == len(soup.vertices)


def test_welding_drops_faces_that_lose_a_corner():
    mesh = Mesh([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1e-9, 0, 0]], [[0, 1, 2], [0, 3, 2]])
    assert len(repair.welded(mesh, 1e-7).faces) == 1


def test_splitting_parts_cubes_that_touch_in_a_corner_and_moves_nothing():
    touching = clean.merged(solids.join(solids.box(), solids.box(centre=(1, 1, 1))))
    apart = repair.with_split_vertices(touching)
    assert (nonmanifold_vertices(touching), nonmanifold_vertices(apart)) == (1, 0)
    assert (component_count(touching), component_count(apart)) == (1, 2)
    np.testing.assert_array_equal(apart.triangles, touching.triangles)


def test_windings_agree_after_random_turns():
    mesh = solids.torus()
    turned = np.random.default_rng(1).random(len(mesh.faces)) < 0.5
    mixed = Mesh(mesh.vertices, np.where(turned[:, None], mesh.faces[:, ::-1], mesh.faces))
    assert not is_watertight(mixed)
    agreed = repair.with_agreeing_windings(mixed)
    assert is_watertight(agreed)
    assert abs(volume(agreed)) == pytest.approx(volume(mesh))


def test_nudging_unfolds_slivers_and_moves_nothing_else():
    ball = solids.icosphere(0.5, subdivisions=3)
    at, neighbour = 200, next(i for i in ball.faces[(ball.faces == 200).any(axis=1)][0] if i != 200)
    vertices = ball.vertices.copy()
    vertices[at] += 1.6 * (vertices[neighbour] - vertices[at]) + [1e-3, 2e-3, 0]  # pulled over its neighbour
    folded = Mesh(vertices, ball.faces)
    mended = repair.nudged(folded, 0.05)
    assert self_intersections(folded) > 0
    assert self_intersections(mended) == 0
    low, high = mended.bounds
    scaled = (mended.vertices - (low + (high - low) / 2)) / (high - low).max()
    assert self_intersections(Mesh(scaled.astype(np.float32), mended.faces)) == 0
    assert (np.abs(mended.vertices - vertices).max(axis=1) > 1e-6).sum() < 20


def test_nudging_is_no_more_than_rounding_where_nothing_crosses():
    mesh = solids.moved(solids.torus(), (3, 4, 5), 7)
    np.testing.assert_allclose(repair.nudged(mesh, 1e-4).vertices, mesh.vertices, atol=1e-6)
