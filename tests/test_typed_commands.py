"""Commands that messages tell a person to type are those of this study, and are there to be typed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import commands
from pipeline.cli.main import main
from pipeline.config import ROOT, load_study, preset_notes
from pipeline.environment import wrong_python


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(commands.VARIABLE, raising=False)
    return tmp_path


def test_the_configuration_files_of_a_run_stand_in_its_commands(folder):
    assert commands.isomill("store", "repair") == "isomill store repair"
    commands.remember([folder / "my study.yaml", "/elsewhere/b.yaml"])
    assert commands.isomill("store", "repair") == (
        "isomill store repair --configfile 'my study.yaml' /elsewhere/b.yaml"
    )
    Path("Snakefile").touch()
    assert commands.snakemake("-n", "eval_all") == (
        "snakemake -n eval_all --configfile 'my study.yaml' /elsewhere/b.yaml"
    )


def test_the_snakefile_is_named_where_the_folder_has_none():
    assert commands.snakemake("-n", "eval_all") == f"snakemake -n eval_all -s {ROOT / 'Snakefile'}"


def test_a_preset_is_laid_under_the_files_of_the_run(monkeypatch):
    monkeypatch.setenv(commands.VARIABLE, '["my_study.yaml"]')
    study, _ = load_study({"experiments": [{"name": "mine", "preset": "onet-image"}]})
    assert preset_notes(study)[0].endswith("To follow it: --configfile resources/presets/onet-image.yaml my_study.yaml")


CONFIG = "dataset: tiny\nsource: {kind: directory, path: meshes}\nexperiments: [{name: o, method: onet}]\n"
ASKED = [
    (["plan"], "snakemake -n eval_all"),
    (["export", "onet", "--output", "out"], "snakemake --cores 4 prepare_all"),
    (["interpolate", "o", "a", "b", "--output", "out"], "results/tiny/training/o/checkpoint.json"),
    (["store", "verify"], "isomill store repair"),
    (["store", "gc"], "isomill store repair"),
]


@pytest.mark.parametrize(("words", "typed"), ASKED, ids=[" ".join(words[:2]) for words, _ in ASKED])
def test_helpers_print_commands_with_the_files_they_were_given(words, typed, capsys):
    Path("study.yaml").write_text(CONFIG)
    Path("Snakefile").touch()
    if words[0] == "store":
        damaged = Path("results/tiny/data/scale_to_off/all/0.jsonl")
        damaged.parent.mkdir(parents=True)
        damaged.write_text("garbage")
    said = ""
    try:
        main([*words, "--configfile", "study.yaml"])
    except SystemExit as end:
        said = str(end.code)
    assert f"{typed} --configfile study.yaml" in said + capsys.readouterr().out


# --- another environment


def test_a_python_without_the_libraries_of_the_lock_is_told_in_a_sentence():
    text = wrong_python(ModuleNotFoundError("No module named 'pydantic'", name="pydantic"))
    assert text.startswith(f"{sys.executable} has no 'pydantic', so this is the Python of another environment; type:  ")
    assert text.endswith("/.venv/bin/activate  and the same command again")
    with pytest.raises(ModuleNotFoundError):
        wrong_python(ModuleNotFoundError("No module named 'pipeline.nothing'", name="pipeline.nothing"))


WITHOUT_PYDANTIC = "import sys; sys.modules['pydantic'] = None\n"  # importing it fails as where it is not installed
COMMANDS = {
    "isomill": ["-c", f"{WITHOUT_PYDANTIC}from pipeline.cli.main import main; main(['plan'])"],
    "snakemake": [str(Path(sys.executable).with_name("snakemake")), "-n"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_another_environment_is_one_message_without_a_traceback(name):
    Path("workflow_config.yaml").write_text("dataset: tiny\n")
    Path("Snakefile").write_text(f"{WITHOUT_PYDANTIC}\ninclude: {str(ROOT / 'rules' / 'common.smk')!r}\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *COMMANDS[name]], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    text = done.stdout + done.stderr
    assert "has no 'pydantic', so this is the Python of another environment; type:  " in text
    assert "Traceback" not in text
