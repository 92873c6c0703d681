"""Closed parts by the thousand: which hold which, without a look at all pairs."""

import numpy as np
import pytest

from pipeline.arrays import Mesh
from pipeline.meshes import keep
from tests import solids

CELL = solids.box((0.6, 0.5, 0.4))
RODS = [solids.box(np.roll((9.0, 0.02, 0.02), axis)) for axis in range(3)]


def lattice(count: int, part: Mesh) -> list[Mesh]:
    return [solids.moved(part, place) for place in np.indices((count,) * 3).reshape(3, -1).T]


def all_pairs(parts: list[Mesh]) -> np.ndarray:
    low, high = np.stack([part.bounds for part in parts], axis=1)
    holds = (low[:, None] <= low).all(axis=2) & (high[:, None] >= high).all(axis=2)
    np.fill_diagonal(holds, False)
    return np.argwhere(holds)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_boxes_that_hold_others_are_those_of_all_pairs(scale):
    rng = np.random.default_rng(0)
    drawn = [solids.box(rng.uniform(0.01, 0.9, 3), rng.uniform(-1, 1, 3)) for _ in range(400)]
    shared = [CELL, CELL, solids.box((0.6, 0.5, 0.3)), *RODS]
    parts = [solids.moved(part, (3, -2, 1), scale) for part in [*drawn, *shared]]
    expected = all_pairs(parts)
    assert len(expected) > 20
    np.testing.assert_array_equal(keep._box_pairs(parts), expected)


def test_pairs_that_are_looked_at_grow_with_the_parts_that_are_nested(monkeypatch):
    """A container of a thousand hollow cells: two pairs for each cell within it and one for its own cavity."""
    asked = []
    holds = keep._holds
    monkeypatch.setattr(keep, "_holds", lambda part, others: asked.append(len(others)) or holds(part, others))
    cells = lattice(8, CELL)
    cavities = [solids.flipped(part) for part in lattice(8, solids.box((0.3, 0.2, 0.1)))]
    container = solids.box((99.0, 99.0, 99.0))
    alone = keep.nested([*cells, *cavities])
    assert (len(asked), sum(asked)) == (512, 512)
    assert len(alone.faces) == 512 * 24
    asked.clear()
    assert len(keep.nested([container, *cells, *cavities]).faces) == 12  # all of it lies in solid matter
    assert sum(asked) == 512 + 1024


def test_parts_keep_their_vertices_and_faces_in_order():
    one, two = solids.icosphere(1.0, subdivisions=1), CELL
    faces = np.concatenate([one.faces[:5], two.faces + len(one.vertices) + 1, one.faces[5:]])
    mesh = Mesh(np.concatenate([one.vertices, [(7.0, 7, 7)], two.vertices]), faces)
    first, second = keep.split(mesh)
    for part, expected in ((first, one), (second, two)):
        np.testing.assert_array_equal(part.vertices, expected.vertices)
        np.testing.assert_array_equal(part.faces, expected.faces)
