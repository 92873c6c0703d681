"""A set that another project prepared: listed, read, and made products of."""

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.arrays import Rejected
from pipeline.exchange import onet, prepared
from pipeline.exchange.npz import read_npz, write_npz
from pipeline.samples.surface import SurfaceSettings
from pipeline.samples.views import ViewSettings
from pipeline.samples.volume import VolumeSettings
from pipeline.samples.voxels import VoxelSettings
from pipeline.sources.catalogue import read_raw
from pipeline.sources.errors import SourceError
from pipeline.sources.listing import list_source
from pipeline.sources.prepared import PreparedSettings, list_prepared, part_of
from pipeline.storage import rounded
from tests.exchange.finished import finished

CHAIR = "03001627"


@pytest.fixture(scope="module")
def shape():
    return finished("a1")


@pytest.fixture
def folder(tmp_path, shape):
    rows = [(CHAIR, "a1", "train"), (CHAIR, "bare", "test")]
    files = onet.set_files(rows, {}) | {f"{shape.name}/{n}": c for n, c in onet.shape_files(shape, True).items()}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / CHAIR / "bare").mkdir()
    return tmp_path


def listed(folder, **keys):
    return {
        entry.id: entry for entry in list_prepared(PreparedSettings(path=str(folder), categories=["chair"], **keys))
    }


def product(entry, stage, settings):
    raw = read_raw(part_of(entry.location, stage))
    return getattr(prepared, stage)(raw.content, raw.name, raw.companions, settings)


def test_shapes_have_the_splits_of_the_lists_in_the_set(folder):
    entries = listed(folder)
    assert {name: (entry.category, entry.split) for name, entry in entries.items()} == {
        "a1": (CHAIR, "train"),
        "bare": (CHAIR, "test"),
    }
    assert entries["a1"].reason is None
    assert "its folder has none of pointcloud.npz" in entries["bare"].reason


def test_another_split_may_be_asked_for(folder):
    entries = listed(folder, split={"train": 0.0, "val": 0.0, "test": 1.0})
    assert {entry.split for entry in entries.values()} == {"test"}


def test_every_stage_gives_what_was_exported(folder, shape):
    entry = listed(folder)["a1"]
    surface = product(entry, "sample_surface", SurfaceSettings())
    np.testing.assert_allclose(surface.value["points"], shape.arrays["surface.points"], atol=2.5e-4)
    cosines = (surface.value["normals"] * shape.arrays["surface.normals"]).sum(axis=1)
    assert cosines.min() > np.cos(np.radians(1.1))
    volume = product(entry, "sample_volume", VolumeSettings())
    np.testing.assert_array_equal(volume.value["occupancies"], shape.arrays["volume.occupancies"])
    voxels = product(entry, "voxelize", VoxelSettings(resolution=32))
    np.testing.assert_array_equal(voxels.value["occupancies"], shape.arrays["voxels.32"])
    views = product(entry, "render_views", ViewSettings())
    assert views.value["images"].shape == (2, 40, 40, 4)
    np.testing.assert_allclose(views.value["extrinsics"], shape.arrays["views.extrinsics"], atol=1e-5)
    for made in (surface, volume, voxels, views):
        for name, encoding in made.encoding.items():
            np.testing.assert_array_equal(rounded(made.value[name], encoding), made.value[name])


def test_points_keep_the_precision_of_the_file_since_their_labels_do(folder):
    entry = listed(folder)["a1"]
    assert product(entry, "sample_volume", VolumeSettings()).encoding["points"] == ("float16",)
    path = folder / CHAIR / "a1" / "points.npz"
    arrays = read_npz(path.read_bytes())
    path.write_bytes(write_npz({**arrays, "points": arrays["points"].astype(np.float32) + np.float32(1e-5)}))
    assert product(listed(folder)["a1"], "sample_volume", VolumeSettings()).encoding["points"] == ("float32",)


def test_fewer_points_are_the_first_of_the_file(folder):
    entry = listed(folder)["a1"]
    few = product(entry, "sample_volume", VolumeSettings(count=10))
    many = product(entry, "sample_volume", VolumeSettings())
    assert few.figures["points"] == 10
    assert many.figures["points"] == 1003
    np.testing.assert_array_equal(few.value["points"], many.value["points"][:10])


def test_a_grid_of_another_resolution_is_rejected(folder):
    with pytest.raises(Rejected, match="32 cells along an edge, the study asks for 64"):
        product(listed(folder)["a1"], "voxelize", VoxelSettings(resolution=64))


@pytest.mark.parametrize(
    ("file", "stage", "settings"),
    [
        ("model.binvox", "voxelize", VoxelSettings(resolution=32)),
        ("points.npz", "sample_volume", VolumeSettings()),
        ("points.npz", "render_views", ViewSettings()),
        ("img_choy2016/cameras.npz", "render_views", ViewSettings()),
        ("img_choy2016/000.jpg", "render_views", ViewSettings(views=24)),
    ],
)
def test_what_a_shape_lacks_is_told(folder, shape, file, stage, settings):
    (folder / CHAIR / "a1" / file).unlink()
    if file.endswith("000.jpg"):
        value = product(listed(folder)["a1"], stage, settings).value
        np.testing.assert_allclose(value["extrinsics"], shape.arrays["views.extrinsics"][1:], atol=1e-5)
    else:
        with pytest.raises(Rejected, match=file.split("/")[-1]):
            product(listed(folder)["a1"], stage, settings)


def test_a_file_too_large_is_refused_without_being_read(folder):
    assert "more than the limit of 10" in listed(folder, limits={"max_bytes": 10})["a1"].reason


def test_a_category_that_is_not_there(folder):
    with pytest.raises(SourceError, match="has no folder 02691156"):
        list_prepared(PreparedSettings(path=str(folder), categories=["airplane"]))
    with pytest.raises(ValidationError):
        PreparedSettings(path=str(folder), categories=[])


def test_an_unchanged_set_is_not_listed_again(folder):
    source = PreparedSettings(path=str(folder), categories=["chair"]).model_dump(mode="json")
    entries, memory = list_source(source, folder)
    assert [entry.id for entry in entries] == ["a1", "bare"]
    assert list_source(source, folder, memory) == (None, memory)
    (folder / CHAIR / "bare" / "points.npz").write_bytes(b"x")
    again, changed = list_source(source, folder, memory)
    assert changed != memory
    assert [entry.reason for entry in again] == [None, None]
