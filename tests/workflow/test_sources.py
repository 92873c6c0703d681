"""A directory of meshes: good shapes come out the other end, every bad one says why, new ones are taken up."""

from __future__ import annotations

import functools
import hashlib
import http.server
import shutil
import subprocess
import sys
import threading
import zipfile

import numpy as np
import pandas
import pytest

from pipeline import ledger
from pipeline.arrays import Mesh
from tests import solids
from tests.workflow.runner import PROFILE, ROOT, Workflow, added

CORPUS = ROOT.parent / "shared" / "meshes"


def off_text(mesh: Mesh) -> str:
    vertices = "\n".join(" ".join(map(str, v)) for v in mesh.vertices.tolist())
    faces = "\n".join("3 " + " ".join(map(str, f)) for f in mesh.faces.tolist())
    return f"OFF\n{len(mesh.vertices)} {len(mesh.faces)} 0\n{vertices}\n{faces}\n"


def directory_overlay(path: str, experiments: list | None = None, **source) -> dict:
    return {"source": {"kind": "directory", "path": path, **source}, "experiments": experiments or []}


@pytest.fixture
def own_meshes(tmp_path):
    folder = tmp_path / "study" / "my meshes"
    study = Workflow.new(tmp_path / "study", directory_overlay("my meshes", split={"train": 0, "val": 0, "test": 1}))
    folder.mkdir()
    (folder / "boxes (three).off").write_text(off_text(solids.three_boxes()))
    (folder / "ball ä.off").write_text(off_text(solids.icosphere(0.4, subdivisions=2)))
    (folder / "cut.off").write_text(off_text(solids.icosphere(0.4))[:300])
    (folder / "sub").mkdir()
    (folder / "sub" / "empty.obj").write_text("")
    (folder / "notes.txt").write_text("not a shape")
    return study


def test_a_folder_of_meshes_runs_to_the_report_and_new_meshes_are_taken_up(own_meshes):
    study = own_meshes
    text = study.run()
    rows = ledger.read(study.results / "data" / "extract_meshes" / "all" / "0.jsonl").rows
    assert {shape: row.status for shape, row in rows.items()} == {
        "all/ball ä.off": "ok",
        "all/boxes (three).off": "ok",
        "all/cut.off": "rejected",
        "all/sub/empty.obj": "rejected",
    }
    assert "extract_meshes rejected 2 of 4 shapes" in text
    scores = (study.results / "evaluation" / "shapes.csv").read_text()
    assert "ball ä.off" in scores and "cut.off" not in scores
    page = (study.results / "report" / "index.html").read_text()
    assert "sub/empty.obj" in page
    before = study.computed()
    shutil.copy(study.folder / "my meshes" / "ball ä.off", study.folder / "my meshes" / "another.off")
    moved = solids.three_boxes()
    (study.folder / "my meshes" / "zz.off").write_text(off_text(Mesh(moved.vertices * np.float64(2.5), moved.faces)))
    assert "2 new shapes in the source, 0 gone; they would be taken up." in study.dry_run()
    assert "2 new shapes in the source, 0 gone; they are taken up." in study.run()
    counts = added(before, study.computed())
    assert counts["extract_meshes"] == 1, "an equal file under another name is found in the store"
    (study.folder / "my meshes" / "zz.off").unlink()
    study.run()
    assert "zz.off" not in (study.results / "evaluation" / "shapes.csv").read_text()


def test_a_study_without_test_shapes_ends_as_failed_with_a_report_that_says_so(own_meshes):
    overlay = directory_overlay("my meshes", split={"train": 1, "val": 0, "test": 0})
    own_meshes.configure(overlay)
    page = own_meshes.results / "report" / "index.html"
    text = own_meshes.run(fails=True)
    assert "There are no test shapes among the 4 usable ones of the source" in text.split("rule list_shapes")[0]
    assert "There are no test shapes, so nothing is compared" in text and "write allow_empty: true" in text
    assert page.read_text().split("<main>")[1].lstrip().startswith('<p class="fault" role="alert">There are no test')
    assert (own_meshes.results / "ro-crate-metadata.json").is_file()
    own_meshes.run("train_all")
    own_meshes.configure({**overlay, "allow_empty": True})
    assert "There are no test shapes, so nothing is compared" in own_meshes.run()


def test_a_folder_that_holds_the_results_is_refused(own_meshes):
    own_meshes.configure(directory_overlay("."))
    assert "contains store, which this workflow writes" in own_meshes.run(fails=True)


def test_touching_files_computes_nothing(own_meshes):
    own_meshes.run("prepare_all")
    before = own_meshes.computed()
    for path in (own_meshes.folder / "my meshes").rglob("*.o*"):
        path.touch()
    own_meshes.run("prepare_all")
    assert own_meshes.computed() == before


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus of meshes (../shared/meshes) is not here")
def test_the_corpus_of_malformed_meshes_is_told_apart(tmp_path):
    overlay = directory_overlay(str(CORPUS / "malformed"))
    study = Workflow.new(tmp_path / "study", {**overlay, "stages": PROFILE["stages"]})
    study.run("results/faults/data/extract_meshes/all/0.jsonl")
    rows = ledger.read(study.results / "data" / "extract_meshes" / "all" / "0.jsonl").rows
    assert len(rows) > 100
    assert all(row.reason for row in rows.values() if not row.accepted)
    assert rows["all/crlf_comments.off"].accepted and not rows["all/garbage.obj"].accepted


@pytest.fixture
def archive(tmp_path) -> bytes:
    from pipeline.sources.demo import DemoSettings, make_archive

    return make_archive("chair", DemoSettings(shapes=3, broken=1))


@pytest.fixture
def server(tmp_path, archive):
    """A web server on this machine that offers the archive."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "chairs.zip").write_bytes(archive)
    handler = functools.partial(QuietHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_address[1]}/chairs.zip"
        served.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words) -> None:
        """Tests print nothing."""


LEDGER = "results/faults/data/extract_meshes/03001627/0.jsonl"


def shapenet(**source) -> dict:
    kind = {"kind": "shapenet", "version": "v2", "categories": ["chair"], **source}
    return {"source": kind, "experiments": [{"name": "poisson", "preset": "poisson"}]}


def test_fetched_archives_own_archives_and_trees_give_the_same_shapes(tmp_path, archive, server):
    digest = hashlib.sha256(archive).hexdigest()
    study = Workflow.new(
        tmp_path / "study", shapenet(archives=[{"category": "chair", "url": server, "sha256": digest}])
    )
    text = study.run(LEDGER)
    assert "03001627.zip: 26.5 kB from 127.0.0.1" in text, "the size is shown"
    fetched = study.digests()
    assert [path.read_bytes() for path in study.folder.glob("downloads/*/03001627.zip")] == [archive]
    own = tmp_path / "own"
    own.mkdir()
    (own / "03001627.zip").write_bytes(archive)
    study.configure(shapenet(path=str(own)))
    confirm = "type:  rm results/faults/source.json  and the same command again"
    assert confirm in study.run(LEDGER, fails=True), "these may be other shapes"
    (study.results / "source.json").unlink()
    study.run(LEDGER)
    assert study.digests() == fetched
    zipfile.ZipFile(own / "03001627.zip").extractall(tmp_path / "tree")
    study.configure(shapenet(path=str(tmp_path / "tree")))
    (study.results / "source.json").unlink()
    before = study.computed()
    study.run(LEDGER)
    assert study.digests() == fetched and study.computed() == before
    assert sum(len(value) == 40 for value in fetched.values()) == 3 and len(fetched) == 4


def test_an_archive_with_another_digest_is_refused(tmp_path, server):
    study = Workflow.new(
        tmp_path / "study", shapenet(archives=[{"category": "chair", "url": server, "sha256": "0" * 64}])
    )
    text = study.run(LEDGER, fails=True)
    assert "gave a file with SHA-256" in text and "Traceback" not in text.split("Logfile")[-1]


def test_a_set_in_the_layout_of_occupancy_networks_trains_and_is_evaluated_without_a_mesh(study, tmp_path):
    study.configure({"stages": {"voxelize": {"resolutions": [32]}}})
    study.run("prepare_all")
    source = exported(study, "onet", tmp_path / "set")
    study = Workflow.new(
        tmp_path / "prepared",
        {
            "source": source,
            "experiments": [block for block in PROFILE["demo"]["experiments"] if block["name"] != "deepsdf"],
        },
    )
    study.run()
    scores = pandas.read_csv(study.results / "evaluation" / "shapes.csv")
    assert set(scores["method"]) == {"onet", "poisson", "mean-shape"} and (scores["iou"].dropna() > 0).all()
    assert len(list((study.results / "report").rglob("*.png"))) > 0
    assert not (study.results / "data" / "make_watertight").exists()
    assert "Nothing to be done" in study.run()


def exported(study, layout: str, folder) -> dict:
    """The shapes of a study in the files of another project, as a source."""
    command = ["-m", "pipeline", "export", layout, "--output", str(folder), "--configfile", "study.yaml"]
    subprocess.run([sys.executable, *command], cwd=study.folder, env=study.environment, check=True)
    return {"kind": "prepared", "layout": layout, "path": str(folder), "categories": ["chair"]}


def test_a_set_in_the_layout_of_imnet_trains_and_is_evaluated_by_its_voxels(study, tmp_path):
    source = exported(study, "imnet", tmp_path / "set")
    imnet = {
        "name": "imnet-ae",
        "method": "imnet",
        "model": {"code": 8, "encoder_width": 2, "decoder_width": 4, "decoder_std": None, "points": 256},
        "training": {"steps": 20, "batch_shapes": 8, "learning_rate": 2.0e-3},
        "extraction": {"method": "coarse_to_fine", "resolution_0": 16, "depth": 1, "box": 1.0},
        "runtime": {"tensorboard": False},
    }
    prepared = Workflow.new(tmp_path / "prepared", {"source": source, "experiments": [imnet]})
    prepared.run("eval_all", "quick_eval")
    scores = pandas.read_csv(prepared.results / "evaluation" / "shapes.csv")
    assert set(scores["method"]) == {"imnet-ae", "mean-shape"}
    mean = scores[scores["method"] == "mean-shape"]
    assert mean["iou"].max() > 0.3 and mean["chamfer_l1"].max() < 0.2
    quick = pandas.read_csv(prepared.results / "evaluation" / "quick" / "imnet-ae.csv")
    assert len(quick) > 0 and quick["iou"].notna().all()
    assert not (prepared.results / "data" / "make_watertight").exists()
    fine = {"name": "too-fine", "method": "imnet", "model": {"grid": 256}}
    prepared.configure({"source": source, "experiments": [fine]})
    assert "voxelize/256, which too-fine asks for, cannot be made of the 64^3 voxels" in prepared.run(fails=True)


def test_a_set_in_the_layout_of_deepsdf_trains_and_is_evaluated_by_its_surface(study, tmp_path):
    source = exported(study, "deepsdf", tmp_path / "set")
    blocks = {block["name"]: block for block in PROFILE["demo"]["experiments"]}
    prepared = Workflow.new(tmp_path / "prepared", {"source": source, "experiments": [blocks["deepsdf"]]})
    prepared.run()
    scores = pandas.read_csv(prepared.results / "evaluation" / "shapes.csv")
    assert set(scores["method"]) == {"deepsdf"}
    assert scores["chamfer_l1"].notna().any() and scores["iou"].isna().all()
    assert sorted(path.name for path in (prepared.results / "data").iterdir()) == ["compute_sdf", "sample_surface"]
    prepared.configure({"source": source, "experiments": [blocks["onet"]]})
    text = prepared.run(fails=True)
    assert ", which onet asks for, is made of meshes, which a prepared set has not" in text
    assert "the layout deepsdf gives sample_surface, compute_sdf" in text
