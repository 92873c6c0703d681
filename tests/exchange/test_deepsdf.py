"""DeepSDF's files: its frame, its signs, and what it finds in them."""

import dataclasses
import io
import json

import numpy as np
import pytest

from pipeline.arrays import Rejected
from pipeline.exchange import deepsdf
from pipeline.exchange.npz import write_npz
from pipeline.sources.splits import SplitSettings, read_split_lists
from tests import solids
from tests.exchange.finished import LOC, SCALE, finished


@pytest.fixture(scope="module")
def shape():
    return finished()


@pytest.fixture(scope="module")
def files(shape):
    return deepsdf.shape_files(shape, "mine")


def test_samples_of_disputed_sign_are_left_out(shape, files):
    kept = np.arange(500) % 5 > 0
    marked = dataclasses.replace(shape, arrays={**shape.arrays, "sdf.kept.boundary-0.05": kept})
    whole, part = (
        np.load(io.BytesIO(made["SdfSamples/mine/03001627/a1.npz"]))
        for made in (files, deepsdf.shape_files(marked, "mine"))
    )
    assert sum(len(part[side]) for side in ("pos", "neg")) == 1503 - 100
    assert set(map(tuple, part["neg"])) <= set(map(tuple, whole["neg"]))


def test_the_unit_cube_has_the_scale_of_the_sheet():
    # deepsdf.md 2.1: a cube [-0.5, 0.5]^3 gives scale 1.121068
    centre, radius = deepsdf.normalisation(solids.box())
    np.testing.assert_allclose(centre, 0)
    assert 1 / (deepsdf.BUFFER * radius) == pytest.approx(1.121068, abs=1e-6)


def test_vertices_that_no_face_uses_do_not_count():
    mesh = solids.box()
    lost = type(mesh)(np.concatenate([mesh.vertices, [(9, 9, 9)]]), mesh.faces)
    assert deepsdf.normalisation(lost)[1] == deepsdf.normalisation(mesh)[1]


def test_samples_are_split_by_sign_in_the_sphere_s_frame(shape, files):
    samples = np.load(io.BytesIO(files["SdfSamples/mine/03001627/a1.npz"]), allow_pickle=False)
    assert set(samples) == {"pos", "neg"}
    assert samples["pos"].dtype == samples["neg"].dtype == np.float32
    assert len(samples["pos"]) + len(samples["neg"]) == 1503
    assert (samples["pos"][:, 3] > 0).all()
    assert (samples["neg"][:, 3] <= 0).all()
    centre, radius = deepsdf.normalisation(shape.mesh)
    unit = 1.03 * radius
    rows = np.concatenate([samples["pos"], samples["neg"]]).astype(float)
    exact = solids.three_boxes_sdf(rows[:, :3] * unit + centre)
    np.testing.assert_allclose(rows[:, 3] * unit, exact, rtol=1e-3, atol=1e-6)


def test_the_normalisation_leads_from_the_source_frame(shape, files):
    offset, scale = deepsdf.read_normalisation(files["NormalizationParameters/mine/03001627/a1.npz"])
    placed = (LOC + SCALE * shape.mesh.vertices + offset) * scale
    low, high = placed.min(axis=0), placed.max(axis=0)
    np.testing.assert_allclose(low, -high, atol=1e-6)
    assert np.linalg.norm(placed, axis=1).max() == pytest.approx(1 / 1.03, rel=1e-6)


def test_surface_samples_lie_in_the_source_frame(shape, files):
    text = files["SurfaceSamples/mine/03001627/a1.ply"].decode()
    header, body = text.split("end_header\n")
    assert "element vertex 700" in header
    vertices = np.loadtxt(io.StringIO(body), max_rows=700)
    np.testing.assert_allclose(vertices, LOC + SCALE * shape.arrays["surface.points"], atol=1e-6)


def test_what_is_written_is_read_back_in_canonical_units(shape, files):
    centre, radius = deepsdf.normalisation(shape.mesh)
    value = deepsdf.read_samples(files["SdfSamples/mine/03001627/a1.npz"], per_unit=1.03 * radius)
    order = np.lexsort((value["points"] + centre).round(4).T)
    points = np.concatenate([shape.arrays[f"{name}.points"] for name in ("boundary-0.05", "volume")])
    distances = np.concatenate([shape.arrays[f"sdf.{name}"] for name in ("boundary-0.05", "volume")])
    assert len(order) == len(points)
    np.testing.assert_allclose(solids.three_boxes_sdf(value["points"] + centre), value["sdf"], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(np.sort(value["sdf"]), np.sort(distances), atol=1e-6)


def test_rows_that_are_no_numbers_are_dropped():
    pos = np.array([(0, 0, 0, 0.1), (0, 0, 0, np.nan), (1, 2, 3, 0.5)], np.float32)
    value = deepsdf.read_samples(write_npz({"pos": pos, "neg": np.empty((0, 4), np.float32)}), per_unit=0.5)
    np.testing.assert_array_equal(value["points"], [(0, 0, 0), (0.5, 1, 1.5)])
    np.testing.assert_allclose(value["sdf"], (0.05, 0.25))


@pytest.mark.parametrize(
    "arrays",
    [{"pos": np.zeros((3, 4))}, {"pos": np.zeros((3, 3)), "neg": np.zeros((3, 4))}, {"pos": np.empty((0, 4))}],
)
def test_files_without_samples_are_rejected(arrays):
    with pytest.raises(Rejected):
        deepsdf.read_samples(write_npz({"neg": np.empty((0, 3)), **arrays}))


def test_split_lists_are_deepsdfs(tmp_path):
    rows = [("03001627", "b", "train"), ("03001627", "a", "test"), ("02691156", "c", "train")]
    files = deepsdf.set_files(rows, "mine")
    assert json.loads(files["splits/mine_train.json"]) == {"mine": {"02691156": ["c"], "03001627": ["b"]}}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    lists = read_split_lists(SplitSettings(kind="files", path=str(tmp_path / "splits")))
    assert lists == {(category, shape): split for category, shape, split in rows}
