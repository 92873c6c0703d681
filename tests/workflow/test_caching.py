"""Only what an edit touches is made again, shape by shape."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from tests.workflow.runner import PROFILE, Workflow, added

NOTHING = "Nothing to be done"
LEFT = (".dropped", ".rejected")  # notes of a few bytes
DATA = ("extract_meshes", "make_watertight", "scale_to_off", "sample_surface", "sample_boundary/0.1",
        "sample_boundary/0.02", "sample_volume", "compute_sdf", "voxelize/64")  # fmt: skip


def stages(overlay: dict) -> dict:
    return {"stages": overlay}


def experiment(name: str, **parts: dict) -> dict:
    """The demo's experiments with some parts of one of them changed."""
    blocks = [dict(block) for block in PROFILE["demo"]["experiments"]]
    for block in blocks:
        if block["name"] == name:
            block.update({part: {**block.get(part, {}), **values} for part, values in parts.items()})
    return {"demo": {**PROFILE["demo"], "experiments": blocks}}


def edit(workflow: Workflow, file: str, old: str, new: str) -> None:
    path = workflow.folder / file
    text = path.read_text()
    assert old in text, f"{old!r} is not in {file}"
    path.write_text(text.replace(old, new, 1))


def test_everything_is_computed_once_and_a_second_run_does_nothing(study):
    counts = study.computed()
    assert {stage: counts[stage] for stage in DATA} == {"extract_meshes": 24} | dict.fromkeys(DATA[1:], 22)
    assert counts["train/onet"] == counts["train/deepsdf"] == 60
    assert NOTHING in study.dry_run()
    assert NOTHING in study.run()
    assert study.computed() == counts


def test_one_sigma_recomputes_its_stage_and_what_reads_it_and_back_again_nothing(study):
    first, digests = study.computed(), study.digests()
    study.configure(stages({**PROFILE["stages"], "sample_boundary": {"sigmas": [0.1, 0.03], "count": 2000}}))
    study.run()
    second = study.computed()
    tests = first["meshes/deepsdf"]
    assert added(first, second) == {
        "sample_boundary/0.03": 22,
        "compute_sdf": 22,
        "train/deepsdf": 60,
        "meshes/deepsdf": tests,
        "evaluation/deepsdf": tests,
    }
    study.configure({})
    study.run()
    assert study.computed() == second
    assert {k: v for k, v in study.digests().items() if "/0.03:" not in k} == digests


def test_ten_more_shapes_compute_those_ten_at_each_data_stage(study):
    before = study.computed()
    study.configure({"demo": {**PROFILE["demo"], "shapes": 32}})
    study.run("prepare_all")
    assert added(before, study.computed()) == dict.fromkeys(DATA, 10)


def test_ten_more_test_shapes_train_no_step(study):
    before, catalogue = study.computed(), next(study.results.glob("shapes/*/catalogue.csv")).read_text()
    splits = dict(re.findall(r'^"03001627","(\w+)","(\w+)"', catalogue, re.M))
    from pipeline.sources.demo import model_id

    splits |= {model_id("chair", k): "test" for k in range(22, 32)}
    lines = [f"03001627,{shape},{split}" for shape, split in splits.items()]
    (study.folder / "splits.csv").write_text("category,id,split\n" + "\n".join(lines) + "\n")
    overlay = {"source": {"split": {"kind": "files", "path": "splits.csv"}}}
    study.configure({**overlay, "demo": {**PROFILE["demo"], "shapes": 32}})
    study.run()
    computed = added(before, study.computed())
    assert not [stage for stage in computed if stage.startswith("train/")]
    assert computed["meshes/onet"] == computed["meshes/poisson"] == 10


def test_a_models_block_retrains_that_model_only(study):
    before = study.computed()
    study.configure(experiment("onet", model={"queries": 65}))
    study.run()
    assert {s for s in added(before, study.computed()) if not s.startswith("evaluation/")} == {
        "train/onet",
        "meshes/onet",
    }


def test_extraction_and_evaluation_train_nothing(study):
    before = study.computed()
    study.configure(experiment("deepsdf", extraction={"resolution": 20}))
    study.run()
    after = study.computed()
    assert set(added(before, after)) == {"meshes/deepsdf", "evaluation/deepsdf"}
    study.configure({"evaluation": {"samples": 1000}})
    study.run()
    assert set(added(after, study.computed())) == {
        f"evaluation/{name}" for name in ("onet", "deepsdf", "poisson", "mean-shape")
    }


def test_more_steps_continue_the_run(study):
    before = study.computed()
    study.configure(experiment("onet", training={"steps": 80}))
    study.run("train_all")
    history = (study.results / "training" / "onet" / "history.csv").read_text().split("\n")
    assert history[-2].startswith("80,")
    assert added(before, study.computed()) == {"train/onet": 20}


def test_comments_docstrings_and_the_order_of_keys_rerun_nothing(study):
    edit(study, "pipeline/samples/volume.py", '"""', '"""A better opening. ')
    edit(study, "pipeline/geometry/closest.py", "\nimport numpy as np\n", "\nimport numpy as np  # arrays\n# for all\n")
    turned = {key: PROFILE[key] for key in reversed(PROFILE)}
    (study.folder / "study.yaml").write_text("# a comment\n" + yaml.safe_dump(turned, sort_keys=True))
    assert NOTHING in study.dry_run()


def test_a_change_of_code_reruns_its_stages_and_equal_bytes_stop_there(study):
    before = study.computed()
    edit(study, "pipeline/samples/volume.py", "\nimport numpy as np\n", "\nimport numpy as np\n\nUNUSED = 1\n")
    study.run()
    after = study.computed()
    assert added(before, after) == {"sample_volume": 22}


def test_a_change_in_a_module_that_stages_import_reruns_those_stages(study):
    edit(study, "pipeline/geometry/closest.py", "\nimport numpy as np\n", "\nimport numpy as np\n\nUNUSED = 1\n")
    text = study.dry_run("prepare_all")
    rules = set(re.findall(r"^(?:local)?rule (\w+):", text, re.M)) - {"prepare_all", "check_rejected"}
    assert {"sample_boundary", "sample_volume", "voxelize"} <= rules
    assert not rules & {"extract_meshes", "list_shapes", "make_demo_archive"}


def test_shards_and_cores_change_no_digest(finished, tmp_path):
    overlay = {"demo": {**PROFILE["demo"], "shapes": 6}, "shards": {"per_category": 5}}
    other = Workflow.new(tmp_path / "study", overlay)
    targets = [f"results/faults/data/{stage}/03001627/{k}.jsonl" for k in range(5) for stage in ("compute_sdf",)]
    other.run(*targets, switches=("--cores", "1"))
    expected, found = finished.digests(), {k: v for k, v in other.digests().items() if k.startswith("data/")}
    assert len(found) == 7 * 8, "seven stages of eight shapes"
    assert found == {key: expected[key] for key in found}


def test_two_datasets_share_a_store(study):
    other = Workflow(study.folder)
    other.configure({"dataset": "other"})
    other.run()
    assert other.results.name == "other"
    assert other.computed() == {}
    old = {k: v for k, v in Workflow(study.folder).digests().items() if not k.endswith(".csv")}
    assert old


def test_a_dry_run_in_a_fresh_checkout_shows_everything_and_writes_nothing(tmp_path):
    fresh = Workflow.new(tmp_path / "study")
    text = fresh.dry_run()
    assert re.search(r"^make_watertight +1$", text, re.M) and re.search(r"^train_model +3$", text, re.M)
    assert not {path.name for path in fresh.folder.iterdir()} & {"results", "store", ".isomill", "downloads"}
    assert not list(Path(fresh.folder).glob("logs"))


def test_code_edited_during_a_run_stops_its_jobs_and_stores_nothing(study):
    study.configure({"dataset": "edited", "store": {"path": "another"}})
    # The first stage is at work: the one that is edited begins three stages later.
    process = study.start_until("another/extract_meshes/*/*", "prepare_all")
    edit(study, "pipeline/samples/volume.py", "\nimport numpy as np\n", "\nimport numpy as np\n\nUNUSED = 1\n")
    assert process.wait(timeout=300) != 0
    assert "the code of sample_volume was changed since this run started" in (study.folder / "run.log").read_text()
    assert not (study.folder / "another" / "sample_volume").exists()


def test_a_wider_limit_tries_again_the_shapes_that_ran_into_it(study):
    narrow = {"dataset": "narrow", "store": {"path": "another"}}
    fine = stages({**PROFILE["stages"], "make_watertight": {"resolution": 160}})
    target = "results/narrow/data/make_watertight/03001627/0.jsonl"
    study.configure({**narrow, **fine, "limits": {"seconds": 0.05, "max_rejected": 1.0}})
    study.run(target)
    assert "longer than the limit of 0.05 s" in (study.folder / target).read_text()
    study.configure({**narrow, **fine})
    study.run(target)
    assert "longer than the limit" not in (study.folder / target).read_text()


def test_dropped_files_come_back_only_where_they_are_asked_for(study):
    before, digests = study.computed(), study.digests()
    study.configure({"store": {"drop": ["extract_meshes", "sample_boundary"]}})
    study.run()
    kept = {path.parent.parent.name for path in (study.folder / "store").rglob("*-*.*") if path.suffix not in LEFT}
    assert not kept & {"extract_meshes", "sample_boundary"}
    assert study.digests() == digests
    assert NOTHING in study.dry_run()

    more = {"demo": {**PROFILE["demo"], "shapes": 24}, "store": {"drop": ["extract_meshes", "sample_boundary"]}}
    study.configure(more)
    study.run("prepare_all")
    assert added(before, study.computed()) == dict.fromkeys(DATA, 2)

    # Another shell reads the raw meshes again, all of which are gone but for the two new ones.
    study.configure({**more, **stages({**PROFILE["stages"], "make_watertight": {"resolution": 40}})})
    study.run("prepare_all")
    counts = added(before, study.computed())
    assert counts["make_watertight"] == 2 + 24
    assert counts["extract_meshes"] == 2  # made again by those who read them, and not counted as new
