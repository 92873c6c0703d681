"""The training job: what it stores, whom it lets work, what ends it in one line, and the weights it starts from."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import files, seeds
from pipeline.jobs import train_model
from pipeline.models.deepsdf import DeepSdf
from pipeline.models.onet import Onet
from pipeline.sources.catalogue import read_catalogue, write_catalogue
from pipeline.training.checkpoint import decode_weights
from pipeline.training.held_out import even_subset
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


# --- what is stored does not depend on how it was reached


ONET = {
    "hidden": 16,
    "blocks": 1,
    "code": 8,
    "encoder_hidden": 8,
    "encoder_blocks": 1,
    "queries": 64,
    "observation": {"points": 50},
}


def held_out(study: Study, names: list[str]) -> None:
    """List these shapes for validation and the others for training."""
    catalogue = Path(study.plan.catalogue)
    rows = read_catalogue(catalogue.read_text())
    splits = [replace(row, split="val" if f"{row.category}/{row.id}" in names else "train") for row in rows]
    files.write_atomic(catalogue, write_catalogue(splits))


def study_with(training: dict, shapes: dict, validated: list[str], **runtime) -> Study:
    """A small onet of the balls in the present folder, with these settings of the training; it is validated."""
    training = {"steps": 8, "batch_shapes": 2, "learning_rate": 1e-2, "validate_every": 3, **training}
    block = {**BALLS, "method": "onet", "model": ONET, "training": training, "runtime": {**BALLS["runtime"], **runtime}}
    study = Study([block])
    study.keep(shapes, study.plan.training_instances("balls"))
    held_out(study, validated)
    return study


def outputs(study: Study) -> dict[str, bytes]:
    """Name → content of the declared outputs."""
    folder = study.checkpoint("balls").parent
    return {name: (folder / name).read_bytes() for name in ("checkpoint.json", "weights.safetensors", "history.csv")}


@pytest.fixture
def elsewhere(own_process, monkeypatch, tmp_path):
    """Makes a further folder, with a store of its own, the present one."""

    def move(name: str) -> None:
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)

    return move


@pytest.mark.parametrize("steps", [(4,), (1, 3, 7)])
def test_a_training_that_was_shorter_once_gives_the_same_bytes(elsewhere, good, steps):
    elsewhere("straight")
    straight = study_with({}, good, ["all/c"], log_every=2)
    train(straight)
    expected = outputs(straight)
    assert b"validation_iou" in expected["history.csv"]
    elsewhere("edited")
    for count in (*steps, 8):
        edited = study_with({"steps": count}, good, ["all/c"], log_every=2)
        facts, _ = train(edited)
        assert facts["steps"] == count
    assert outputs(edited) == expected
    assert [row["steps"] for row in timed(edited)] == [*np.diff([0, *steps, 8])]


def timed(study: Study) -> list[dict]:
    return files.read_lines(study.results / "timings/training/balls/checkpoint.jsonl")


@pytest.mark.parametrize("step", [2, 5, 8])
def test_a_training_that_was_killed_gives_the_same_bytes(elsewhere, good, step, monkeypatch):
    elsewhere("straight")
    straight = study_with({}, good, ["all/c"], log_every=2)
    train(straight)
    elsewhere("broken")
    loss, calls = Onet.loss, []

    def dies(self, batch):
        calls.append(1)
        if len(calls) == step:
            raise KeyboardInterrupt
        return loss(self, batch)

    monkeypatch.setattr(Onet, "loss", dies)
    broken = study_with({}, good, ["all/c"], log_every=2, checkpoint_minutes=0)
    with pytest.raises(KeyboardInterrupt):
        train(broken)
    train(broken)
    assert outputs(broken) == outputs(straight)
    assert timed(broken)[0]["steps"] <= 8


def test_a_training_that_started_over_gives_the_same_bytes_and_says_so_elsewhere(elsewhere, good, caplog):
    """The schedule "cosine" depends on the number of steps."""
    elsewhere("straight")
    straight = study_with({"schedule": "cosine"}, good, [])
    train(straight)
    elsewhere("edited")
    train(study_with({"schedule": "cosine", "steps": 5}, good, []))
    edited = study_with({"schedule": "cosine"}, good, [])
    facts, _ = train(edited)
    assert outputs(edited) == outputs(straight)
    assert facts["notes"] == []
    assert "starting over" in caplog.text
    assert "starting over" in timed(edited)[1]["incidents"][0]


def test_rows_that_somebody_wanted_to_see_change_no_weights(elsewhere, good):
    """The interval of the log decides no result: equal weights have one digest, whatever their learning curve."""
    elsewhere("few")
    few, _ = train(study_with({}, good, ["all/c"], log_every=100))
    elsewhere("many")
    many, _ = train(study_with({}, good, ["all/c"], log_every=1))
    assert (few["file"], few["digest"]) == (many["file"], many["digest"])
    assert few["history_file"] != many["history_file"]


def test_a_finished_training_is_taken_from_the_store_with_its_learning_curve(own_process, good):
    study = study_with({}, good, ["all/c"])
    train(study)
    before = outputs(study)
    shutil.rmtree(study.checkpoint("balls").parent)
    train(study)
    assert outputs(study) == before
    assert len(timed(study)) == 1


@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_a_lost_learning_curve_is_told_and_trains_nothing_again(own_process, good, damage):
    study = study_with({}, good, ["all/c"])
    facts, _ = train(study)
    path = study.store.root / facts["history_file"]
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[::-1])
    again, _ = train(study)
    assert again["digest"] == facts["digest"]
    assert again["history_file"] is None
    assert again["notes"] == ["the learning curve of this training is no longer in the store; its weights are whole"]
    assert len(timed(study)) == 1


# --- validation


def test_held_out_shapes_that_are_not_chosen_may_come_and_go_and_nothing_is_trained(own_process):
    names = [f"all/{letter}{number}" for letter in "ab" for number in range(6)]
    shapes = {name: arrays_of(0.2 + 0.01 * place) for place, name in enumerate(names)}
    validated = names[2:]
    study = study_with({"validation_shapes": 4}, shapes, validated)
    facts, _ = train(study)
    assert facts["validation"] == {"all": 4}
    assert facts["notes"] == ["the best weights are chosen on 4 of 10 held-out shapes: 4 of all"]
    seed = seeds.torch_seed(study.plan.study.seed, "train_model")
    chosen = [validated[place] for place in even_subset(validated, 4, seed)]
    for rest in (sorted([*chosen, *validated[:2]]), chosen):
        kept = {name: shapes[name] for name in (*names[:2], *rest)}
        study = study_with({"validation_shapes": 4}, kept, rest)
        again, _ = train(study)
        assert (again["file"], again["history_file"]) == (facts["file"], facts["history_file"])
    assert again["notes"] == []
    assert len(timed(study)) == 1


# --- one job at a time


ELSEWHERE = {"host": "another-machine", "pid": 4711, "start": "1", "command": []}


def test_a_training_that_another_machine_works_on_is_left_alone(own_process, good):
    study = study_of(good)
    claim = study.checkpoint("balls").with_name(".owner-checkpoint.json")
    files.write_json(claim, ELSEWHERE)
    with pytest.raises(SystemExit, match="process 4711 of another-machine works on the training of balls"):
        train(study)
    assert list(claim.parent.iterdir()) == [claim]


def test_a_training_that_was_taken_over_writes_nothing_more(own_process, good, monkeypatch):
    study = study_of(good, checkpoint_minutes=0)
    folder = study.checkpoint("balls").parent
    loss = DeepSdf.loss

    def lost(self, batch):
        files.write_json(folder / ".owner-checkpoint.json", ELSEWHERE)
        return loss(self, batch)

    monkeypatch.setattr(DeepSdf, "loss", lost)
    with pytest.raises(SystemExit, match="another job, process 4711 of another-machine, works on"):
        train(study)
    assert not list(folder.glob("state/*/*"))
    assert not study.checkpoint("balls").exists()


def test_what_killed_trainings_left_is_swept_by_the_next(own_process, good):
    """Arrays that memory did not hold, and states half written; also where the training is in the store already."""
    study = study_of(good)
    folder = study.checkpoint("balls").parent
    for _ in range(2):
        left = [folder / ".arrays-abc", folder / "state" / "abc" / ".tmp-host-1-ab"]
        for path in left:
            path.mkdir(parents=True)
            (path / "points.npy").write_bytes(b"0" * 10)
        train(study)
        assert not any(path.exists() for path in left)
        assert not list(folder.glob(".*"))


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
