"""A set in IM-NET's layout: its rows become the shapes, and each data stage reads what was exported."""

import h5py
import numpy as np
import pytest

from pipeline.arrays import Rejected
from pipeline.evaluation.inputs import voxel_mesh
from pipeline.evaluation.occupancy import inside_many
from pipeline.exchange import prepared_imnet as stages
from pipeline.exchange.imnet import ImnetSet, write_set
from pipeline.models.imnet_svr import LUMINANCE
from pipeline.samples.point_values import max_pool
from pipeline.samples.surface import SurfaceSettings
from pipeline.samples.views import ViewSettings
from pipeline.samples.volume import VolumeSettings
from pipeline.samples.voxels import VoxelSettings
from pipeline.sources.errors import SourceError
from pipeline.sources.hdf5 import read_row
from pipeline.sources.prepared import PreparedSettings, list_prepared, read_part
from pipeline.storage import rounded
from tests.exchange.finished import finished


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The folder of a set that our own exporter wrote: one shape to train on, one to test."""
    folder = tmp_path_factory.mktemp("imnet")
    for split, name in (("train", "a1"), ("test", "b2")):
        write_set(folder, split, [finished(name, views=24, pixels=137)], 1, seed=0)
    return folder


def listed(folder, **keys):
    settings = PreparedSettings(layout="imnet", path=str(folder), categories=["chair"], **keys)
    return {entry.id: entry for entry in list_prepared(settings)}


def product(entry, stage, settings, **keys):
    raw = read_part(entry.location, stage)
    made = getattr(stages, stage)(raw.content, raw.name, raw.companions, settings, **keys)
    for name, encoding in made.encoding.items():
        np.testing.assert_array_equal(rounded(made.value[name], encoding), made.value[name])
    return made


def small_set(folder, voxels, names, split="train"):
    """Files that hold voxels alone."""
    with h5py.File(folder / f"all_vox256_img_{split}.hdf5", "w") as file:
        file["voxels"] = voxels
    (folder / f"all_vox256_img_{split}.txt").write_text("".join(f"{name}\n" for name in names))


def grids(count=1, value=1):
    voxels = np.zeros((count, 64, 64, 64, 1), np.uint8)
    voxels[:, 10:20, 30:34, 5:50] = value
    return voxels


def test_the_files_are_the_splits_and_another_may_be_asked_for(exported):
    assert {name: entry.split for name, entry in listed(exported).items()} == {"a1": "train", "b2": "test"}
    own = listed(exported, split={"train": 0.0, "val": 1.0, "test": 0.0})
    assert {entry.split for entry in own.values()} == {"val"}


def test_every_stage_gives_what_was_exported(exported):
    entry = listed(exported)["b2"]
    with ImnetSet(exported / "all_vox256_img_test.hdf5") as rows:
        row = rows[0]
    for size in (64, 32):
        made = product(entry, "voxelize", VoxelSettings(resolution=size)).value["occupancies"]
        np.testing.assert_array_equal(made, max_pool(row["voxels"], 64 // size))
    images = product(entry, "render_views", ViewSettings(views=23)).value["images"]
    assert images.shape == (23, 137, 137, 4) and (images[..., 3] == 255).all()
    np.testing.assert_allclose(images[..., :3] @ np.array(LUMINANCE), row["pixels"][:23], atol=1e-9)


def test_labelled_points_have_the_values_of_their_voxels(exported):
    entry = listed(exported)["a1"]
    voxels = product(entry, "voxelize", VoxelSettings(resolution=64)).value["occupancies"]
    value = product(entry, "sample_volume", VolumeSettings(count=5000), rng=np.random.default_rng(0)).value
    assert value["points"].min() > -0.5 and value["points"].max() < 0.5
    assert value["occupancies"].mean() == pytest.approx(voxels.mean(), abs=0.02)
    inside = inside_many(voxel_mesh(voxels), value["points"], "waterproof")
    assert (inside == value["occupancies"]).mean() > 0.999


def test_surface_points_lie_on_the_faces_of_the_voxels_uniform_by_area(tmp_path):
    small_set(tmp_path, grids(), ["03001627/a"])
    made = product(listed(tmp_path)["a"], "sample_surface", SurfaceSettings(count=20_000), rng=np.random.default_rng(0))
    points, normals = made.value["points"], made.value["normals"]
    low, high = np.array((10, 30, 5)) / 64 - 0.5, np.array((20, 34, 50)) / 64 - 0.5
    sides = high - low
    areas = sides.prod() / sides  # of the box's faces across each axis
    assert made.figures["area"] == pytest.approx(2 * areas.sum())
    assert (points >= low - 1e-4).all() and (points <= high + 1e-4).all()
    for axis in range(3):
        for side, corner in ((-1, low), (1, high)):
            on = normals[:, axis] * side > 0.9
            assert on.mean() == pytest.approx(areas[axis] / areas.sum() / 2, abs=0.01)
            np.testing.assert_allclose(points[on, axis], corner[axis], atol=1e-4)


def test_one_of_many_rows_that_share_their_chunks(tmp_path):
    voxels = np.random.default_rng(0).integers(0, 2, (5, 64, 64, 64, 1), np.uint8)
    path = tmp_path / "x.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("voxels", data=voxels, chunks=(2, 16, 16, 16, 1), compression=1)
    for row in (4, 0, 3, 1, 2):
        assert read_row(path, "voxels", row, 5, (64, 64, 64, 1)) == voxels[row].tobytes()


def test_a_changed_file_is_read_again(tmp_path):
    small_set(tmp_path, grids(), ["03001627/a"])
    first = product(listed(tmp_path)["a"], "voxelize", VoxelSettings(resolution=64)).value["occupancies"]
    small_set(tmp_path, np.flip(grids(2), 1), ["03001627/a", "03001627/b"])
    again = product(listed(tmp_path)["a"], "voxelize", VoxelSettings(resolution=64)).value["occupancies"]
    np.testing.assert_array_equal(again, first[::-1])


@pytest.mark.parametrize(
    ("voxels", "words"),
    [
        (np.zeros((1, 64, 64, 64, 1), np.uint8), "none of its voxels is occupied"),
        (grids(value=2), "not 0 and 1"),
        (grids().astype(np.float32) * np.nan, "voxels is float32"),
        (grids(2), "as its .txt of 1 names asks"),
        (np.zeros((1, 32, 32, 32, 1), np.uint8), "not uint8 "),
    ],
)
def test_voxels_of_another_form_are_rejected(tmp_path, voxels, words):
    small_set(tmp_path, voxels, ["03001627/a"])
    with pytest.raises(Rejected, match=words):
        product(listed(tmp_path)["a"], "voxelize", VoxelSettings(resolution=64))


def test_what_the_file_lacks_or_keeps_elsewhere_is_rejected(tmp_path):
    small_set(tmp_path, grids(), ["03001627/a"])
    entry = listed(tmp_path)["a"]
    with pytest.raises(Rejected, match="has no dataset pixels"):
        product(entry, "render_views", ViewSettings())
    path = tmp_path / "all_vox256_img_train.hdf5"
    with h5py.File(path, "a") as file:
        file["pixels"] = h5py.ExternalLink("other.hdf5", "pixels")
    with pytest.raises(Rejected, match="has no dataset pixels"):
        product(entry, "render_views", ViewSettings())
    path.write_bytes(b"something else")
    with pytest.raises(Rejected, match="no HDF5 file"):
        product(entry, "voxelize", VoxelSettings(resolution=64))
    path.unlink()
    with pytest.raises(Rejected, match="not there any more"):
        product(entry, "voxelize", VoxelSettings(resolution=64))


def test_a_shape_in_two_rows_is_refused_and_the_others_kept(tmp_path):
    small_set(tmp_path, grids(3), ["03001627/a", "03001627/b", "03001627/a"])
    entries = listed(tmp_path)
    assert entries["a"].reason == "it stands in 2 rows of all_vox256_img_train.hdf5"
    assert entries["b"].reason is None


def test_a_shape_in_both_files_or_a_set_without_its_files_stops_everything(tmp_path):
    with pytest.raises(SourceError, match=r"has neither all_vox256_img_train\.hdf5 nor"):
        listed(tmp_path)
    small_set(tmp_path, grids(), ["03001627/a"])
    with pytest.raises(SourceError, match="no shape of 02691156"):
        list_prepared(PreparedSettings(layout="imnet", path=str(tmp_path), categories=["airplane"]))
    small_set(tmp_path, grids(), ["03001627/a"], "test")
    with pytest.raises(SourceError, match="stand in two splits"):
        listed(tmp_path)
    (tmp_path / "all_vox256_img_test.txt").write_text("lonely\n")
    with pytest.raises(SourceError, match="row 0 is 'lonely', not category/id"):
        listed(tmp_path)
    (tmp_path / "all_vox256_img_test.txt").unlink()
    with pytest.raises(SourceError, match=r"all_vox256_img_test\.txt cannot be read"):
        listed(tmp_path)
