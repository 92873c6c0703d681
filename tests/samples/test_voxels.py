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
