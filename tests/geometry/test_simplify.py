import numpy as np
import pytest

from pipeline.arrays import Mesh, Rejected
from pipeline.geometry import simplify
from pipeline.geometry.closest import distance
from pipeline.geometry.cubes import isosurface
from pipeline.geometry.measures import volume
from pipeline.geometry.quality import is_watertight, nonmanifold_vertices
from pipeline.geometry.simplify import simplified
from tests import solids


def _sponge(seed: int) -> Mesh:
    """A surface of many handles and parts: the level set of smooth noise."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(48, 40, 36)), 2)
    return isosurface(noise, 0.0, -0.5, 0.5, "above")


def test_simplifying_saves_faces_and_stays_within_the_tolerance():
    mesh = solids.icosphere(0.5, subdivisions=5)
    saved = simplified(mesh, 1e-3)
    assert len(saved.faces) < len(mesh.faces) / 2
    assert is_watertight(saved)
    assert distance(saved, mesh.vertices).max() <= 1e-3


def test_simplifying_an_open_mesh_is_refused(monkeypatch):
    mesh = solids.box()
    opened = Mesh(mesh.vertices, mesh.faces[1:])
    with pytest.raises(Rejected, match="it is not manifold"):
        simplified(opened, 1e-3)
    monkeypatch.setattr(simplify, "AT_ONCE", 5)
    with pytest.raises(Rejected, match="it is not manifold"):
        simplified(opened, 1e-3)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [2, 5])
def test_parts_of_a_winding_surface_fit_together_again(seed, count):
    mesh = _sponge(seed)
    saved = simplify._simplified_in_parts(mesh, 1e-3, count)
    assert is_watertight(saved)
    assert nonmanifold_vertices(saved) == 0
    assert len(saved.faces) < len(mesh.faces) * 0.85
    assert volume(saved) == pytest.approx(volume(mesh), rel=1e-3)
    assert distance(saved, mesh.vertices).mean() <= distance(simplified(mesh, 1e-3), mesh.vertices).mean()


@pytest.mark.parametrize("count", [2, 3])
def test_parts_that_share_nothing_are_simplified_too(count):
    ball = solids.icosphere(0.2, subdivisions=4)
    mesh = solids.join(*(Mesh(ball.vertices + np.array([x, 0, 0]), ball.faces) for x in (-0.5, 0.5)))
    saved = simplify._simplified_in_parts(mesh, 1e-3, count)
    assert is_watertight(saved)
    assert len(saved.faces) < len(mesh.faces) * 0.8
    assert distance(saved, mesh.vertices).max() <= 2e-3


def test_there_may_be_more_parts_than_faces():
    cube = solids.box()
    assert is_watertight(simplify._simplified_in_parts(cube, 1e-3, 40))


def test_vertices_on_the_seams_stay_where_they_are():
    mesh = solids.icosphere(0.5, subdivisions=5)
    saved = simplify._simplified_in_parts(mesh, 1e-3, 2)
    shared = simplify._shared(mesh, simplify._slabs(mesh, 2), 2)
    assert shared.sum() > 50
    assert {tuple(vertex) for vertex in mesh.vertices[shared]} <= {tuple(vertex) for vertex in saved.vertices}


def test_a_large_mesh_is_simplified_in_parts_to_about_as_many_faces(monkeypatch):
    mesh = solids.icosphere(0.5, subdivisions=6)
    whole = simplified(mesh, 1e-3)
    counts, in_parts = [], simplify._simplified_in_parts
    monkeypatch.setattr(simplify, "AT_ONCE", len(mesh.faces) // 3)
    monkeypatch.setattr(simplify, "_simplified_in_parts", lambda *given: counts.append(given[2]) or in_parts(*given))
    parts = simplified(mesh, 1e-3)
    assert counts == [4]
    assert is_watertight(parts)
    assert len(parts.faces) == pytest.approx(len(whole.faces), rel=0.2)
    assert distance(parts, mesh.vertices).max() <= 3e-3


def test_parts_that_do_not_fit_together_are_simplified_as_a_whole(monkeypatch):
    mesh = solids.icosphere(0.5, subdivisions=4)
    whole = simplified(mesh, 1e-3)
    monkeypatch.setattr(simplify, "AT_ONCE", len(mesh.faces) // 2)
    monkeypatch.setattr(simplify, "_simplified_in_parts", lambda *_: Mesh(mesh.vertices, mesh.faces[1:]))
    np.testing.assert_array_equal(simplified(mesh, 1e-3).triangles, whole.triangles)
