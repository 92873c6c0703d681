"""A set in DeepSDF's layout: what was exported comes back in the canonical frame, and trains the model."""

import numpy as np
import pytest

from pipeline.arrays import Rejected
from pipeline.exchange import deepsdf
from pipeline.exchange import prepared_deepsdf as stages
from pipeline.exchange.npz import read_npz, write_npz
from pipeline.samples.surface import SurfaceSettings
from pipeline.shape_arrays import shape_arrays
from pipeline.sources.errors import SourceError
from pipeline.sources.prepared import PreparedSettings, list_prepared, read_part
from pipeline.storage import rounded
from tests import solids
from tests.exchange.finished import finished
from tests.models.shapes import tiny_model

CHAIR = "03001627"
SAMPLES = "SdfSamples/mine/03001627/a1.npz"
SURFACE = "SurfaceSamples/mine/03001627/a1.ply"
FRAME = "NormalizationParameters/mine/03001627/a1.npz"


@pytest.fixture(scope="module")
def shape():
    return finished("a1")


@pytest.fixture
def folder(tmp_path, shape):
    files = deepsdf.shape_files(shape, "mine") | deepsdf.set_files([(CHAIR, "a1", "test")], "mine")
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


def listed(folder, **keys):
    settings = PreparedSettings(layout="deepsdf", path=str(folder), categories=["chair"], **keys)
    return {entry.id: entry for entry in list_prepared(settings)}


def product(folder, stage, settings):
    raw = read_part(listed(folder)["a1"].location, stage)
    rng = np.random.default_rng(0)
    made = getattr(stages, stage)(raw.content, raw.name, raw.companions, settings, rng=rng)
    for name, encoding in made.encoding.items():
        np.testing.assert_array_equal(rounded(made.value[name], encoding), made.value[name])
    return made


def exact_distance(shape, points):
    """Of points (n, 3) where the exported shape has its box's middle at the origin and its longest edge is 1."""
    low, high = shape.mesh.bounds
    edge = (high - low).max()
    return solids.three_boxes_sdf(points.astype(float) * edge + (low + high) / 2) / edge


def everything(count):
    return stages.SampleSettings(count=count)


@pytest.mark.parametrize(("files", "edge_of", "error"), [(True, "surface", 2e-3), (False, "inside", 2e-2)])
def test_samples_come_back_in_the_canonical_frame(folder, shape, files, edge_of, error):
    if not files:
        (folder / SURFACE).unlink()
        (folder / FRAME).unlink()
    made = product(folder, "compute_sdf", everything(1503))
    value = made.value
    assert value["kept.samples"].all() and edge_of in made.figures["edge_of"]
    np.testing.assert_allclose(value["samples"], exact_distance(shape, value["points"]), atol=error)


def test_surface_points_come_back_without_normals(folder, shape):
    value = product(folder, "sample_surface", SurfaceSettings()).value
    assert len(value["points"]) == 700
    assert np.abs(exact_distance(shape, value["points"])).max() < 2e-3
    assert np.isnan(value["normals"]).all()
    assert len(product(folder, "sample_surface", SurfaceSettings(count=10)).value["points"]) == 10


def test_shapes_get_equally_many_samples_and_fewer_are_the_first(folder):
    few, all_, filled = (product(folder, "compute_sdf", everything(n)).value for n in (100, 1503, 2000))
    np.testing.assert_array_equal(few["points"], all_["points"][:100])
    assert filled["kept.samples"].sum() == 1503 and len(filled["points"]) == 2000
    assert 0 < (few["samples"] < 0).mean() < 1


def test_the_model_draws_and_observes_the_samples_that_count(folder):
    arrays = shape_arrays({"compute_sdf": product(folder, "compute_sdf", everything(2000)).value})
    model = tiny_model("deepsdf", 1)
    kept = model.prepare(arrays)
    inside = int((arrays["sdf.samples"][:1503] <= 0).sum())
    assert (int(kept["kept"]), int(kept["inside"]), len(kept["sdf"])) == (1503, inside, 2000)
    assert (kept["sdf"][:inside] <= 0).all() and (kept["sdf"][inside:1503] > 0).all()
    seen = model.observe(arrays, np.random.default_rng(0))
    assert sorted(seen["sdf"][:1503]) == sorted(kept["sdf"][:1503])


def test_rows_that_are_no_numbers_are_left_out(folder):
    arrays = read_npz((folder / SAMPLES).read_bytes())
    broken = {**arrays, "pos": np.vstack([arrays["pos"], np.full((7, 4), np.nan, np.float32)])}
    (folder / SAMPLES).write_bytes(write_npz(broken))
    assert product(folder, "compute_sdf", everything(1600)).figures["points"] == 1503


@pytest.mark.parametrize(
    ("file", "content", "stage", "words"),
    [
        (SAMPLES, b"x", "compute_sdf", "not an npz file"),
        (SAMPLES, write_npz({"pos": np.ones((3, 4)), "neq": np.ones((3, 4))}), "compute_sdf", "no array 'neg'"),
        (FRAME, write_npz({"offset": np.zeros(3), "scale": np.ones(1)}), "compute_sdf", "put the farthest"),
        (FRAME, write_npz({"offset": np.full(3, np.nan), "scale": np.ones(1)}), "sample_surface", "frame is not one"),
        (SURFACE, b"ply\nnothing", "sample_surface", "the PLY header"),
    ],
)
def test_files_of_another_form_are_rejected(folder, file, content, stage, words):
    (folder / file).write_bytes(content)
    with pytest.raises(Rejected, match=words):
        product(folder, stage, everything(10) if stage == "compute_sdf" else SurfaceSettings())


def test_a_shape_that_may_have_any_size_is_rejected(folder):
    (folder / SURFACE).unlink()
    (folder / SAMPLES).write_bytes(write_npz({"pos": np.ones((3, 4)), "neg": np.ones((0, 4))}))
    with pytest.raises(Rejected, match="its size is not known"):
        product(folder, "compute_sdf", everything(10))
    with pytest.raises(Rejected, match="has no SurfaceSamples and NormalizationParameters of it"):
        product(folder, "sample_surface", SurfaceSettings())


def test_what_the_set_lacks_is_told_before_anything_runs(folder):
    said = []
    (folder / SURFACE).unlink()
    list_prepared(PreparedSettings(layout="deepsdf", path=str(folder), categories=["chair"]), said.append)
    assert "nothing can be evaluated" in said[0]
    with pytest.raises(SourceError, match="no folder SdfSamples/mine/02691156"):
        list_prepared(PreparedSettings(layout="deepsdf", path=str(folder), categories=["airplane"]))
    (folder / "SdfSamples" / "theirs").mkdir()
    with pytest.raises(SourceError, match=r"those are mine, theirs; name one as source\.dataset"):
        listed(folder)
    assert listed(folder, dataset="mine")["a1"].split == "test"
