"""Experiments that build on others, generators and published weights in real runs."""

from __future__ import annotations

import pytest
import torch

from pipeline import files
from pipeline.models.contract import build_from
from tests.workflow.runner import Workflow, added

NOTHING = "Nothing to be done"
ONET = {"hidden": 8, "code": 8, "encoder_hidden": 8, "encoder_blocks": 1, "blocks": 1, "queries": 32}
SHORT = {"steps": 4, "batch_shapes": 4}
DENSE = {"method": "dense", "resolution": 12, "box": 1.0, "level": 0.01}
EXPERIMENTS = [
    {
        "name": "ae",
        "method": "imnet",
        "model": {"code": 8, "encoder_width": 2, "decoder_width": 4, "points": 128},
        "training": SHORT,
        "extraction": DENSE,
    },
    {
        "name": "gan",
        "method": "imnet_gan",
        "parent": "ae",
        "model": {"noise": 4, "hidden": 8},
        "training": SHORT,
        "extraction": DENSE,
        "sampling": {"count": 3, "block": 2, "points": 64},
    },
    {
        "name": "borrowed",
        "method": "onet",
        "model": ONET,
        "weights": {"path": "onet.pt"},
        "training": SHORT,
        "extraction": DENSE,
    },
]


def study_of(**changes) -> dict:
    """The study with parts of some experiments' blocks changed."""
    blocks = [{**block, **changes.get(block["name"], {})} for block in EXPERIMENTS]
    return {"demo": {"categories": ["chair"], "shapes": 12, "broken": 0, "experiments": blocks}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Workflow:
    workflow = Workflow.new(tmp_path_factory.mktemp("families") / "study", study_of())
    weights = build_from({"method": "onet", "model": ONET}, 0, seed=5).network.state_dict()
    torch.save({"model": weights}, workflow.folder / "onet.pt")
    workflow.run()
    return workflow


@pytest.fixture
def study(finished, tmp_path) -> Workflow:
    return finished.copy(tmp_path / "study")


def test_everything_ends_where_it_belongs(finished):
    assert NOTHING in finished.dry_run()
    # Generators have a table of their own and no rows among the reconstructions.
    rows = (finished.results / "evaluation" / "metrics.csv").read_text()
    assert "ae," in rows and "gan," not in rows
    metrics = files.read_json(finished.results / "evaluation" / "samples" / "gan.json")
    assert metrics["chamfer"]["generated"] == 3 and metrics["chamfer"]["references"] > 0
    assert [path.name for path in sorted((finished.results / "samples" / "gan").iterdir())] == ["0.jsonl", "1.jsonl"]
    # Published weights were not trained, and the report says so.
    checkpoint = files.read_json(finished.results / "training" / "borrowed" / "checkpoint.json")
    assert checkpoint["steps"] == 0 and "published" in checkpoint["notes"][0]
    assert finished.computed()["train/borrowed"] == 0


def test_a_parent_that_changes_takes_its_child_along_and_not_the_other_way_round(study):
    before = study.computed()
    study.configure(study_of(gan={"training": {**SHORT, "learning_rate": 0.01}}))
    study.run("train_all")
    middle = study.computed()
    assert {k: v for k, v in added(before, middle).items() if k != "train/borrowed-scratch"} == {"train/gan": 4}
    study.configure(study_of(ae={"training": {**SHORT, "learning_rate": 0.01}}))
    study.run("train_all")
    assert added(middle, study.computed()) == {"train/ae": 4, "train/gan": 4}


def test_more_samples_leave_the_others_as_they_are(study):
    before = study.computed()
    digests = files.read_lines(study.results / "samples" / "gan" / "0.jsonl")
    study.configure(study_of(gan={"sampling": {"count": 5, "block": 2, "points": 64}}))
    study.run()
    assert files.read_lines(study.results / "samples" / "gan" / "0.jsonl") == digests
    assert not any(name.startswith(("train/", "meshes/", "data/")) for name in added(before, study.computed()))
    assert files.read_json(study.results / "evaluation" / "samples" / "gan.json")["chamfer"]["generated"] == 5


def test_samples_that_are_in_the_store_are_not_drawn_again(study):
    path = study.results / "samples" / "gan" / "0.jsonl"
    before = files.read_lines(path)
    study.run(switches=("--forcerun", "sample_shapes"))
    assert files.read_lines(path) == before
    log = study.folder / "logs" / study.results.name / "sample_shapes" / "gan" / "0.log"
    assert "2 new shapes, 2 of them drawn already" in log.read_text()


def test_asked_to_train_published_weights_are_trained_from_scratch_beside_them(study):
    text = study.dry_run("train_all")
    assert "borrowed-scratch" in text and "from scratch" in text
    assert "borrowed-scratch" not in study.dry_run("eval_all").replace("as borrowed-scratch", "")


def test_codes_and_quick_evaluation_are_there_for_the_asking(study):
    import h5py
    import pandas

    study.run("encode_all", "quick_eval")
    with h5py.File(study.results / "codes" / "ae" / "0.h5") as codes:
        assert len(codes["shapes"]) > 0 and next(iter(codes[k] for k in codes if k != "shapes")).shape[1] == 8
    quick = pandas.read_csv(study.results / "evaluation" / "quick" / "ae.csv")
    assert {"iou", "iou_voxels"} <= set(quick.columns) and len(quick) > 0


def test_a_parent_that_is_not_there_or_of_another_method_is_told_before_anything_runs(study):
    for parent, message in (("eaa", "its parent 'eaa' is no experiment"), ("borrowed", "is of method onet")):
        study.configure(study_of(gan={"parent": parent}))
        assert message in study.run(fails=True)
