"""Occupancy grids: cell centres, axis order, no shift."""

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.arrays import Mesh, Rejected
from pipeline.samples.voxels import VoxelSettings, voxelize
from pipeline.storage import decode, encode
from tests import solids


def grid_of(mesh, resolution):
    return voxelize(mesh, VoxelSettings(resolution=resolution)).value["occupancies"]


@pytest.mark.parametrize("resolution", [1, 6, 32])
def test_each_cell_tells_whether_its_centre_is_inside(resolution):
    grid = grid_of(solids.three_boxes(), resolution)
    assert grid.shape == (resolution,) * 3
    assert grid.dtype == bool
    cells = np.indices(grid.shape).reshape(3, -1).T  # rows (i, j, k) belong to the axes x, y, z
    distances = solids.three_boxes_sdf((cells + 0.5) / resolution - 0.5)
    assert np.abs(distances).min() > 1e-4
    np.testing.assert_array_equal(grid[tuple(cells.T)], distances < 0)


@pytest.mark.parametrize("axis", range(3))
def test_a_slab_at_the_low_end_of_an_axis_fills_its_first_cells(axis):
    extents, centre = np.ones(3), np.zeros(3)
    extents[axis], centre[axis] = 0.25, -0.375
    expected = np.zeros((4, 4, 4), bool)
    np.moveaxis(expected, axis, 0)[0] = True
    np.testing.assert_array_equal(grid_of(solids.box(extents, centre), 4), expected)


def test_a_solid_is_filled_not_just_outlined():
    assert grid_of(solids.icosphere(0.45, subdivisions=4), 16)[8, 8, 8]


def test_the_filled_share_is_the_volume():
    product = voxelize(solids.icosphere(0.45, subdivisions=5), VoxelSettings())
    assert product.value["occupancies"].shape == (64, 64, 64)
    assert product.figures["occupied_share"] == pytest.approx(solids.sphere_volume(0.45), rel=5e-3)
    assert product.figures["mesh_volume"] == pytest.approx(solids.sphere_volume(0.45), rel=5e-3)


def test_a_grid_is_stored_as_bits_in_its_shape():
    product = voxelize(solids.three_boxes(), VoxelSettings(resolution=20))
    encoding = product.encoding["occupancies"]
    stored = encode(product.value["occupancies"], encoding)
    assert (encoding, stored.nbytes) == (("bits", [20, 20, 20]), 1000)
    np.testing.assert_array_equal(decode(stored, encoding), product.value["occupancies"])


def test_resolution_is_at_least_one():
    with pytest.raises(ValidationError):
        VoxelSettings(resolution=0)


def test_a_mesh_without_area_is_rejected():
    with pytest.raises(Rejected, match="area"):
        voxelize(Mesh([(0, 0, 0)], [(0, 0, 0)]), VoxelSettings(resolution=2))


@pytest.mark.parametrize("inside", ["parity", "waterproof"])
def test_the_originals_inside_tests_agree_on_a_closed_mesh(inside):
    settings = VoxelSettings(resolution=20, inside=inside)
    grid = voxelize(solids.three_boxes(), settings).value["occupancies"]
    np.testing.assert_array_equal(grid, grid_of(solids.three_boxes(), 20))


def test_a_hole_spoils_parity_and_waterproofing_looks_another_way():
    ball = solids.icosphere(0.4, subdivisions=3)
    kept = ball.triangles.mean(axis=1)[:, 2] < 0.35  # without its cap at the top
    open_ball = Mesh(ball.vertices, ball.faces[kept])
    grids = {
        inside: voxelize(open_ball, VoxelSettings(resolution=16, inside=inside)).value["occupancies"]
        for inside in ("parity", "waterproof")
    }
    assert not grids["parity"][8, 8, 8]
    assert grids["waterproof"][8, 8, 8]


def test_a_grid_beyond_the_workers_memory_is_refused_before_it_is_made(monkeypatch):
    limit = 100 * 2**20
    monkeypatch.setattr("pipeline.geometry.memory.resource.getrlimit", lambda kind: (limit, limit))
    with pytest.raises(MemoryError, match=r"a grid of 512\^3 cells needs \d+ MB, and 0 MB are left"):
        voxelize(solids.three_boxes(), VoxelSettings(resolution=512))
