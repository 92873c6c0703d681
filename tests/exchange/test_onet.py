"""The prepared set of Occupancy Networks: written as published, and read back."""

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.arrays import Rejected
from pipeline.exchange import onet, views
from pipeline.exchange.npz import read_npz, write_npz
from pipeline.sources.splits import SplitSettings, read_split_lists
from tests import solids
from tests.exchange.finished import LOC, SCALE, finished


@pytest.fixture(scope="module")
def shape():
    return finished()


@pytest.fixture(scope="module")
def files(shape):
    return onet.shape_files(shape)


def test_the_folder_is_laid_out_as_published(files):
    assert set(files) == {
        "points.npz",
        "pointcloud.npz",
        "model.binvox",
        "img_choy2016/000.jpg",
        "img_choy2016/001.jpg",
        "img_choy2016/cameras.npz",
    }
    points = np.load(io.BytesIO(files["points.npz"]), allow_pickle=False)
    assert set(points) == {"points", "occupancies", "loc", "scale"}
    assert points["points"].shape == (1003, 3)
    assert (points["occupancies"].dtype, points["occupancies"].shape) == (np.uint8, (126,))
    np.testing.assert_array_equal(points["loc"], LOC)
    assert (points["scale"].shape, points["scale"]) == ((), SCALE)


def test_what_is_written_is_read_back(shape, files):
    volume, loc, scale = onet.read_points(files["points.npz"])
    np.testing.assert_array_equal(volume["points"], shape.arrays["volume.points"])
    np.testing.assert_array_equal(volume["occupancies"], shape.arrays["volume.occupancies"])
    np.testing.assert_array_equal(loc, LOC)
    assert scale == SCALE
    surface, _, _ = onet.read_pointcloud(files["pointcloud.npz"])
    np.testing.assert_array_equal(surface["points"], shape.arrays["surface.points"])
    np.testing.assert_allclose(surface["normals"], shape.arrays["surface.normals"], atol=1e-6)
    np.testing.assert_array_equal(onet.read_voxels(files["model.binvox"]), shape.arrays["voxels.32"])


def test_half_precision_has_the_published_types_and_error(shape):
    files = onet.shape_files(shape, float16=True)
    assert read_npz(files["points.npz"])["points"].dtype == np.float16
    volume, _, _ = onet.read_points(files["points.npz"])
    np.testing.assert_allclose(volume["points"], shape.arrays["volume.points"], atol=2.5e-4)
    surface, _, _ = onet.read_pointcloud(files["pointcloud.npz"])
    np.testing.assert_allclose(np.linalg.norm(surface["normals"], axis=1), 1, atol=1e-6)


def test_published_points_may_be_packed_or_plain():
    flags = np.arange(11) % 3 == 0
    frame = {"loc": np.zeros(3), "scale": np.float64(1)}
    for stored in (np.packbits(flags), flags, flags.astype(np.uint8)):
        content = write_npz({"points": np.full((11, 3), 0.25, np.float16), "occupancies": stored, **frame})
        np.testing.assert_array_equal(onet.read_points(content)[0]["occupancies"], flags)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"occupancies": np.zeros(3, np.uint8)}, "neither packed nor plain"),
        ({"points": np.full((11, 3), np.nan)}, "not finite"),
        ({"points": np.zeros((11, 2))}, "shape"),
        ({"scale": np.float64(0)}, "frame"),
        ({"loc": np.zeros(2)}, "shape"),
    ],
)
def test_points_that_do_not_fit_together_are_rejected(change, words):
    whole = {"points": np.zeros((11, 3)), "occupancies": np.zeros(11, bool), "loc": np.zeros(3), "scale": np.float64(1)}
    onet.read_points(write_npz(whole))
    with pytest.raises(Rejected, match=words):
        onet.read_points(write_npz(whole | change))


def test_pictures_lie_on_white_and_keep_their_place(shape, files):
    picture = np.array(Image.open(io.BytesIO(files["img_choy2016/001.jpg"]))).astype(int)
    exact = views.on_white(shape.arrays["views.images"][1]).astype(int)
    assert picture.shape == (40, 40, 3)
    assert np.abs(picture - exact).mean() < 4
    assert (picture[exact.min(axis=-1) == 255] > 200).mean() > 0.99


def test_cameras_see_the_source_frame(shape, files):
    cameras = np.load(io.BytesIO(files["img_choy2016/cameras.npz"]), allow_pickle=False)
    assert set(cameras) == {f"{kind}_mat_{view}" for kind in ("world", "camera") for view in range(2)}
    canonical = solids.three_boxes().vertices
    source = LOC + SCALE * canonical
    for view in range(2):
        world, camera = cameras[f"world_mat_{view}"], cameras[f"camera_mat_{view}"]
        np.testing.assert_allclose(world[:, :3] @ world[:, :3].T, np.eye(3), atol=1e-6)
        pose = shape.arrays["views.extrinsics"][view]
        seen, expected = ((p @ m[:, :3].T + m[:, 3]) @ camera.T for p, m in ((source, world), (canonical, pose)))
        np.testing.assert_allclose(seen[:, :2] / seen[:, 2:], expected[:, :2] / expected[:, 2:], atol=1e-3)


def test_views_are_read_back_with_their_cameras(shape, files):
    pictures = {name.split("/")[1]: content for name, content in files.items() if name.endswith(".jpg")}
    value = views.read_views(pictures, files["img_choy2016/cameras.npz"], LOC, SCALE)
    assert value["images"].shape == (2, 40, 40, 4)
    assert (value["images"][..., 3] == 255).all()
    np.testing.assert_allclose(value["extrinsics"], shape.arrays["views.extrinsics"], atol=1e-5)
    np.testing.assert_array_equal(value["intrinsics"], shape.arrays["views.intrinsics"])


@pytest.mark.parametrize(("pictures", "words"), [({}, "no views"), ({"000.jpg": b"x"}, "no picture")])
def test_views_that_cannot_be_read_are_rejected(files, pictures, words):
    with pytest.raises(Rejected, match=words):
        views.read_views(pictures, files["img_choy2016/cameras.npz"], LOC, SCALE)


def test_a_view_without_its_camera_is_rejected(files):
    pictures = {f"{view:03d}.jpg": files["img_choy2016/000.jpg"] for view in range(3)}
    with pytest.raises(Rejected, match="camera_mat_2"):
        views.read_views(pictures, files["img_choy2016/cameras.npz"], LOC, SCALE)


def test_choys_renderings_have_their_metadata(shape):
    files = views.choy_files(shape.arrays)
    assert files["rendering/renderings.txt"] == b"00.png\n01.png\n"
    lines = files["rendering/rendering_metadata.txt"].decode().split("\n")
    azimuth, elevation, turn, distance, lens = map(float, lines[1].split())
    np.testing.assert_allclose((azimuth, elevation, distance), shape.arrays["views.viewpoints"][1], rtol=1e-6)
    assert (turn, lens, lines[2]) == (0, 25, "")
    picture = np.array(Image.open(io.BytesIO(files["rendering/01.png"])))
    np.testing.assert_array_equal(picture, shape.arrays["views.images"][1])
    np.testing.assert_array_equal(views.picture_of(files["rendering/01.png"]), picture)


def test_lists_hold_one_id_a_line_and_no_line_more(tmp_path):
    rows = [("03001627", "b", "train"), ("03001627", "a", "train"), ("02691156", "c", "test")]
    files = onet.set_files(rows, {"03001627": "chair"})
    assert files["03001627/train.lst"] == b"a\nb"
    assert files["03001627/val.lst"] == b""
    assert b'"name": "chair"' in files["metadata.yaml"]
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    lists = read_split_lists(SplitSettings(kind="files", path=str(tmp_path)))
    assert lists == {(category, shape): split for category, shape, split in rows}
