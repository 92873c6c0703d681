"""Nothing stays stale: whatever failed, was lost, copied or changed by hand, the same command makes it right."""

from __future__ import annotations

import base64
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from pipeline import files, ledger
from pipeline.models.contract import build_from
from tests.solids import box
from tests.workflow.runner import PROFILE, Workflow
from tests.workflow.test_families import DENSE, ONET, SHORT
from tests.workflow.test_families import EXPERIMENTS as FAMILIES
from tests.workflow.test_sources import off_text

pytestmark = pytest.mark.workflow

NOTHING = "Nothing to be done"
TARGETS = ("eval_all", "encode_all", "quick_eval")
EXPERIMENTS = [
    *FAMILIES,
    {
        "name": "deepsdf",
        "method": "deepsdf",
        "model": {"dims": [16, 16, 16], "latent_in": [2], "code": 8, "samples": 64},
        "training": SHORT,
        "inference": {"iterations": 2, "samples": 64},
        "extraction": {"method": "dense", "resolution": 12},
    },
    {
        "name": "picture",
        "method": "onet",
        "model": {**ONET, "observation": {"kind": "view", "size": 32}},
        "training": SHORT,
        "extraction": DENSE,
    },
]
# Every data stage, a generator, a child, published weights, codes, fields and a stage whose files are dropped.
EVERY_RULE = {
    "demo": {"categories": ["chair"], "shapes": 8, "broken": 0, "experiments": EXPERIMENTS},
    "store": {"drop": ["extract_meshes"]},
}
MORE_SURFACE = {**EVERY_RULE, "stages": {**PROFILE["stages"], "sample_surface": {"count": 2100}}}
# Two faults for the code of a copied checkout, switched by the environment: jobs of a rule are killed as soon as they
# start (a walltime limit does the same), and a stage has other settings or code than before.
KILLED = """
import os, signal, sys
from pathlib import Path

log = Path(sys.argv[sys.argv.index("--log") + 1]) if "--log" in sys.argv else Path()
if os.environ.get("KILLED") in (*log.parts, log.stem):
    os.kill(os.getpid(), signal.SIGTERM)
"""
EDITED = """

_work = Plan.work


def _edited(self, name):
    import os

    row = _work(self, name)
    return {**row, "edited": True} if name.split("/")[0] == os.environ.get("EDITED") else row


Plan.work = _edited
"""


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> Workflow:
    """A finished study in which every rule of the workflow has run."""
    workflow = Workflow.new(tmp_path_factory.mktemp("freshness") / "study", EVERY_RULE)
    main, plan = workflow.folder / "pipeline" / "__main__.py", workflow.folder / "pipeline" / "plan.py"
    main.write_text(KILLED + main.read_text())
    plan.write_text(plan.read_text() + EDITED)
    weights = build_from({"method": "onet", "model": ONET}, 0, seed=5).network.state_dict()
    torch.save({"model": weights}, workflow.folder / "onet.pt")
    workflow.run(*TARGETS)
    return workflow


@pytest.fixture
def study(everything, tmp_path) -> Workflow:
    """A copy of that study to edit."""
    return everything.copy(tmp_path / "study")


def rules_with_outputs(workflow: Workflow) -> dict[str, str]:
    """Rule → one of its outputs, of every rule that made something, as Snakemake wrote them down."""
    found = {}
    for path in (workflow.folder / ".snakemake" / "metadata").rglob("*"):
        if path.is_file():
            output = base64.b64decode(path.name.removeprefix("@")).decode()
            found.setdefault(json.loads(path.read_text())["rule"], output)
    return found


def all_rules(workflow: Workflow) -> set[str]:
    """Every rule that Snakemake lists, but those that only name targets."""
    listed = workflow.run(switches=("--list-rules", "--quiet"))
    targets = {"all", *(name for name in listed.split() if name.endswith("_all")), "quick_eval"}
    names = {line.strip() for line in listed.splitlines() if line.strip().isidentifier()}
    return names - targets


def with_environment(workflow: Workflow, **variables: str) -> Workflow:
    class Edited(Workflow):
        @property
        def environment(self) -> dict[str, str]:
            return {**super().environment, **variables}

    return Edited(workflow.folder)


def test_a_job_that_fails_after_an_edit_is_run_again_whatever_rule_it_is(everything, tmp_path):
    """Snakemake files the parameters of a failed job as done (snakemake#2966); without its records, and by times
    alone, it would not even see the edit."""
    outputs = rules_with_outputs(everything)
    assert all_rules(everything) == set(outputs)

    def run_again(rule: str) -> bool:
        study = with_environment(everything.copy(tmp_path / rule), EDITED=rule, KILLED=rule)
        study.run(outputs[rule], fails=True)
        shutil.rmtree(study.folder / ".snakemake" / "metadata")
        return f"rule {rule}:" in study.run(*TARGETS, switches=("-n", "--rerun-triggers", "mtime"))

    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(outputs, pool.map(run_again, outputs), strict=True))
    assert [rule for rule, again in found.items() if not again] == []


def test_a_killed_job_and_the_same_command_end_as_if_undisturbed(study, tmp_path):
    edit = {**EVERY_RULE, "stages": {**PROFILE["stages"], "sample_volume": {"count": 2100}}}
    undisturbed = study.copy(tmp_path / "undisturbed")
    undisturbed.configure(edit)
    undisturbed.run()
    study.configure(edit)
    with_environment(study, KILLED="sample_volume").run(fails=True)
    assert "rule sample_volume:" in study.dry_run("train_all")
    study.run()
    assert study.digests() == undisturbed.digests()
    assert NOTHING in study.dry_run()


def test_without_snakemakes_records_nothing_runs_and_every_edit_is_seen(study):
    shutil.rmtree(study.folder / ".snakemake")
    assert NOTHING in study.dry_run()
    study.configure(MORE_SURFACE)
    for switches in (("-n",), ("-n", "--rerun-triggers", "mtime")):
        text = study.run(switches=switches)
        assert "Due: sample_surface (results/faults/data/sample_surface/03001627/0.jsonl): its settings" in text
    text = study.run(switches=("-n", "--rerun-triggers", "code", "input"))
    assert "rule sample_surface:" in text


def test_a_dry_run_writes_nothing(study):
    study.configure(MORE_SURFACE)
    shutil.rmtree(study.folder / ".isomill")
    before = _tree(study.results)
    study.dry_run()
    assert _tree(study.results) == before
    assert not (study.folder / ".isomill").exists()


def _tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_ino) for p in sorted(folder.rglob("*"))}


def test_older_weights_in_the_place_of_published_ones_are_noticed(study):
    weights = build_from({"method": "onet", "model": ONET}, 0, seed=6).network.state_dict()
    torch.save({"model": weights}, study.folder / "other.pt")
    os.utime(study.folder / "other.pt", (1_000_000_000, 1_000_000_000))
    os.replace(study.folder / "other.pt", study.folder / "onet.pt")
    text = study.dry_run()
    assert "Due: fetch_weights (results/faults/training/borrowed/checkpoint.json): an input has changed since" in text
    before = study.digests()
    study.run("generate_all")
    assert study.digests()["training/borrowed"] != before["training/borrowed"]


def test_hand_edits_of_every_kind_of_output_are_due_and_made_anew(everything, study):
    """One output of every rule, each with its old date."""
    outputs = rules_with_outputs(study)
    for output in outputs.values():
        path = study.folder / output
        about = path.stat()
        path.write_bytes(path.read_bytes()[:-1])
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    text = study.run(*TARGETS, switches=("-n", "--rerun-triggers", "mtime"))
    assert [rule for rule in outputs if f"rule {rule}:" not in text] == []
    study.run(*TARGETS)
    assert study.digests() == everything.digests()
    assert NOTHING in study.dry_run(*TARGETS)


def test_changed_settings_are_not_used(study):
    """They would fill the store with wrong products under right keys."""
    study.configure(MORE_SURFACE)
    study.run("results/faults/data/sample_surface/03001627/0.jsonl")
    right = ledger.read(study.results / "data/sample_surface/03001627/0.jsonl")
    path = study.folder / right.header["settings"]
    path.write_text(path.read_text().replace('"count": 2100', '"count": 2200'))
    shutil.rmtree(study.folder / "store" / "sample_surface")
    (study.results / "data/sample_surface/03001627/0.jsonl").unlink()
    text = study.run("results/faults/data/sample_surface/03001627/0.jsonl")
    assert f"{right.header['settings']} was changed or damaged; it is written anew." in text
    assert ledger.read(study.results / "data/sample_surface/03001627/0.jsonl") == right


@pytest.mark.parametrize("content", ["", '{"count": 1}', '["'])
def test_a_job_refuses_settings_that_are_not_what_their_name_promises(study, content):
    from pipeline.jobs.work import read_settings

    path = next(path for path in (study.results / "settings").glob("*.json") if path.name != "runtime.json")
    assert read_settings(path)["settings"] is not None
    path.write_text(content)
    with pytest.raises(SystemExit, match="was changed or damaged since it was written"):
        read_settings(path)


@pytest.fixture(scope="module")
def meshes(tmp_path_factory) -> Workflow:
    """A finished study of a folder of meshes, whose source is listed again whenever a run starts."""
    source = {"kind": "directory", "path": "meshes"}
    overlay = {"source": source, "experiments": [{"name": "poisson", "method": "poisson"}]}
    workflow = Workflow.new(tmp_path_factory.mktemp("meshes") / "study", overlay)
    (workflow.folder / "meshes").mkdir()
    for number in range(6):
        (workflow.folder / "meshes" / f"{number}.off").write_text(off_text(box((1.0, 1.0, 0.5 + number))))
    workflow.run("prepare_all")
    return workflow


@pytest.mark.parametrize("name", ["settings/runtime.json", "shapes/*/listed.json", "shapes/*/catalogue.csv"])
@pytest.mark.parametrize("length", [0, 20])
def test_truncated_records_of_the_listing_and_the_runtime_are_written_anew(meshes, tmp_path, name, length):
    study = meshes.copy(tmp_path / "study")
    (path,) = study.results.glob(name)
    whole = path.read_bytes()
    path.write_bytes(whole[:length])
    assert "Traceback" not in study.dry_run("prepare_all")
    assert "Traceback" not in study.run("prepare_all")
    if name.endswith("csv"):
        assert path.read_bytes() == whole
    assert NOTHING in study.dry_run("prepare_all")
    assert files.read_json(study.results / "settings" / "runtime.json")["results"] == "results/faults"
