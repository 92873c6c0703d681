"""IM-NET's HDF5: the grid in its frame, exact pairs, and files of another form."""

import h5py
import numpy as np
import pytest

from pipeline.arrays import Rejected
from pipeline.exchange.imnet import ImnetSet, solid_grid, write_set
from pipeline.samples.point_values import max_pool
from tests import solids
from tests.exchange.finished import finished


def centres(size, edge=1.0, centre=(0, 0, 0)):
    return ((np.indices((size,) * 3).reshape(3, -1).T + 0.5) / size - 0.5) * edge + centre


@pytest.mark.parametrize("resolution", [16, 64])
def test_the_grid_is_that_of_every_centre_asked_alone(resolution):
    edge, centre = 1.3, np.array((0.05, -0.02, 0.1))
    grid = solid_grid(solids.three_boxes(), resolution, centre, edge)
    exact = solids.three_boxes_sdf(centres(resolution, edge, centre))
    sure = np.abs(exact) > 1e-6
    np.testing.assert_array_equal(grid.ravel()[sure], exact[sure] < 0)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imnet")
    shapes = [finished("a1", views=24, pixels=137)]
    return shapes[0], write_set(folder, "train", iter(shapes), 1, seed=0)


def test_the_datasets_are_those_of_the_original(written):
    _, path = written
    assert path.name == "all_vox256_img_train.hdf5"
    assert path.with_suffix(".txt").read_text() == "03001627/a1\n"
    with h5py.File(path) as file:
        found = {name: (file[name].dtype, file[name].shape) for name in file}
    assert found == {
        "pixels": (np.uint8, (1, 24, 137, 137)),
        "voxels": (np.uint8, (1, 64, 64, 64, 1)),
        **{f"points_{level}": (np.uint8, (1, count, 3)) for level, count in ((16, 4096), (32, 4096), (64, 16384))},
        **{f"values_{level}": (np.uint8, (1, count, 1)) for level, count in ((16, 4096), (32, 4096), (64, 16384))},
    }


def test_pairs_are_exact_in_the_frame_of_diagonal_one(written):
    shape, path = written
    low, high = shape.mesh.bounds
    diagonal, centre = np.linalg.norm(high - low), (low + high) / 2
    with ImnetSet(path) as rows:
        assert (len(rows), rows.names) == (1, ["03001627/a1"])
        row = rows[0]
    for level in (16, 32, 64):
        exact = solids.three_boxes_sdf(row[f"points_{level}"] * diagonal + centre)
        np.testing.assert_array_equal(row[f"values_{level}"], exact < 0)
        assert row[f"values_{level}"].any()
        assert row[f"points_{level}"].dtype == np.float32
    fine = solid_grid(shape.mesh, 256, centre, diagonal)
    np.testing.assert_array_equal(row["voxels"], max_pool(fine, 4))
    assert row["voxels"].dtype == bool


def test_pixels_are_grey_on_white(written):
    shape, path = written
    with ImnetSet(path) as rows:
        pixels = rows[0]["pixels"]
    alpha = shape.arrays["views.images"][..., 3]
    assert (pixels[alpha == 0] == 255).all()
    np.testing.assert_array_equal(pixels[alpha == 255], shape.arrays["views.images"][alpha == 255][:, 0])


def test_a_row_that_is_not_there(written):
    with ImnetSet(written[1]) as rows, pytest.raises(IndexError):
        rows[1]


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("voxels", np.zeros((1, 32, 32, 32, 1), np.uint8), "voxels is"),
        ("voxels", np.zeros((2, 64, 64, 64, 1), np.uint8), "voxels is"),
        ("other", np.zeros(3), "no dataset voxels"),
    ],
)
def test_a_file_of_another_form_is_rejected(tmp_path, name, array, words):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file[name] = array
    (tmp_path / "x.txt").write_text("03001627/a\n")
    with pytest.raises(Rejected, match=words):
        ImnetSet(tmp_path / "x.hdf5")


def test_a_file_that_is_no_hdf5_is_rejected(tmp_path):
    (tmp_path / "x.hdf5").write_bytes(b"something else")
    with pytest.raises(Rejected, match="no HDF5 file"):
        ImnetSet(tmp_path / "x.hdf5")
