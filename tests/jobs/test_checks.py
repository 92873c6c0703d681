"""Studies that cannot end well are refused when the workflow is parsed, before any job and in dry runs too."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline import files
from pipeline.config import ConfigError, load_study
from pipeline.jobs import checks
from pipeline.jobs.checks import before_any_job
from pipeline.plan import Plan
from pipeline.runs import Command
from pipeline.sources.catalogue import Entry, write_catalogue
from pipeline.sources.errors import SourceError, SplitError

POISSON = {"name": "poisson", "preset": "poisson"}
ONET = {"name": "onet", "method": "onet"}
DRY, REAL = (Command(True, real, True, planned=True, local=True) for real in (False, True))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder to run in that holds ten meshes: by their hashes 7 train, 1 validates, 2 test."""
    monkeypatch.chdir(tmp_path)
    Path("meshes").mkdir()
    for number in range(10):
        Path(f"meshes/{number}.off").write_text("OFF\n0 0 0\n")
    return tmp_path


def plan_of(*experiments: dict, **config) -> Plan:
    source = {"kind": "directory", "path": "meshes", **config.pop("source", {})}
    return Plan(*load_study({"dataset": "mine", "source": source, "experiments": list(experiments), **config}))


def split(train: float, val: float, test: float) -> dict:
    return {"split": {"train": train, "val": val, "test": test}}


def refused(plan: Plan, error: type[Exception], command: Command = DRY) -> str:
    with pytest.raises(error) as raised:
        before_any_job(plan, command)
    assert not Path("results").exists(), "what is refused leaves nothing behind"
    return str(raised.value)


def test_a_study_that_can_end_well_passes_in_silence_and_a_dry_run_writes_nothing():
    assert before_any_job(plan_of(ONET, POISSON), DRY) == []
    assert not Path("results").exists()


# --- files


def test_a_missing_source_folder_is_refused(folder):
    text = refused(plan_of(source={"path": "gone"}), SourceError)
    assert text.startswith(f"source.path: there is no gone in {folder}. Is its disk mounted?")
    assert refused(plan_of(source={"path": "/gone"}), SourceError).startswith("source.path: there is no /gone. ")
    shapenet = {"kind": "shapenet", "path": "ShapeNetCore.v2", "categories": ["chair"]}
    assert refused(plan_of(source=shapenet), SourceError).startswith("source.path: there is no ShapeNetCore.v2 in ")
    with pytest.raises(ConfigError, match=r"source\.path: there is no set\. Is its disk mounted"):
        plan_of(source={"kind": "prepared", "path": "set", "categories": ["chair"]})


def test_missing_weights_are_refused():
    text = refused(plan_of({**ONET, "weights": {"path": "onet.pt"}}), ConfigError)
    assert text.startswith("experiment onet: there is no file of weights onet.pt in ")


def test_a_missing_category_and_lists_that_name_no_shape_are_refused_before_any_job():
    assert "has no folder cups for a category" in refused(plan_of(source={"categories": ["cups"]}), SourceError)
    Path("splits.csv").write_text("id,split\na,train\nb,test\n")
    lists = {"split": {"kind": "files", "path": "splits.csv"}}
    assert "none of 2 listed ids is in the source; an id looks like '0.off'" in refused(
        plan_of(source=lists), SplitError
    )


def test_a_folder_that_holds_the_results_is_refused_in_a_dry_run_too(folder):
    assert f"source.path: {folder} contains store, which this" in refused(plan_of(source={"path": "."}), ConfigError)


# --- graphics cards

CUDA = {"runtime": {"device": "cuda"}}


@pytest.fixture
def no_cards(monkeypatch, tmp_path):
    monkeypatch.setattr("pipeline.jobs.gpu.CARDS", tmp_path / "no cards")
    monkeypatch.setattr(checks, "DRIVERS", ("no such driver",))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_card_that_is_asked_for_and_is_not_there_is_refused(no_cards, monkeypatch):
    text = refused(plan_of({**ONET, **CUDA}, POISSON), ConfigError)
    assert text == (
        "runtime.device: cuda is asked for by onet, and this machine shows no graphics card. Write auto or cpu, or "
        "run where there is one"
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "no graphics card (CUDA_VISIBLE_DEVICES hides them)" in refused(plan_of({**ONET, **CUDA}), ConfigError)
    # Another block's wish, a method that has no use for one, and jobs that run elsewhere are no fault.
    assert before_any_job(plan_of(ONET), DRY) == []
    assert before_any_job(plan_of({**POISSON, **CUDA}), DRY) == []
    assert before_any_job(plan_of({**ONET, **CUDA}), Command(True, False, False, planned=True, local=False)) == []


@pytest.mark.parametrize("where", ["the kernel's list", "a driver", "the environment"])
def test_a_card_that_shows_itself_anywhere_is_enough(no_cards, monkeypatch, tmp_path, where):
    if where == "the kernel's list":
        (tmp_path / "no cards" / "0000:01:00.0").mkdir(parents=True)
    elif where == "a driver":
        monkeypatch.setattr(checks, "DRIVERS", ("null",))
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert before_any_job(plan_of({**ONET, **CUDA}), DRY) == []


# --- shapes to train on and to test with


def test_a_training_split_too_small_is_refused():
    text = refused(plan_of(ONET, source=split(0, 0, 1)), SourceError)
    assert text == (
        "experiment onet needs at least 1 training shape, and the split of the source's 10 usable shapes is 0 train, "
        "0 val, 10 test. Add shapes, change source.split, or leave out experiments that train (methods such as poisson "
        "need no training)"
    )
    shared = {**ONET, "runtime": {"devices": 11}}
    assert "needs at least 11 training shapes, and" in refused(plan_of(shared, source=split(1, 0, 0)), SourceError)
    # Preparing data, and methods that are not trained by steps, need none.
    assert before_any_job(plan_of(POISSON, source=split(0, 0, 1)), DRY) == []
    preparing = Command(True, False, True, planned=True, local=True, targets=("prepare_all",))
    assert before_any_job(plan_of(ONET, source=split(0, 0, 1)), preparing) == []


def test_shapes_that_are_refused_unread_do_not_count():
    for path in Path("meshes").glob("*.off"):
        path.rename(path.with_suffix(".doc"))
    assert "of the source's 0 usable shapes" in refused(plan_of(ONET), SourceError)


def test_no_test_shapes_are_told_at_the_start_unless_that_is_allowed():
    (line,) = before_any_job(plan_of(ONET, source=split(1, 0, 0)), DRY)
    assert line.startswith("There are no test shapes among the 10 usable ones of the source: nothing will be compared")
    assert "allow_empty: true" in line
    assert before_any_job(plan_of(ONET, source=split(1, 0, 0), allow_empty=True), DRY) == []


def catalogued(plan: Plan, *splits: str) -> None:
    entries = [Entry("03001627", str(k), split, {}) for k, split in enumerate(splits)]
    files.write_atomic(Path(plan.catalogue), write_catalogue(entries))


def test_what_a_catalogue_knows_counts_for_sources_that_are_not_looked_at():
    plan = Plan(*load_study({"experiments": [ONET], "demo": {"categories": ["chair"]}}))
    assert before_any_job(plan, DRY) == []
    catalogued(plan, "test", "val")
    with pytest.raises(SourceError, match="source's 2 usable shapes is 0 train, 1 val, 1 test"):
        before_any_job(plan, DRY)
    catalogued(plan, "test", "train")
    assert before_any_job(plan, DRY) == []
    Path(plan.catalogue).write_text("damaged")
    assert before_any_job(plan, DRY) == []


def test_shapes_that_were_added_since_the_catalogue_was_written_count():
    """Or the advice to add shapes could not be followed."""
    plan = plan_of(ONET)
    files.write_atomic(Path(plan.catalogue), write_catalogue([Entry("all", "0.off", "test", {})]))
    assert before_any_job(plan, DRY) == []


def test_keys_that_decide_nothing_are_named():
    (line,) = before_any_job(plan_of(POISSON, stages={"render_views": {"views": 12}}), DRY)
    assert line.startswith("stages.render_views.views = 12 decides nothing")


# --- one name, one source


def begun(plan: Plan) -> Plan:
    """A study whose first run has listed its shapes."""
    before_any_job(plan, REAL)
    entries = [Entry("all", split, split, {}) for split in ("train", "val", "test")]
    files.write_atomic(Path(plan.catalogue), write_catalogue(entries))
    return plan


def test_the_name_of_a_study_over_another_source_is_refused_until_that_is_confirmed():
    begun(plan_of(POISSON))
    shutil.copytree("meshes", "others")
    other = plan_of(POISSON, source={"path": "others"})
    for command in (DRY, REAL):
        with pytest.raises(ConfigError) as raised:
            before_any_job(other, command)
        assert str(raised.value) == (
            "dataset: the results of 'mine' are of directory meshes, and this configuration names directory others. "
            "Give this study a name of its own (dataset: …); or, if these shapes are to take the place of the others, "
            "type:  rm results/mine/source.json  and the same command again"
        )
    demo = Plan(*load_study({"dataset": "mine"}))
    with pytest.raises(ConfigError, match="of directory meshes, and this configuration names the embedded demo"):
        before_any_job(demo, DRY)
    Path("results/mine/source.json").unlink()
    before_any_job(other, REAL)
    with pytest.raises(ConfigError, match="are of directory others, and this configuration names directory meshes"):
        before_any_job(plan_of(POISSON), DRY)


def test_a_source_that_grows_or_is_read_otherwise_is_the_same():
    begun(plan_of(POISSON))
    Path("meshes/new.off").write_text("OFF\n")
    Path("link").symlink_to("meshes")
    elsewhere = [{"path": str(Path("meshes").resolve())}, {"path": "link"}]
    for source in (split(0.5, 0.2, 0.3), {"follow_links": True}, *elsewhere):
        assert before_any_job(plan_of(POISSON, source=source), REAL) == []


def test_the_demo_may_be_edited_freely():
    begun(Plan(*load_study({"demo": {"shapes": 9}})))
    for demo in ({"shapes": 12}, {"categories": ["chair"]}, {"seed": 5}):
        assert before_any_job(Plan(*load_study({"demo": demo})), REAL) == []


def test_a_wrong_path_may_be_put_right_before_anything_was_listed():
    Path("empty").mkdir()
    Path("empty/a.off").write_text("OFF\n")
    before_any_job(plan_of(POISSON, source={"path": "empty", **split(0, 0, 1)}), REAL)
    assert before_any_job(plan_of(POISSON), REAL) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"kind": "directory"}'])
def test_a_damaged_note_of_the_source_says_what_to_type(text):
    begun(plan_of(POISSON))
    Path("results/mine/source.json").write_text(text)
    with pytest.raises(ConfigError, match=r"damaged\. .* type:  rm results/mine/source\.json"):
        before_any_job(plan_of(POISSON), DRY)
