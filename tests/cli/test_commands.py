"""`isomill …` on a small study: what is there, where it is, whether it is whole, and what nobody needs any more."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import socket
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from pipeline import files, ledger, receipts, runs
from pipeline.cli import main as commands
from pipeline.cli.main import main
from pipeline.config import ROOT
from pipeline.fingerprint import params_key
from pipeline.ledger import Ledger, Row
from pipeline.store import Entry, Store

ALL = {**commands.HELPERS, **commands.JOBS}
RESULTS = Path("results/tiny")


class Study:
    """A study of two meshes in its own folder: one good, one refused at once."""

    def __init__(self) -> None:
        config = "dataset: tiny\nsource: {kind: directory, path: meshes}\nstore: {path: store, shared: [shared]}\n"
        Path("workflow_config.yaml").write_text(config)
        self.store, self.shared = Store(Path("store")), Store(Path("shared"))
        refused = Row("all/b.off", "rejected", "ee" * 20, reason="it has no faces", stage="extract_meshes")
        self.store.put("extract_meshes", refused.key, b"{}", "rejected")
        self.entries: dict[str, Entry] = {}
        for stage in ("extract_meshes", "make_watertight", "scale_to_off"):
            self.write(f"data/{stage}/all/0.jsonl", self.row(stage), refused)
        self.write("meshes/poisson/0.jsonl", self.row("generate_meshes"))
        lost = Row("all/a.off", "rejected", reason="it is empty", stage="evaluate_meshes")
        self.write("evaluation/raw/poisson/0.jsonl", lost)
        self.entries["train_model"] = self.store.put("train_model", "ab" * 20, b"weights", "safetensors")
        checkpoint = RESULTS / "training/mean-shape/checkpoint.json"
        files.write_json(checkpoint, {"file": self.entries["train_model"].file})
        receipts.write(RESULTS, "f" * 40, {}, [checkpoint])

    def row(self, stage: str, store: Store | None = None) -> Row:
        entry = (store or self.store).put(stage, files.digest_of(stage.encode()), f"product of {stage}".encode(), "off")
        self.entries[stage] = entry
        return Row("all/a.off", "ok", entry.key, entry.file, entry.digest, entry.size, figures={"faces": 12})

    def write(self, name: str, *rows: Row) -> None:
        ledger.write(RESULTS / name, Ledger({"stage": name.split("/")[1]}, {row.shape: row for row in rows}))
        receipts.write(RESULTS, "f" * 40, {}, [RESULTS / name])

    def path(self, stage: str) -> Path:
        return self.store.root / self.entries[stage].file

    def damage(self, stage: str) -> None:
        content = self.path(stage).read_bytes()
        self.path(stage).write_bytes(content[:-1] + b"!")


@pytest.fixture
def study(tmp_path, monkeypatch) -> Study:
    monkeypatch.chdir(tmp_path)
    return Study()


@pytest.fixture
def run(study, capsys):
    """Run a command; gives its exit code and what it printed."""

    def call(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        return main(list(words)), capsys.readouterr().out

    return call


# --- help


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "600")


def help_of(capsys, *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        main([*words, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


def test_help_lists_the_helpers_with_a_line_each_and_names_the_jobs(capsys):
    text = " ".join(help_of(capsys).split())
    assert text.startswith("usage: isomill")
    for name, description in commands.HELPERS.items():
        assert f"{name} {description}" in text
    assert ", ".join(commands.JOBS) in text
    assert "snakemake --cores 8 eval_all" in text


@pytest.mark.parametrize("name", ALL)
def test_every_command_explains_itself_and_each_of_its_arguments(name, capsys):
    text = help_of(capsys, name)
    assert text.startswith(f"usage: isomill {name}")
    assert f"{ALL[name][0].upper()}{ALL[name][1:]}." in " ".join(text.split())
    parser = argparse.ArgumentParser(add_help=False)
    importlib.import_module(commands._module(name)).add_arguments(parser)
    assert all(action.help for action in parser._actions)


def test_a_command_is_a_module_with_a_rule_and_every_module_is_a_command():
    rules = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    for name in commands.JOBS:
        assert f"python -m pipeline {name} " in rules
    offered = {
        path.stem.replace("_", "-")
        for folder in ("cli", "jobs")
        for path in (ROOT / "pipeline" / folder).glob("*.py")
        if "def add_arguments(" in path.read_text()
    }
    assert offered == set(ALL)


@pytest.mark.parametrize(
    "name", sorted(set(commands.HELPERS) - {"export", "eval", "import-weights", "interpolate"})
)  # which need more
def test_helpers_load_no_heavy_library(name, study):
    words = [name, *{"shape": ["all/a.off"], "store": ["verify"]}.get(name, [])]
    program = f"import sys\nfrom pipeline.cli.main import main\nmain({words})\nprint(*sys.modules)"
    command = [sys.executable, "-c", program]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    loaded = set(printed.strip().split("\n")[-1].split())
    assert f"pipeline.cli.{name}" in loaded and not loaded & {"torch", "scipy", "open3d", "pandas", "snakemake"}


@pytest.mark.parametrize("words", [[], ["plna"], ["store", "polish"], ["shape"], ["plan", "--sed"]])
def test_a_wrong_command_line_ends_with_code_2_and_the_usage(words, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    text = capsys.readouterr().err
    assert "usage: isomill" in text and "error: " in text


def test_an_unknown_command_is_answered_with_the_known_ones():
    command = [sys.executable, "-m", "pipeline", "plna"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 2
    assert "invalid choice: 'plna'" in answer.stderr and "plan" in answer.stderr.split("choose from")[1]


# --- plan


def test_plan_tells_what_is_done(run):
    code, text = run("plan")
    lines = [line.split() for line in text.split("\n")]
    assert code == 0
    assert "study tiny: 1 categories, 1 shards" in text
    assert ["extract_meshes", "1/1", "2", "1"] in lines
    assert ["make_watertight", "1/1", "2", "0"] in lines
    assert ["sample_surface", "0/1", "0", "0"] in lines
    assert ["poisson", "poisson", "nothing", "to", "train"] in lines
    assert ["mean-shape", "mean_shape", "trained"] in lines
    assert "snakemake -n eval_all" in text


def test_plan_reads_the_files_laid_over_the_configuration(run):
    Path("study.yaml").write_text("dataset: other\nexperiments: [{name: mine, preset: deepsdf}]\n")
    _, text = run("plan", "--configfile", "study.yaml")
    assert "study other" in text and "sample_boundary/0.1" in text
    assert ["mine", "deepsdf", "not", "trained"] in [line.split() for line in text.split("\n")]


def test_without_a_configuration_of_its_own_a_folder_has_the_default_one(run):
    Path("workflow_config.yaml").unlink()
    assert "study demo: 3 categories" in run("plan")[1]


@pytest.mark.parametrize("name", ["missing.yaml", "folder", "wrong.yaml"])
def test_a_configuration_that_cannot_be_used_is_one_message(study, name):
    Path("folder").mkdir()
    Path("wrong.yaml").write_text("sed: 1\n")
    with pytest.raises(SystemExit) as end:
        main(["plan", "--configfile", name])
    assert end.value.code.startswith("error: ")
    assert (name if name != "wrong.yaml" else "did you mean 'seed'?") in end.value.code


# --- shape


def test_shape_lists_every_file_of_a_shape(run, study):
    code, text = run("shape", "all/a.off")
    lines = dict(line.split(maxsplit=1) for line in text.strip().split("\n"))
    assert code == 0
    entry = study.entries["scale_to_off"]
    assert lines["scale_to_off"] == f'store/{entry.file}  23 bytes  {{"faces":12}}'
    assert Path(lines["scale_to_off"].split()[0]).is_file()
    assert lines["evaluate_meshes/poisson"] == "rejected at evaluate_meshes: it is empty"
    assert set(lines) == {
        "extract_meshes",
        "make_watertight",
        "scale_to_off",
        "generate_meshes/poisson",
        "evaluate_meshes/poisson",
    }


def test_shape_gives_the_reason_of_a_rejected_shape(run):
    code, text = run("shape", "all/b.off")
    assert code == 0
    assert text.count("rejected at extract_meshes: it has no faces") == 3


def test_a_shape_is_found_however_its_accents_are_written(run, study):
    composed, decomposed = (unicodedata.normalize(form, "all/größe.off") for form in ("NFC", "NFD"))
    study.write("data/extract_meshes/all/0.jsonl", Row(decomposed, "rejected", reason="it is empty"))
    for name in (composed, decomposed):
        code, text = run("shape", name)
        assert code == 0 and "rejected: it is empty" in text


def test_an_unknown_shape_says_where_the_ids_stand(run):
    code, text = run("shape", "all/c.off")
    assert code == 1
    assert text.startswith("all/c.off is in no ledger of results/tiny; the ids stand in results/tiny/shapes/")


# --- store


def test_a_whole_store_is_verified(run):
    assert run("store", "verify") == (0, "every file is whole\n")


def test_verify_names_damaged_and_missing_files(run, study):
    study.damage("make_watertight")
    study.path("scale_to_off").unlink()
    study.path("train_model").unlink()
    code, text = run("store", "verify")
    assert code == 1
    assert f"damaged: {study.entries['make_watertight'].file}\n" in text
    assert f"missing: {study.entries['scale_to_off'].file}\n" in text
    assert f"missing: {study.entries['train_model'].file}\n" in text
    assert "1 files damaged, 2 missing, 0 records not as they were written" in text and "isomill store repair" in text


def test_files_of_a_shared_store_are_not_missing(run, study):
    """They are used where they lie: neither verify nor repair may ask for a copy."""
    study.write("data/sample_surface/all/0.jsonl", study.row("sample_surface", study.shared))
    assert run("store", "verify") == (0, "every file is whole\n")
    assert "0 damaged files and 0 records removed" in run("store", "repair")[1]
    assert (RESULTS / "data/sample_surface/all/0.jsonl").is_file()


def test_gc_lists_what_no_ledger_names_and_deletes_it_when_told(run, study):
    unnamed = study.store.put("sample_volume", "cd" * 20, b"x" * 2**21, "safetensors")
    foreign = study.shared.put("sample_volume", "cd" * 20, b"theirs", "safetensors")
    before = {entry.file for entry in study.store.list()}
    code, text = run("store", "gc")
    assert code == 0
    assert f"2,097,152  {unnamed.file}\n" in text
    assert "1 files, 2.0 MB would be deleted (--delete does it)" in text
    assert "other folders that share this store may need these files" in text
    assert {entry.file for entry in study.store.list()} == before
    assert run("store", "gc", "--delete") == (0, "1 files, 2.0 MB deleted\n")
    assert {entry.file for entry in study.store.list()} == before - {unnamed.file}
    assert (study.shared.root / foreign.file).is_file()


def test_gc_keeps_rejections_so_that_nothing_is_tried_again(run, study):
    run("store", "gc", "--delete")
    assert study.store.have("extract_meshes", "ee" * 20)
    assert run("store", "verify")[0] == 0


def test_gc_keeps_what_other_studies_of_this_folder_name(run, study):
    other = study.store.put("voxelize", "cd" * 20, b"grid", "safetensors")
    row = Row("all/a.off", "ok", other.key, other.file, other.digest, other.size)
    path = Path("results/other/data/voxelize/64/all/0.jsonl")
    ledger.write(path, Ledger({"stage": "voxelize/64"}, {row.shape: row}))
    run("store", "gc", "--delete")
    assert study.store.get(other.file) == b"grid"


def test_repair_removes_damaged_files_and_the_ledgers_that_name_lost_ones(run, study):
    study.damage("make_watertight")
    study.path("train_model").unlink()
    code, text = run("store", "repair")
    assert code == 0
    assert text == "1 damaged files and 2 records removed; run the same snakemake command again\n"
    assert not study.path("make_watertight").exists()
    left = sorted(path.relative_to(RESULTS).as_posix() for path in RESULTS.rglob("*.jsonl"))
    assert left == [
        "data/extract_meshes/all/0.jsonl",
        "data/scale_to_off/all/0.jsonl",
        "evaluation/raw/poisson/0.jsonl",
        "meshes/poisson/0.jsonl",
    ]
    assert run("store", "verify")[0] == 0


@pytest.mark.parametrize(
    "text", ["", "garbage", '{"ledger": 1}\n{"shape": "all/a', '{"ledger": 1}\n{"shap": 1}\n', "[]"]
)
def test_a_ledger_that_cannot_be_read_is_damaged_and_repair_removes_it(run, study, text):
    path = RESULTS / "data/scale_to_off/all/0.jsonl"
    path.write_text(text)
    code, printed = run("store", "verify")
    assert code == 1 and f"record: {path} is damaged\n" in printed
    with pytest.raises(SystemExit, match=f"{path} cannot be read; run `isomill store repair` first"):
        run("store", "gc", "--delete")
    assert study.path("scale_to_off").is_file()
    assert "0 damaged files and 1 records removed" in run("store", "repair")[1]
    assert not path.exists()


def test_gc_keeps_drawn_shapes_and_the_descriptors_of_their_comparison(run, study):
    study.write("samples/gan/0.jsonl", study.row("sample_shapes"))
    descriptor = study.store.put("light_field", "cd" * 20, b"descriptor", "safetensors")
    compared = RESULTS / "evaluation/samples/gan.json"
    files.write_json(compared, {"experiment": "gan", "descriptors": [descriptor.file]})
    receipts.write(RESULTS, "f" * 40, {}, [compared])
    run("store", "gc", "--delete")
    assert study.store.get(study.entries["sample_shapes"].file) == b"product of sample_shapes"
    assert study.store.get(descriptor.file) == b"descriptor"
    assert run("store", "verify")[0] == 0


def test_repair_makes_the_next_run_draw_a_damaged_sample_again(run, study):
    study.write("samples/gan/0.jsonl", study.row("sample_shapes"))
    study.damage("sample_shapes")
    assert "1 damaged files and 1 records removed" in run("store", "repair")[1]
    assert not (RESULTS / "samples/gan/0.jsonl").exists()
    assert run("store", "verify")[0] == 0


RECORDS = {
    "settings": ("settings/{key}.json", "is not what its name promises"),
    "listing": ("shapes/abc/listed.json", "is damaged"),
    "ledger": ("data/scale_to_off/all/0.jsonl", "is not as it was made"),
    "receipt": ("receipts/data/scale_to_off/all/0.jsonl.json", "is damaged"),
    "table": ("evaluation/summary.csv", "is not as it was made"),
}


@pytest.mark.parametrize("kind", RECORDS)
@pytest.mark.parametrize("damage", ["flipped", "truncated"])
def test_verify_names_damaged_records_of_every_kind_and_repair_takes_them_away(run, study, kind, damage):
    work = {"random": False, "seed": 0, "settings": {"count": 10}}
    key = params_key(work)
    files.write_json(RESULTS / "settings" / f"{key}.json", work)
    files.write_json(RESULTS / "settings" / "runtime.json", {})
    files.write_sealed(RESULTS / "shapes/abc/listed.json", {"signature": "1"})
    files.write_atomic(RESULTS / "evaluation/summary.csv", "method,iou\n")
    receipts.write(RESULTS, "f" * 40, {}, [RESULTS / "evaluation/summary.csv"])
    assert run("store", "verify") == (0, "every file is whole\n")
    name, problem = RECORDS[kind]
    path = RESULTS / name.format(key=key)
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    path.write_bytes(flipped if damage == "flipped" else whole[:middle])
    code, text = run("store", "verify")
    assert code == 1 and f"record: {path} {problem}\n" in text
    run("store", "repair")
    assert not path.exists()
    assert run("store", "verify") == (0, "every file is whole\n") or kind == "receipt"


def test_a_deleted_output_and_a_deleted_receipt_are_told(run, study):
    (RESULTS / "meshes/poisson/0.jsonl").unlink()
    receipts.withdraw(RESULTS, RESULTS / "data/scale_to_off/all/0.jsonl")
    text = run("store", "verify")[1]
    assert f"record: {RESULTS}/meshes/poisson/0.jsonl is missing\n" in text
    assert f"record: {RESULTS}/data/scale_to_off/all/0.jsonl has no receipt\n" in text


@pytest.mark.parametrize("words", [["gc"], ["gc", "--delete"], ["repair"]])
def test_nothing_is_removed_under_a_run_that_is_at_work(run, study, words):
    """What it has just made is in no ledger yet."""
    study.store.put("sample_volume", "cd" * 20, b"just made", "safetensors")
    before, parent = sorted(Path("store").rglob("*")), os.getppid()
    record = {"host": socket.gethostname(), "pid": parent, "start": runs.start_time(parent)}
    files.write_json(runs.RUNS / "other.json", record)
    with pytest.raises(SystemExit, match="a run is at work in this folder"):
        run("store", *words)
    assert sorted(Path("store").rglob("*")) == before
    assert run("store", "verify")[0] == 0


def test_an_empty_folder_has_nothing_to_check(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for action in ("verify", "gc", "repair"):
        assert main(["store", action]) == 0
    assert list(tmp_path.iterdir()) == []


# --- schema


def test_schema_prints_json_of_all_keys(run):
    code, text = run("schema")
    assert code == 0
    assert json.loads(text)["properties"]["stages"]["description"]
