"""The training job: shapes that cannot be trained on, what ends it in one line, and the weights it starts from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import files
from pipeline.jobs import train_model
from pipeline.models.deepsdf import DeepSdf
from pipeline.training.checkpoint import decode_weights
from tests.jobs.study import Study
from tests.models.shapes import ball_arrays

BALLS = {
    "name": "balls",
    "method": "deepsdf",
    "model": {"dims": [16, 16], "latent_in": [], "code": 4, "dropout": 0.0, "samples": 64},
    "training": {"steps": 6, "batch_shapes": 2},
    "runtime": {"device": "cpu", "tensorboard": False},
}
RADII = {"all/a": 0.2, "all/b": 0.3, "all/c": 0.4}
REASON = "the shape has no signed distance samples"


def arrays_of(radius: float) -> dict[str, np.ndarray]:
    return ball_arrays(radius, count=100)


def disputed() -> dict[str, np.ndarray]:
    """A ball about whose signs no two views agree."""
    arrays = arrays_of(0.25)
    sets = [name.removeprefix("sdf.") for name in arrays if name.startswith("sdf.")]
    return {**arrays, **{f"sdf.kept.{name}": np.zeros(100, bool) for name in sets}}


def study_of(shapes: dict, **runtime) -> Study:
    study = Study([{**BALLS, "runtime": {**BALLS["runtime"], **runtime}}])
    study.keep(shapes, study.plan.training_instances("balls"))
    return study


def train(study: Study, name: str = "balls", **more):
    """checkpoint.json, and the tensors beside it."""
    more["catalogue"] = Path(study.plan.catalogue)
    train_model.run(study.arguments("train_model", name, f"training/{name}/checkpoint.json", **more))
    return files.read_json(study.checkpoint(name)), weights_beside(study.checkpoint(name))


def weights_beside(checkpoint: Path) -> dict[str, torch.Tensor]:
    return decode_weights(checkpoint.with_name("weights.safetensors").read_bytes())[0]


@pytest.fixture
def good() -> dict:
    return {shape: arrays_of(radius) for shape, radius in RADII.items()}


def test_a_shape_that_cannot_be_trained_on_is_as_if_it_were_not_there(own_process, good, caplog):
    """Also where it is the first, and its place in the arrays and the codes is another's."""
    facts, tensors = train(study_of({"all/0": disputed(), **good, "all/bb": disputed()}))
    assert facts["train_shapes"] == 3
    assert facts["notes"] == [f"2 of 5 training shapes left out, the first all/0: {REASON}"]
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told == [f"{shape} is left out of the training: {REASON}" for shape in ("all/0", "all/bb")]
    expected, same = train(study_of(good))
    assert expected["notes"] == [] and tensors.keys() == same.keys()
    assert all(torch.equal(tensors[name], same[name]) for name in same)


def test_a_training_that_leaves_shapes_out_continues_where_it_was_stopped(own_process, good, monkeypatch, tmp_path):
    shapes = {"all/0": disputed(), **good}
    _, straight = train(study_of(shapes))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    broken = study_of(shapes, log_every=1, checkpoint_minutes=0)
    loss, calls = DeepSdf.loss, []

    def dies(self, batch):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return loss(self, batch)

    monkeypatch.setattr(DeepSdf, "loss", dies)
    with pytest.raises(KeyboardInterrupt):
        train(broken)
    facts, tensors = train(broken)
    assert len(calls) == 3 + 1 + 3 and facts["train_shapes"] == 3 and len(facts["notes"]) == 1
    assert all(torch.equal(tensors[name], straight[name]) for name in straight)


def test_a_training_without_any_shape_left_says_why(own_process):
    shapes = {"all/a": disputed(), "all/b": disputed()}
    with pytest.raises(
        SystemExit, match=f"balls cannot be trained on any of its 2 training shapes; .* all/a: {REASON}"
    ):
        train(study_of(shapes))


def test_shapes_left_out_stand_in_the_report_under_the_name_of_the_experiment(own_process, good):
    from pipeline.jobs.layout import Layout
    from pipeline.jobs.make_report import _notes

    study = study_of({"all/0": disputed(), **good})
    train(study)
    layout = Layout(study.results, **{**study.plan.layout(), "trained": ["balls"]})
    assert _notes(layout) == [f"balls: 1 of 4 training shapes left out, the first all/0: {REASON}"]


# --- ends in one line


def test_missing_keys_and_cards_are_told_in_one_line(own_process, good, monkeypatch):
    for name in ("WANDB_API_KEY", "COMET_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    faults = {
        "wandb": ({"wandb": "study"}, "runtime.wandb is set, but WANDB_API_KEY is not"),
        "comet": ({"comet": "study"}, "runtime.comet is set, but COMET_API_KEY is not"),
        "cuda": ({"device": "cuda"}, "runtime.device is 'cuda', but torch finds no graphics card"),
    }
    for runtime, message in faults.values():
        with pytest.raises(SystemExit, match=message):
            train(study_of(good, **runtime))


def test_unequal_sample_counts_are_told_in_one_line(own_process, good):
    with pytest.raises(
        SystemExit, match=r"all/c: array 'points' is .* all shapes of a run need the same sample counts"
    ):
        train(study_of({**good, "all/c": ball_arrays(0.4, count=99)}))


def test_what_a_library_refuses_stays_a_defect_with_its_traceback(own_process, good, monkeypatch):
    monkeypatch.setattr(DeepSdf, "loss", lambda self, batch: np.stack([np.zeros(2), np.zeros(3)]))
    with pytest.raises(ValueError, match="same shape"):
        train(study_of(good))


def test_memory_that_runs_out_names_the_settings_that_need_less(own_process, good, monkeypatch):
    def too_large(self, batch):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(DeepSdf, "loss", too_large)
    with pytest.raises(SystemExit, match=r"a batch does not fit into memory: CUDA out.*\n.*batch_shapes \(now 2\)"):
        train(study_of(good))


# --- children

CHILD = {
    "name": "gan",
    "method": "imnet_gan",
    "parent": "ae",
    "model": {"noise": 4, "hidden": 8},
    "training": {"steps": 1, "batch_shapes": 2},
    "runtime": {"device": "cpu", "tensorboard": False},
}


@pytest.mark.parametrize("which", ["best", "last"])
def test_a_child_starts_from_the_weights_that_its_parents_meshes_are_made_with(own_process, good, which):
    parent = {
        "name": "ae",
        "method": "imnet",
        "model": {"code": 8, "encoder_width": 2, "decoder_width": 4, "points": 64},
        "extraction": {"checkpoint": which},
        "runtime": {"device": "cpu"},
    }
    study = Study([parent, CHILD])
    study.keep(good, study.plan.training_instances("gan"))
    study.pretend_trained("ae")
    _, child = train(study, "gan", parent=study.checkpoint("ae"))
    stored = weights_beside(study.checkpoint("ae"))
    own = {name.removeprefix("last/parent."): t for name, t in child.items() if name.startswith("last/parent.")}
    wanted, other = (
        {n: stored[f"{kind}/{n}"] for n in own} for kind in (which, {"best": "last", "last": "best"}[which])
    )
    assert own and all(torch.equal(own[name], wanted[name]) for name in own)
    assert not all(torch.equal(own[name], other[name]) for name in own)
