"""Which part of a mesh's inside parity takes for the outside, since parts overlap there; never a cavity."""

import numpy as np
import pytest

from pipeline.arrays import Mesh
from pipeline.evaluation.overlap import outward, overlap_share
from pipeline.geometry.measures import volume
from pipeline.geometry.parity import inside_parity
from pipeline.geometry.quality import is_watertight
from tests import solids

POINTS = (np.random.default_rng(0).random((30_000, 3)) - 0.5) * 1.1
LEFT, RIGHT = solids.box((0.6, 0.6, 0.6), (-0.1, 0, 0)), solids.box((0.6, 0.6, 0.6), (0.1, 0, 0))
SHELL = solids.icosphere(0.5, subdivisions=3)
CORE = solids.icosphere(0.3, subdivisions=3)


def share_of(mesh):
    return overlap_share(mesh, POINTS, inside_parity(mesh, POINTS))


@pytest.mark.parametrize(
    "mesh",
    [
        solids.join(LEFT, RIGHT),
        solids.flipped(solids.join(LEFT, RIGHT)),
        solids.join(LEFT, solids.flipped(RIGHT)),
        solids.join(solids.flipped(LEFT), RIGHT),
    ],
    ids=["outward", "inside out", "the second inside out", "the first inside out"],
)
def test_two_boxes_that_share_half_of_their_union(mesh):
    assert share_of(mesh) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    "mesh",
    [
        SHELL,
        solids.three_boxes(),
        solids.torus(),
        solids.join(SHELL, solids.flipped(CORE)),
        solids.flipped(solids.join(SHELL, solids.flipped(CORE))),
        solids.join(SHELL, solids.flipped(CORE), solids.icosphere(0.1, subdivisions=2)),
    ],
    ids=["a ball", "three boxes", "a torus", "a cavity", "a cavity inside out", "a ball in a cavity"],
)
def test_solids_and_cavities_do_not_overlap(mesh):
    assert share_of(mesh) == 0


def test_a_solid_within_a_solid_overlaps():
    assert share_of(solids.join(SHELL, CORE)) == pytest.approx(0.6**3, abs=0.02)


def coil(turns: float, sections: int = 60) -> Mesh:
    """A square bar bent round the z axis by so many turns, each a little wider than the one before it."""
    angle = np.linspace(0, 2 * np.pi * turns, sections)
    radius = 0.3 + 0.01 * angle
    across, up = np.array([-0.1, 0.1, 0.1, -0.1]), np.array([-0.1, -0.1, 0.1, 0.1])
    reach = radius[:, None] + across
    ring = np.stack([reach * np.cos(angle)[:, None], reach * np.sin(angle)[:, None], np.tile(up, (sections, 1))], -1)
    start = 4 * np.arange(sections - 1)[:, None] + np.arange(4)
    following = 4 * np.arange(sections - 1)[:, None] + np.array([1, 2, 3, 0])
    quads = np.stack([start, start + 4, following + 4, following], -1).reshape(-1, 4)
    last = 4 * (sections - 1)
    quads = np.concatenate([quads, [[0, 1, 2, 3], [last + 3, last + 2, last + 1, last]]])
    return Mesh(ring.reshape(-1, 3), np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]))


def test_one_surface_that_passes_through_itself_overlaps():
    assert is_watertight(coil(1.5)) and share_of(coil(0.9)) == 0
    assert 0.2 < share_of(coil(1.5)) < 0.5  # the second half turn lies nearly in the first


def test_parts_are_turned_outward_and_cavities_left():
    assert volume(outward(solids.join(solids.flipped(LEFT), RIGHT))) == pytest.approx(2 * 0.216)
    hollow = solids.join(SHELL, solids.flipped(CORE))
    for mesh in (hollow, solids.flipped(hollow)):
        assert volume(outward(mesh)) == pytest.approx(volume(SHELL) - volume(CORE))
