"""`isomill eval`: two files or two folders, and a clear word on everything that does not fit."""

import json
import unicodedata

import numpy as np
import pandas as pd
import pytest
import trimesh

from pipeline.arrays import Mesh, Rejected
from pipeline.cli.eval import Mismatch, evaluate_files, find_pairs, read_mesh
from pipeline.cli.main import main
from pipeline.evaluation.shape import EvaluationSettings
from pipeline.sources.directory import DirectorySettings, list_directory
from tests import solids
from tests.meshes.files import gltf_document


def write(mesh, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).export(path)
    return path


BALL = solids.icosphere(0.4, subdivisions=3)


@pytest.fixture
def folders(tmp_path):
    predicted, reference = tmp_path / "predicted", tmp_path / "reference"
    for name in ("chair/a", "chair/b", "lamp/c"):
        write(BALL, reference / f"{name}.off")
    write(solids.icosphere(0.39, subdivisions=3), predicted / "chair" / "a.obj")
    write(BALL, predicted / "lamp" / "c.ply")
    write(BALL, predicted / "lamp" / "d.ply")
    return predicted, reference


def test_two_folders_are_matched_by_name_and_what_is_missing_counts_as_failed(folders, tmp_path, capsys):
    output = tmp_path / "out" / "table.csv"
    words = [*map(str, folders), "--profile", "nmf", "--profile", "deepsdf", "--output", str(output)]
    assert main(["eval", *words, "--workers", "2"]) == 0
    told = capsys.readouterr()
    assert "1 predictions have no reference and are left out: lamp/d" in told.err
    assert "1 references have no prediction, which counts as failed: chair/b" in told.err
    assert "chair/b: missing: there is no mesh for this shape" in told.out
    table = pd.read_csv(output, dtype={"id": str})
    assert list(table["id"]) == ["chair/a", "chair/b", "lamp/c"] * 2
    assert list(table.query("profile == 'nmf'")["status"]) == ["ok", "missing", "ok"]
    line = next(line for line in told.out.splitlines() if "chamfer_l1" in line).split()
    values = table.query("profile == 'nmf'")["chamfer_l1"]
    assert line[1] == "2/3"
    assert float(line[2]) == pytest.approx(values.mean(), rel=1e-4)
    assert float(line[3]) == pytest.approx((values.sum() + 3**0.5) / 3, rel=1e-4)


def test_two_files_give_the_values_of_evaluate_pair(folders, capsys):
    files = [str(folders[0] / "chair" / "a.obj"), str(folders[1] / "chair" / "a.off")]
    assert main(["eval", *files, "--profile", "nmf", "--seed", "3"]) == 0
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines()[1:])
    from pipeline.evaluation import evaluate_pair

    meshes = [trimesh.load(path, process=False) for path in files]
    row = evaluate_pair(*meshes, profile="nmf", seed=3)
    assert float(printed["chamfer_l1"]) == pytest.approx(row["chamfer_l1"], rel=1e-5)


def test_what_does_not_fit_is_told(folders, tmp_path, capsys):
    predicted, reference = folders
    with pytest.raises(Mismatch, match="does not exist"):
        find_pairs(tmp_path / "nowhere", reference)
    with pytest.raises(Mismatch, match="give two files or two folders"):
        find_pairs(predicted, reference / "chair" / "a.off")
    with pytest.raises(Mismatch, match=r"no name in .*\n  predicted: a\n  reference: chair/a, chair/b, lamp/c"):
        find_pairs(predicted / "chair", reference)
    with pytest.raises(Mismatch, match="holds no mesh"):
        find_pairs(predicted, _empty(tmp_path))
    write(BALL, predicted / "chair" / "a.stl")
    with pytest.raises(Mismatch, match="have one name"):
        find_pairs(predicted, reference)
    assert main(["eval", str(predicted), str(reference), "--profile", "onte"]) == 2
    assert "did you mean 'onet'?" in capsys.readouterr().err


def _empty(folder):
    (folder / "empty").mkdir()
    return folder / "empty"


def test_files_that_cannot_be_read_are_a_status_with_a_reason(tmp_path):
    good, bad = write(BALL, tmp_path / "good.off"), tmp_path / "bad.off"
    bad.write_text("OFF\n3 1 0\n0 0 0\n")
    row = evaluate_files(bad, good, ["nmf"], 0, False)["nmf"]
    assert row["status"] == "invalid" and row["reason"].startswith("the prediction cannot be read: ")
    row = evaluate_files(good, bad, ["nmf"], 0, False)["nmf"]
    assert row["status"] == "undefined" and row["reason"].startswith("the reference cannot be read: ")


def gltf_beside(root, place, uri, buffer_at):
    """A glTF file of the ball at `root/place` that names its buffer by `uri`, which lies at `root/buffer_at`."""
    document, buffer = gltf_document(BALL)
    document["buffers"][0]["uri"] = uri
    for name, content in ((place, json.dumps(document).encode()), (buffer_at, buffer)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root / place


@pytest.mark.parametrize(
    ("uri", "buffer_at"),
    [
        ("ball.bin", "m/ball.bin"),
        ("the%20ball%20%C3%BC.bin", "m/the ball ü.bin"),
        ("data/ball.dat.bin", "m/data/ball.dat.bin"),
        ("../buffers/ball.bin", "buffers/ball.bin"),
    ],
)
def test_buffers_of_gltf_are_found_where_a_source_of_the_folder_finds_them(tmp_path, uri, buffer_at):
    path = gltf_beside(tmp_path, "m/ball.gltf", uri, buffer_at)
    (entry,), _ = list_directory(DirectorySettings(path=str(tmp_path)))
    assert entry.reason is None
    mesh = read_mesh(path, tmp_path)
    assert len(mesh.faces) == len(BALL.faces)
    row = evaluate_files(path, path, ["nmf"], 0, False, roots=(tmp_path, tmp_path))["nmf"]
    assert row["status"] == "ok"


def test_buffers_of_gltf_outside_the_folder_are_refused_with_the_reason(tmp_path):
    path = gltf_beside(tmp_path, "m/ball.gltf", "..%2Fball.bin", "ball.bin")
    with pytest.raises(Rejected, match=r"its buffer '\.\.%2Fball\.bin' leaves the folder"):
        read_mesh(path)
    (tmp_path / "m" / "link.bin").symlink_to("../ball.bin")
    path.write_bytes(path.read_bytes().replace(b"..%2Fball.bin", b"link.bin"))
    with pytest.raises(Rejected, match=r"its buffer 'link.bin' leaves the folder"):
        read_mesh(path)
    path.write_bytes(path.read_bytes().replace(b"link.bin", b"gone.bin"))
    row = evaluate_files(path, write(BALL, tmp_path / "good.off"), ["nmf"], 0, False)["nmf"]
    assert row["reason"] == "the prediction cannot be read: its buffer 'gone.bin' is missing"


def test_folders_with_gltf_are_measured(tmp_path, capsys):
    gltf_beside(tmp_path / "p", "chair/ball.gltf", "../data/a%20ball.bin", "data/a ball.bin")
    write(BALL, tmp_path / "r" / "chair" / "ball.off")
    assert main(["eval", str(tmp_path / "p"), str(tmp_path / "r"), "--profile", "nmf"]) == 0
    assert "chair/ball:" not in capsys.readouterr().out


def test_a_reference_that_cannot_be_measured_is_in_no_mean_and_ends_in_an_error(tmp_path, capsys):
    for name in ("a", "b"):
        write(BALL, tmp_path / "p" / f"{name}.off")
        write(BALL, tmp_path / "r" / f"{name}.off")
    (tmp_path / "r" / "b.off").write_text("OFF\n")
    assert main(["eval", str(tmp_path / "p"), str(tmp_path / "r"), "--profile", "nmf"]) == 1
    told = capsys.readouterr()
    assert "b: in no mean: the reference cannot be read" in told.err
    assert "chamfer_l1" in told.out


def nan_vertex(mesh):
    vertices = mesh.vertices.copy()
    vertices[5] = np.nan
    return Mesh(vertices, mesh.faces)


def test_predictions_with_a_broken_vertex_are_invalid(tmp_path):
    good = write(BALL, tmp_path / "good.off")
    row = evaluate_files(write(nan_vertex(BALL), tmp_path / "nan.ply"), good, ["nmf"], 0, False)["nmf"]
    assert row["status"] == "invalid" and row["reason"]


@pytest.fixture
def few(monkeypatch):
    settings = EvaluationSettings(mesh_distance_points=0, mesh_quality=False, samples=8_000)
    monkeypatch.setattr("pipeline.evaluation.pair.QUICK", settings)


BRICK, SMALLER = solids.box((0.8, 0.6, 0.4)), solids.box((0.64, 0.48, 0.32))


def files_of(folder, factor, shift=(0, 0, 0)):
    """A brick and one of 0.8 times its edges inside it, whose IoU is 0.512."""
    pair = ((SMALLER, folder / "p.off"), (BRICK, folder / "r.off"))
    return [write(solids.moved(Mesh(factor * mesh.vertices, mesh.faces), shift), path) for mesh, path in pair]


@pytest.mark.parametrize(
    ("factor", "shift"),
    [(500, (0, 0, 0)), (2, (0, 0, 0)), (1, (5, 0, 0)), (25.4, (-300, 20, 0))],
    ids=["millimetres", "the unit sphere's size", "beside the cube", "both"],
)
def test_a_pair_outside_the_cube_is_compared_in_the_frame_of_the_references_box(factor, shift, few, tmp_path):
    here = [
        write(Mesh(mesh.vertices / 0.8, mesh.faces), tmp_path / n) for n, mesh in (("a.off", SMALLER), ("b.off", BRICK))
    ]
    canonical = evaluate_files(*here, ["onet"], 0, False)["onet"]
    row = evaluate_files(*files_of(tmp_path, factor, shift), ["onet"], 0, False)["onet"]
    assert (row["frame"], canonical["frame"]) == ("reference-box", "as-given")
    assert row["frame_unit"] == pytest.approx(0.8 * factor) and canonical["frame_unit"] == 1
    assert row["iou"] == pytest.approx(0.512, abs=0.04) and row["reason"] == ""
    for key in ("iou", "chamfer_l1", "f_0.02", "normal_consistency"):
        assert row[key] == pytest.approx(canonical[key], rel=1e-3)


def test_a_pair_inside_the_cube_is_taken_as_given(few, tmp_path):
    files = files_of(tmp_path, 0.7, (0.2, 0.1, 0))
    rows = [evaluate_files(*files, ["onet"], 0, False, frame)["onet"] for frame in ("auto", "as-given")]
    np.testing.assert_equal(*rows)
    assert rows[0]["frame"] == "as-given" and rows[0]["reason"] == ""


def test_as_given_scales_nothing_and_gives_no_iou_outside_the_cube(few, tmp_path):
    row = evaluate_files(*files_of(tmp_path, 500), ["onet"], 0, False, "as-given")["onet"]
    assert row["frame"] == "as-given" and row["chamfer_l1"] > 10
    assert np.isnan(row["iou"]) and "the reference leaves the cube ±0.55 of the IoU" in row["reason"]


def test_each_pair_of_folders_decides_for_itself_and_the_table_tells_how(tmp_path, capsys):
    for name, factor in (("small", 0.6), ("large", 500)):
        predicted, reference = files_of(tmp_path / name, factor)
        for folder, path in (("p", predicted), ("r", reference)):
            write(trimesh.load(path, process=False), tmp_path / folder / f"{name}.off")
    output = tmp_path / "rows.csv"
    words = [str(tmp_path / "p"), str(tmp_path / "r"), "--profile", "deepsdf", "--output", str(output)]
    assert main(["eval", *words]) == 0
    told = capsys.readouterr().out
    assert "frame: 1 of 2 references are not inside ±0.55" in told and "large (longest edge 400)" in told
    table = pd.read_csv(output).set_index("id")
    assert table["frame"].to_dict() == {"small": "as-given", "large": "reference-box"}
    assert table["frame_unit"].to_dict() == {"small": 1, "large": pytest.approx(400)}
    assert table["chamfer_l1"]["large"] == pytest.approx(table["chamfer_l1"]["small"] / (0.6 * 0.8), rel=0.02)


def test_the_help_names_the_frame(capsys):
    with pytest.raises(SystemExit):
        main(["eval", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "--frame {auto,as-given}" in told and "a pair whose reference lies inside ±0.55 is taken as given" in told


def test_names_that_differ_by_unicode_normalisation_belong_together(tmp_path, capsys):
    composed, decomposed = (unicodedata.normalize(form, "stühle/größe é") for form in ("NFC", "NFD"))
    predicted = write(BALL, tmp_path / "p" / f"{decomposed}.off")
    reference = write(BALL, tmp_path / "r" / f"{composed}.off")
    assert find_pairs(tmp_path / "p", tmp_path / "r") == {composed: (predicted, reference)}
    assert find_pairs(predicted, reference).keys() == {composed.split("/")[1]}
    write(BALL, tmp_path / "p" / f"{composed}.ply")
    with pytest.raises(Mismatch, match="have one name"):
        find_pairs(tmp_path / "p", tmp_path / "r")
